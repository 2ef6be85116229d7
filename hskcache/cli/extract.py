"""``hskcache extract``: a part of a cache as a cache of its own."""

from pathlib import Path

import click

from hskcache import console, units
from hskcache.cli.options import cache_or_url_argument
from hskcache.counted import counted
from hskcache.options import as_json, view


@click.command()
@cache_or_url_argument
@view("Write a part of the cache")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The new cache, a directory.")
@as_json
def extract(cache: str, view: str, out: Path, as_json: bool) -> None:
    """Write a part of a cache, as a view sees it, as a cache of its own.

    No teacher and no data set is needed, and the cache is not touched. Shards have the bytes that a build of the part
    would write. What was written before an interrupt stays, and the same command goes on from there.
    """
    from hskcache.move.extract import extract as write
    from hskcache.remote.place import open_any

    opened = open_any(cache).view(view)
    with console.advancing("extract", unit="bytes") as advance:
        done = write(opened, out, advance)
    manifest = done.manifest
    if as_json:
        console.print_json(
            {
                "cache": str(out),
                "cache_id": manifest.cache_id,
                "extracted_from": cache,
                "view": view or None,
                "num_rows": manifest.request.num_rows,
                "num_written": done.num_written,
                "num_kept": done.num_kept,
                "num_bytes": manifest.num_bytes,
            }
        )
    what = "is complete" if done.num_written else "is already complete"
    console.say(
        f"{out} {what}: {counted(manifest.request.num_rows, 'row')}, {units.human_bytes(manifest.num_bytes)}, id "
        f"{manifest.cache_id[:12]}; {counted(done.num_written, 'shard file')} written and {done.num_kept:,} kept"
    )
