"""``hskcache report``: a page about a cache for people to look at."""

from pathlib import Path

import click

from hskcache import console, units
from hskcache.cli.damaged import damage_is_an_answer
from hskcache.cli.options import cache_or_url_argument
from hskcache.options import view
from hskcache.ranges import Whole


@click.command()
@cache_or_url_argument
@click.option(
    "--out",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The page, such as sst2.html; an earlier page of this command is replaced.",
)
@click.option(
    "--study",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Show the curves of a study of the cache: the folder that hsktrain study wrote.",
)
@click.option("--rows", "num_rows", type=Whole(min=0, max=200), default=8, help="Rows to show, evenly chosen.")
@click.option(
    "--values/--no-values",
    "with_values",
    default=True,
    help="Whether to decode what is stored and tell its statistics; needs torch.",
)
@click.option("--force", is_flag=True, help="Replace a file that is no such page.")
@view("Show a part of the cache")
def report(cache: str, out: Path, study: Path | None, num_rows: int, with_values: bool, force: bool, view: str) -> None:
    """Write a page about a cache: bytes, lengths, kept tokens, rows, the teacher against labels, values, a study.

    The page is one HTML file that asks nobody for anything and holds text of the rows. Every shard is read once; exit 1
    if one is damaged.
    """
    from hskcache.remote.place import open_any
    from hskcache.report import ReportRequest
    from hskcache.report import report as write

    with damage_is_an_answer():
        opened = open_any(cache).view(view)
        request = ReportRequest(out, study, num_rows, with_values, force, view)
        with console.advancing("count", opened.num_rows) as advance:
            write(opened, request, advance)
    console.say(f"{out}: {units.human_bytes(out.stat().st_size)}; open it in a browser")
