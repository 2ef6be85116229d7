"""``hsktrain compare``: what a student gains from a cache, beside labels alone and logits."""

from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import click

from hskcache import console, units
from hskcache.completion import places
from hskcache.options import as_json, device, gathered, layout, view
from hskcache.ranges import Whole
from trainer.cli import options
from trainer.run.request import FromCache, Machine

if TYPE_CHECKING:
    from trainer.comparison import CompareRequest, Comparison


@click.command()
@click.option("--cache", required=True, metavar="PATH_OR_URL", help="The cache to learn from.", shell_complete=places)
@options.student
@click.option(
    "--eval-data", required=True, metavar="FILE", help="Labelled rows that score every student.", shell_complete=places
)
@options.out("the runs and of results.json")
@options.recipe(
    "mud",
    "That the cache is learned by; labels alone and logits are learned by recipes of these names, for as many epochs.",
    "prediction.epochs=3, of every side that has the stage",
)
@click.option("--seeds", "num_seeds", type=Whole(min=1), default=1, help="Runs of each side, from seed 0 on.")
@click.option(
    "--teacher",
    metavar="DIR_OR_ID",
    help="The teacher of the cache, to be put in the loop for some steps, for their time.",
    shell_complete=places,
)
@view("Learn from a part of the cache")
@layout
@options.metric
@options.bf16
@device
@as_json
@gathered(lambda device, bf16: Machine(device, bf16), "machine", ("device", "bf16"))
@gathered(lambda cache, view: FromCache(cache, view=view), "source", ("cache", "view"))
def compare(
    source: FromCache,
    machine: Machine,
    out: Path,
    as_json: bool,
    recipe: str,
    changes: tuple[str, ...],
    **given: Any,
) -> None:
    """Train the same student from labels alone, from logits and from a cache, and compare.

    Every side and seed is a run of `hsktrain fit` in a folder of its own; what is finished is not run again, and the
    same command goes on where it was interrupted. Scores have 95 % intervals: over the seeds, or of one seed over draws
    of so many rows.
    """
    from trainer.comparison import CompareRequest
    from trainer.comparison import compare as run

    request = CompareRequest(source, recipe=recipe, changes=changes, **given)
    comparison = run(request, out, machine)
    if as_json:
        console.print_json(comparison.record())
        return
    print_comparison(comparison, request)


def print_comparison(comparison: "Comparison", request: "CompareRequest") -> None:
    """Print a table: a line a side, and the teacher where its score is known."""
    from trainer.comparison import LOOP
    from trainer.study.aligned import aligned

    header = ("student", comparison.metric, "s a step", "knowledge on disk")
    rows = [(f"({name})", f"{value:.3f}", "", "") for name, value in comparison.baselines.items()]
    for name, side in comparison.sides.items():
        size = units.human_bytes(side.num_bytes) if side.num_bytes else ""
        interval = "" if side.interval is None else f" ± {side.interval:.3f}"
        score = f"{fmean(side.scores):.3f}{interval}" if side.scores else ""
        rows.append((name, score, f"{side.step_s:.4f}", f"{size} if stored whole" if name == LOOP else size))
    click.echo(aligned([header, *rows], num_words=1))
    over = f"{request.num_seeds} seeds" if request.num_seeds > 1 else "draws of so many rows, of one seed"
    console.say(f"± is the 95 % interval over {over}")
    if LOOP in comparison.sides:
        console.say("with the teacher in the loop only some steps were taken, for their time")
