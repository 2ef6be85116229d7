"""``hskcache verify``: is every byte of a cache as it was written?"""

import sys
from pathlib import Path

import click

from hskcache import console
from hskcache.cli.options import cache_argument, json_option


@click.command()
@cache_argument
@json_option
def verify(cache: Path, as_json: bool) -> None:
    """Check every file of a cache against its digests; exit 1 if anything is damaged."""
    from hskcache.verify import verify as check

    with console.progress("bytes") as bar:
        task = bar.add_task("verify", total=sum(path.stat().st_size for path in cache.rglob("*.zarr.zip")) or None)
        report = check(cache, on_progress=lambda num_bytes: bar.advance(task, num_bytes))
    if as_json:
        console.print_json({"cache": str(cache), **report.model_dump()})
    else:
        for problem in report.problems:
            click.echo(f"{problem.file} {problem.what}")
    size = console.human_bytes(report.checked_bytes)
    console.say(f"{cache}: {size} checked, " + ("all as written" if report.ok else f"{len(report.problems)} problems"))
    if not report.ok:
        sys.exit(1)
