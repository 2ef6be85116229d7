"""``hsktrain pilot``: what a teacher loses with some of its weights, accuracy or confidence."""

from dataclasses import asdict
from pathlib import Path

import click

from hskcache import console, runtime
from hskcache.completion import places
from hskcache.counted import counted
from hskcache.options import as_json, device, layout
from hskcache.ranges import Whole
from hskcache.text.layout import Layout
from trainer.cli import options


@click.command()
@click.option(
    "--teacher",
    required=True,
    metavar="DIR_OR_ID",
    help="A teacher that is fine-tuned on the task.",
    shell_complete=places,
)
@click.option(
    "--data",
    required=True,
    metavar="FILE",
    help="Labelled rows to score it on, best development rows.",
    shell_complete=places,
)
@options.out("the study")
@layout
@click.option(
    "--sparsity",
    metavar="0,1,2,5,10,20",
    default="0,1,2,5,10,20",
    help="Percent of the weights in the encoder's matrices to remove at random; 0 is always one.",
)
@click.option("--seeds", type=Whole(min=1), default=5, help="So many draws of each, by seeds 0, 1, ...")
@options.trained_max_length
@device
@as_json
def pilot(
    teacher: str,
    data: str,
    out: Path,
    layout: Layout,
    sparsity: str,
    seeds: int,
    max_length: int | None,
    device: str,
    as_json: bool,
) -> None:
    """Show what random sparsity does to a teacher, as StarK's pilot study does.

    A share of random weights is removed, several times, and the teacher is scored: by the task's metrics, and by how
    sure it is, the variance of its output distribution and the negative entropy. OUT/pilot.png shows means and standard
    errors. The same command goes on where it was cut off; with other shares or seeds only what is new is computed, and
    those that are asked for are told of.
    """
    device = runtime.resolve_device(device)
    from hskcache.text.remembered import of_model
    from trainer.stark.folder import RESULTS, Folder
    from trainer.stark.pilot import PLOT, PilotRequest, begin, run
    from trainer.stark.results import error_by_rows
    from trainer.stark.settings import parse_percents
    from trainer.stark.shares import table

    percents, memory = parse_percents(sparsity), of_model(teacher)
    columns = layout.of_labelled_rows().recalling(memory, data, labelled=True)
    columns.check(data)
    max_length = max_length or Folder(out).max_length or memory.length(columns.task)
    study = begin(PilotRequest(teacher, data, columns, percents, seeds, max_length, device))
    with console.advancing("pilot", len(study.cells), "cells") as advance:
        shares = run(study, out, advance)
    if as_json:
        facts = {"out": str(out), "num_rows": len(study.examples), "num_weights": study.num_weights}
        console.print_json({**facts, "shares": [asdict(share) for share in shares]})
        return
    click.echo(table(shares))
    metric, num_rows = next(iter(study.metrics)), len(study.examples)
    if (error := error_by_rows(metric, shares[0].measures[metric].mean, num_rows)) is not None:
        over_seeds = "± is one standard error over seeds; that" if seeds > 1 else "the standard error"
        console.say(
            f"{over_seeds} of the {metric} on {counted(num_rows, 'row')} is {error:.4f}: differences of this "
            "order may be chance"
        )
    console.say(f"{out / PLOT} shows it; {out / RESULTS} has the figures")
