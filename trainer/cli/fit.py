"""``hsktrain fit``: train a student from a cache, or from a teacher in the loop for comparison."""

from pathlib import Path
from typing import Any

import click

from hskcache import console, runtime
from hskcache.data_options import layout
from hskcache.errors import SpecError
from hskcache.ranges import Whole
from trainer.cli import options


@click.command()
@options.of_recipe
@click.option("--cache", metavar="PATH_OR_URL", help="The cache to learn from; from a URL its shards come as needed.")
@click.option(
    "--local-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of what is fetched from URLs, shared by all runs.  [default: $HSKCACHE_LOCAL or ~/.cache/hskcache]",
)
@click.option("--local-bytes", metavar="SIZE", help="What that folder may hold, such as 500GB.  [default: 20GB]")
@click.option(
    "--teacher", metavar="DIR_OR_ID", help="A teacher in the loop instead of a cache; needs --data and --spec."
)
@click.option("--data", metavar="FILE", help="Training rows, with --teacher.")
@click.option(
    "--spec", "spec_file", type=click.Path(path_type=Path), help="What to keep, with --teacher: YAML or JSON."
)
@click.option("--student", required=True, help="tinybert4, tinybert6, a config.json, a folder or a hub id.")
@click.option(
    "--eval-data",
    "eval_files",
    multiple=True,
    metavar="FILE",
    help="Rows that score the student and pick its best evaluation; none for a corpus. Given again, further rows that "
    "score the finished student and pick nothing.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of the student.")
@click.option(
    "--recipe",
    is_eager=True,
    default="mud",
    show_default=True,
    help="One that ships, such as tinybert-task, or a .yaml file.",
)
@click.option(
    "--set", "changes", multiple=True, metavar="STAGE.KEY=VALUE", help="Change a recipe: prediction.epochs=3."
)
@click.option(
    "--layer-map",
    metavar="MAP",
    help="uniform, top, bottom or teacher layers such as 3,6,9,12, in place of the cache's own pairs; the cache must "
    "store them.",
)
@click.option(
    "--field",
    "fields",
    multiple=True,
    metavar="NAME[=WEIGHT]",
    help="Learn from this field of the cache in place of its own of the same kind; may be repeated. Several fields of "
    "logits are averaged by their weights, alike without any.",
)
@click.option("--rows", type=Whole(min=1), help="Train on the first so many rows of the cache alone.")
@layout
@click.option(
    "--residency",
    type=click.Choice(["auto", "device", "host", "stream"]),
    default="auto",
    show_default=True,
    help="Where the encoded cache lives while training.",
)
@click.option(
    "--projection",
    type=click.Choice(["keep", "fresh"]),
    default="keep",
    show_default=True,
    help="From the student's hidden states to the teacher's width: keep that of earlier stages and of the student's "
    "folder, or draw it afresh in every stage.",
)
@click.option("--no-projection", is_flag=True, help="Leave the projection out of the folder of the student.")
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
@options.save_steps
@options.seed
@options.bf16
@options.device
@options.as_json
def fit(out: Path, as_json: bool, **given: Any) -> None:
    """Train a student through the stages of a recipe.

    The result is an ordinary checkpoint with its tokenizer: a classifier, or from the cache of a corpus an encoder that
    classifiers begin from. The same command goes on where a cut-off run stopped.
    """
    if (given["cache"] is None) == (given["teacher"] is None):
        raise SpecError("give either --cache CACHE or --teacher DIR --data FILE --spec SPEC.yaml")
    from hskcache.disk import writing_to
    from trainer import chance
    from trainer.cli.jobs import make_fit
    from trainer.run import processes
    from trainer.run.checkpoints import reached, require_room
    from trainer.run.distill import Machine
    from trainer.run.fit import fit as run
    from trainer.source import projections

    sources = options.each_once(given.pop("eval_files"), "--eval-data")
    given["eval_data"], others = next(iter(sources), None), sources[1:]
    device = runtime.resolve_device(given["device"])
    machine = Machine(device, given["bf16"], given["accumulation"], given["save_steps"])
    require_room(out)
    with console.going_on_from(lambda: reached(out)):
        job = make_fit(given | {"others": others}, device, machine.slices)
        with writing_to(out, "here"):
            result = run(job, out, machine)
    processes.disconnect()
    if not processes.is_first():
        return
    chance.tell(result, str(out), chance.help_of_fit(result))
    if missing := [source for source in others if source not in result.get("others", {})]:
        console.say(f"{out} was finished without {missing[0]}; score it with hsktrain evaluate --model {out}")
    if given["no_projection"] and (projection := out / projections.FILE).is_file():
        console.say(f"{out} was finished with its projection; delete {projection} to leave it out")
    if as_json:
        console.print_json(result)
        return
    losses = {
        f"{stage['name']} {term}": loss for stage in result["stages"] for term, loss in stage.get("losses", {}).items()
    }
    # Without a task there is no score: the last losses are what a person can judge by.
    options.print_scores({str(given["eval_data"]): result["scores"] or losses, **result.get("others", {})})
    for stage in result["stages"]:
        pace = f", {stage['seconds_per_step']:.3f} s a step" if stage["seconds_per_step"] else ""
        console.say(f"{stage['name']}: {stage['steps']} steps{pace}")
