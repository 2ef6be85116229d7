"""``hsktrain stark``: students of sparse teachers, and the sparsity that teaches best."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hskcache import console, runtime
from hskcache.data_options import layout
from hskcache.ranges import Whole
from hskcache.text.layout import Layout
from trainer.cli import options

if TYPE_CHECKING:
    from trainer.run.fit import Fit
    from trainer.stark.settings import Stark


@click.command()
@options.of_recipe
@click.option("--teacher", required=True, metavar="DIR_OR_ID", help="The dense teacher, fine-tuned on the task.")
@click.option("--student", required=True, help="tinybert4, tinybert6, a config.json, a folder or a hub id.")
@click.option("--data", required=True, metavar="FILE", help="Training rows with labels.")
@click.option(
    "--eval-data", required=True, metavar="FILE", help="Rows that score students and pick the best epoch and level."
)
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of the run.")
@layout
@click.option(
    "--sparsity",
    metavar="0,10,...,90",
    default="0,10,...,90",
    show_default=True,
    help="Percent of heads and of neurons to remove, a level each; 0 is always one. A finished folder may get more.",
)
@click.option(
    "--compare",
    metavar="plain,magnitude,random",
    default="",
    help="Other ways to rank heads and neurons, levels and curves of their own: expressive scores alone, sizes of "
    "weights, chance.",
)
@click.option(
    "--balance",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Share of expressive scores; the rest are student-friendly ones.",
)
@click.option(
    "--score-data",
    metavar="FILE",
    help="Labelled rows that score heads and neurons.  [default: some of --data, as --eval-data judges the result]",
)
@click.option(
    "--score-rows",
    type=Whole(min=1),
    help="So many of them, drawn by --seed.  [default: all of --score-data; of --data as many as --eval-data has]",
)
@click.option(
    "--batch-size",
    type=Whole(min=1),
    default=32,
    show_default=True,
    help="Rows of a batch in scoring; gradients are summed up by batch, so it changes the scores.",
)
@click.option(
    "--recipe",
    is_eager=True,
    default="stark",
    show_default=True,
    help="Of every student: one that ships or a .yaml file, of logits and labels alone.",
)
@click.option(
    "--set", "changes", multiple=True, metavar="STAGE.KEY=VALUE", help="Change a recipe: distillation.epochs=3."
)
@click.option(
    "--gradient-accumulation",
    "accumulation",
    type=Whole(min=1),
    default=1,
    show_default=True,
    help="Forward passes of one optimizer step; the batch of the recipe is divided by it.",
)
@options.metric
@options.eval_steps
@options.trained_max_length
@options.seed
@options.bf16
@options.device
@options.as_json
def stark(out: Path, as_json: bool, **given: Any) -> None:
    """Find the sparsity at which a teacher teaches a student best.

    A trial student is distilled from the dense teacher. One pass over some rows scores heads and neurons by what they
    are worth to the task and to that student; the lowest are removed, level by level. The logits of every sparse
    teacher become a field of one cache, and from each a student is trained, with the same start and batches as the
    trial. OUT/student is the best; OUT/results.json and OUT/sparsity.png tell of all, OUT/levels keeps all.

    The same command goes on where a cut-off run stopped.
    """
    given["device"] = runtime.resolve_device(given["device"])
    from trainer.stark.results import table
    from trainer.stark.run import run

    results = run(_stark(out, given), out)
    if as_json:
        console.print_json(results.to_json())
        return
    click.echo(table(results))
    if (count := sum(row.at_chance for row in results.rows)) > 0:
        console.say(
            f"students marked chance: {count} of {len(results.rows)}; they answer one class, or are right no more "
            "often than the most frequent one: what usually helps is another learning rate, more epochs or more rows"
        )
    percent, score = results.best.percent, f"{results.metric} {results.score(results.best):.4f}"
    teacher = f"the teacher without {percent} % of its heads and neurons" if percent else "the dense teacher"
    console.say(f"{out / 'student'}, the best, learned from {teacher}: {score}")
    if (error := results.standard_error) is not None:
        console.say(
            f"one standard error of level 0's accuracy on {results.num_evaluated} rows is {error:.4f}: differences of "
            "this order may be chance"
        )
    console.say(f"{out / 'sparsity.png'} shows the scores over the sparsity; {out / 'results.json'} has them all")


def _stark(out: Path, given: dict[str, Any]) -> "Stark":
    """The run that the flags ask for; nothing is read yet but the recipe."""
    from hskcache.recall import of_cache
    from hskcache.text.remembered import of_model
    from trainer.cli.jobs import make_fit
    from trainer.recipe import load_recipe
    from trainer.run.distill import Machine
    from trainer.stark.folder import Folder
    from trainer.stark.settings import Data, Stark, parse_methods, parse_percents, soft_temperature

    memory, named = of_model(given["teacher"]), given["layout"]
    assert isinstance(named, Layout)
    if not memory.is_known and (cache := Folder(out).open_cache()) is not None:
        # A run that goes on may do so without its teacher, by what its cache tells.
        memory = of_cache(f"the cache {cache.name}", cache.manifest.request)
    # The task loss ranks heads and neurons on these rows, too: without a gold label they are left out.
    given["layout"] = named = named.of_labelled_rows()
    columns = named.recalling(memory, given["data"], labelled=True)
    task = columns.task
    max_length = given["max_length"] or Folder(out).max_length or memory.length(task)
    recipe = load_recipe(given["recipe"], given["changes"]).evaluated_every(given["eval_steps"])
    recipe = recipe.for_task(None if task is None else task.name)
    soft_temperature(recipe)
    machine = Machine(given["device"], given["bf16"], given["accumulation"])

    def fit_of(field: str) -> "Fit":
        # Flags of `fit` that this command does not have.
        fixed: dict[str, Any] = {"teacher": None, "data": None, "spec_file": None, "layer_map": None, "rows": None}
        fixed |= {"projection": "keep", "no_projection": False}
        fixed |= {"others": (), "local_dir": None, "local_bytes": None, "layout": columns}
        fixed |= {"cache": Folder(out).cache, "residency": "auto", "fields": () if field == "logits" else (field,)}
        # What is to be told of the rows is told once, of the first student.
        return make_fit(given | fixed, machine.device, machine.slices, tells=field == "logits")

    return Stark(
        teacher=given["teacher"],
        student=given["student"],
        data=Data(given["data"], given["eval_data"], given["score_data"], given["score_rows"], columns),
        recipe=recipe,
        percents=parse_percents(given["sparsity"]),
        others=parse_methods(given["compare"]),
        balance=given["balance"],
        max_length=max_length,
        batch_size=given["batch_size"],
        seed=given["seed"],
        machine=machine,
        make_fit=fit_of,
        metric=given["metric"],
    )
