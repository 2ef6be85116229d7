"""``hskcache plan``: what to keep for a budget of bytes."""

import shlex
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from hskcache import console, units
from hskcache.build.keeping import Keeping, build_request
from hskcache.build.request import Texts
from hskcache.cli.keeping import job_options
from hskcache.counted import counted
from hskcache.errors import SpecError
from hskcache.options import as_json
from hskcache.spec import SCORES

if TYPE_CHECKING:
    from hskcache.plan.model import BudgetPlan


@click.command()
@job_options
@click.option("--budget", metavar="SIZE", help="Bytes of the whole cache, such as 500MB.")
@click.option(
    "--bytes-per-row", type=click.FloatRange(min=0, min_open=True), help="In place of --budget: bytes of a row."
)
@click.option(
    "--study",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Go by the scores of a study: the folder that hsktrain study wrote.  [default: tokens first, then columns, "
    "then layers]",
)
@as_json
def plan(
    teacher: str,
    texts: Texts,
    keeping: Keeping,
    device: str,
    budget: str | None,
    bytes_per_row: float | None,
    study: Path | None,
    as_json: bool,
) -> None:
    """Propose --keep and --encoding that fit a budget, with the bytes that `hskcache estimate` gives.

    Without a study tokens are added first, then columns, then layers. All other options are those of the build.
    """
    from hskcache.build.prepare import prepare_build
    from hskcache.studied import read_results

    if keeping.given("keep"):
        raise SpecError(f"--keep {keeping.keep} is what plan proposes; leave it out, or ask hskcache estimate")
    num_bytes = None if budget is None else units.parse_bytes(budget, "--budget")
    if (num_bytes is None) == (bytes_per_row is None):
        raise SpecError("give the budget as --budget 500MB for the whole cache, or as --bytes-per-row 200")
    results = None if study is None else read_results(study)
    # Whatever is kept, rows and teacher are the same; a score may need to be told how many positions.
    is_of_next = keeping.score is not None and SCORES[keeping.score].targets_alone
    request = build_request(teacher, texts, replace(keeping, keep="1t") if is_of_next else keeping, device)
    with TemporaryDirectory(prefix="hskcache-") as folder:
        job = prepare_build(request, Path(folder))
        # Only now: prepare_build tells better than an ImportError that torch is missing.
        from hskcache.plan import ByteBudget
        from hskcache.plan import plan as propose

        with console.advancing("estimate", unit="choices") as advance:
            found = propose(job, keeping, ByteBudget(num_bytes, bytes_per_row), results, advance)
    if as_json:
        console.print_json(found.model_dump(mode="json"))
    else:
        _print(found)
    if found.chosen.keep == "none":
        console.say("with --keep none, leave out the options that say how hidden states are kept")
    if study is not None and found.by == "order":
        console.say(f"no point of the study {study} fits; this adds tokens first, then columns, then layers")


def _print(found: "BudgetPlan") -> None:
    chosen, rows = found.chosen, max(found.num_rows, 1)
    budget = f"{units.human_bytes(found.budget_bytes)}, {found.budget_bytes / rows:,.1f} bytes a row"
    fields = ", ".join(f"{name} {units.human_bytes(size)}" for name, size in chosen.by_field.items())
    click.echo(f"budget    {budget} of {counted(found.num_rows, 'row')}")
    click.echo(f"proposed  {shlex.join(chosen.options)}")
    size = f"{units.human_bytes(chosen.num_bytes)}, {chosen.bytes_per_row:,.1f} bytes a row"
    click.echo(f"takes     about {size}: {fields}")
    if found.memory is not None:
        click.echo(f"memory    {found.memory.told}")
    if found.by == "study" and found.num_left_out:
        points = counted(found.num_left_out, "point")
        click.echo(f"left out  {points} of the study that options of hidden states alone do not say")
    if found.by == "study" or len(found.choices) > 1:
        click.echo("")
        _print_choices(found)


def _print_choices(found: "BudgetPlan") -> None:
    header = ["options", "bytes", "bytes a row", "fits"]
    if found.metric is not None:
        header += [found.metric, "a further 100 bytes a row"]
    rows = []
    for one in found.choices:
        row = [shlex.join(one.options), units.human_bytes(one.num_bytes), f"{one.bytes_per_row:,.1f}"]
        row.append("proposed" if one == found.chosen else "yes" if one.fits else "no")
        if found.metric is not None and one.score is not None:
            interval = "" if one.interval is None else f" ± {one.interval:.4f}"
            row += [f"{one.score:.4f}{interval}", "" if one.gain is None else f"{one.gain:+.4f}"]
        rows.append(row)
    console.print_columns(rows, header, right=(1, 2))
