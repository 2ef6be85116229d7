"""``hskcache unpack``: the cache that a tar was packed from."""

import sys
from contextlib import nullcontext
from pathlib import Path

import click

from hskcache import console
from hskcache.completion import places
from hskcache.counted import counted
from hskcache.options import as_json


@click.command()
@click.argument("file", shell_complete=places)
@click.argument("out", metavar="DIR", type=click.Path(path_type=Path))
@as_json
def unpack(file: str, out: Path, as_json: bool) -> None:
    """Write the cache in FILE, a tar of `hskcache pack`, or stdin (-), into the folder DIR.

    Every shard is verified before it appears. What was whole of a tar that was cut short stays, and the same command
    goes on from there.
    """
    from hskcache.move.pack import unpack as take

    with (
        console.advancing("unpack", unit="bytes") as advance,
        nullcontext(sys.stdin.buffer) if file == "-" else Path(file).open("rb") as stream,
    ):
        done = take(stream, "stdin" if file == "-" else file, out, advance)
    manifest = done.manifest
    if as_json:
        facts = {"cache": str(out), "cache_id": manifest.cache_id, "num_rows": manifest.request.num_rows}
        console.print_json(facts | {"num_written": done.num_written, "num_kept": done.num_kept})
    what = "complete" if done.num_written else "already complete"
    console.say(f"{out} is {what}: {counted(manifest.request.num_rows, 'row')}, id {manifest.cache_id[:12]}")
