"""``hskcache verify``: is every byte of a cache as it was written?"""

import sys
from pathlib import Path

import click

from hskcache import console, units
from hskcache.cli.options import cache_argument
from hskcache.counted import counted
from hskcache.options import as_json

_MOST_ROWS = 10


@click.command()
@cache_argument
@click.option("--deep", is_flag=True, help="Decompress every array, too: for a cache whose writer you do not know.")
@as_json
def verify(cache: Path, deep: bool, as_json: bool) -> None:
    """Check every file of a cache against its digests; exit 1 if anything is damaged."""
    from hskcache.verify import num_shard_bytes
    from hskcache.verify import verify as check

    with console.advancing("verify", num_shard_bytes(cache), "bytes") as advance:
        report = check(cache, advance, deep)
    if as_json:
        console.print_json({"cache": str(cache), **report.model_dump()})
    else:
        for problem in report.problems:
            click.echo(f"{problem.file} {problem.what}")
        for field, rows in report.skipped.items():
            shown = ", ".join(str(one.row) for one in rows[:_MOST_ROWS]) + (", ..." if len(rows) > _MOST_ROWS else "")
            click.echo(f"{field} holds nothing of {counted(len(rows), 'row')}, whose values were not finite: {shown}")
    size = units.human_bytes(report.checked_bytes)
    but = ", but for those listed" if report.skipped else ""
    whole = f"every row of {report.num_rows:,} in every field{but}, all as written"
    found = whole if report.ok else counted(len(report.problems), "problem")
    console.say(f"{cache}: {size} checked, {found}")
    if not report.ok:
        sys.exit(1)
