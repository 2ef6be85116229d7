"""``hsktrain stark``: students of sparse teachers, and the sparsity that teaches best."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hskcache import console, runtime
from hskcache.completion import places
from hskcache.counted import counted
from hskcache.options import as_json, dense_teacher, device, gathered, layout
from hskcache.ranges import Whole
from hskcache.text.layout import Layout
from trainer.cli import options
from trainer.run.request import Machine

if TYPE_CHECKING:
    from trainer.recipe import Recipe
    from trainer.stark.results import Results
    from trainer.stark.settings import Data


def _data(*, data: str, eval_data: str, score_data: str | None, score_rows: int | None, layout: Layout) -> "Data":
    """The rows; heads and neurons are ranked by the task loss, too: those without a gold label are left out."""
    from trainer.stark.settings import Data

    return Data(data, eval_data, score_data, score_rows, layout.of_labelled_rows())


@click.command()
@options.of_recipe
@dense_teacher
@options.student
@click.option("--data", required=True, metavar="FILE", help="Training rows with labels.", shell_complete=places)
@click.option(
    "--eval-data",
    required=True,
    metavar="FILE",
    help="Rows that score students and pick the best epoch and level.",
    shell_complete=places,
)
@options.out("the run")
@layout
@click.option(
    "--sparsity",
    metavar="0,10,...,90",
    default="0,10,...,90",
    help="Percent of heads and of neurons to remove, a level each; 0 is always one. A finished folder may get more.",
)
@click.option(
    "--compare",
    metavar="plain,magnitude,random",
    default="",
    show_default=False,
    help="Other ways to rank heads and neurons, levels and curves of their own: expressive scores alone, sizes of "
    "weights, chance.",
)
@click.option(
    "--balance",
    type=click.FloatRange(0, 1),
    default=0.5,
    help="Share of expressive scores; the rest are student-friendly ones.",
)
@click.option(
    "--score-data",
    metavar="FILE",
    help="Labelled rows that score heads and neurons.  [default: some of --data, as --eval-data judges the result]",
    shell_complete=places,
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
    help="Rows of a batch in scoring; gradients are summed up by batch, so it changes the scores.",
)
@options.recipe(
    "stark", "Of every student: one that ships or a .yaml file, of logits and labels alone.", "distillation.epochs=3"
)
@options.accumulation
@options.metric
@options.eval_steps
@options.trained_max_length
@options.seed
@options.bf16
@device
@as_json
@gathered(_data, "data")
@gathered(options.load_recipe, "recipe")
@gathered(Machine, "machine", ("device", "bf16", "accumulation"))
def stark(
    teacher: str,
    student: str,
    data: "Data",
    out: Path,
    sparsity: str,
    compare: str,
    balance: float,
    recipe: "Recipe",
    max_length: int | None,
    batch_size: int,
    metric: str | None,
    seed: int,
    machine: Machine,
    as_json: bool,
) -> None:
    """Find the sparsity at which a teacher teaches a student best.

    A trial student is distilled from the dense teacher. One pass over some rows scores heads and neurons by what they
    are worth to the task and to that student; the lowest are removed, level by level. The logits of every sparse
    teacher become a field of one cache, and from each a student is trained, with the same start and batches as the
    trial. OUT/student is the best; OUT/results.json and OUT/sparsity.png tell of all, OUT/levels keeps all.

    The same command goes on where a cut-off run stopped.
    """
    machine = replace(machine, device=runtime.resolve_device(machine.device))
    from trainer.stark.run import run
    from trainer.stark.settings import Stark, parse_methods, parse_percents, soft_temperature

    data, length = _recalled(data, teacher, out)
    task = data.layout.task
    recipe = recipe.for_task(None if task is None else task.name)
    soft_temperature(recipe)
    asked = Stark(
        teacher=teacher,
        student=student,
        data=data,
        recipe=recipe,
        percents=parse_percents(sparsity),
        others=parse_methods(compare),
        balance=balance,
        max_length=max_length or length,
        batch_size=batch_size,
        seed=seed,
        machine=machine,
        metric=metric,
    )
    _tell(run(asked, out), out, as_json)


def _recalled(data: "Data", teacher: str, out: Path) -> "tuple[Data, int]":
    """The data with its columns, and the tokens of a row, as the run that goes on has them or the teacher's rows."""
    from hskcache.recall import of_cache
    from hskcache.text.remembered import of_model
    from trainer.stark.folder import Folder

    memory = of_model(teacher)
    if not memory.is_known and (cache := Folder(out).open_cache()) is not None:
        # A run that goes on may do so without its teacher, by what its cache tells.
        memory = of_cache(f"the cache {cache.name}", cache.manifest.request)
    columns = data.layout.recalling(memory, data.train, labelled=True)
    return replace(data, layout=columns), Folder(out).max_length or memory.length(columns.task)


def _tell(results: "Results", out: Path, as_json: bool) -> None:
    """Tell of the levels' results."""
    from trainer.stark.results import table

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
            f"one standard error of level 0's accuracy on {counted(results.num_evaluated, 'row')} is "
            f"{error:.4f}: differences of "
            "this order may be chance"
        )
    console.say(f"{out / 'sparsity.png'} shows the scores over the sparsity; {out / 'results.json'} has them all")
