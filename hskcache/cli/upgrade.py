"""``hskcache upgrade``: a cache of an older version of the format, written anew in today's."""

from pathlib import Path

import click

from hskcache import console
from hskcache.counted import counted
from hskcache.options import as_json


@click.command()
@click.argument("old", metavar="OLD", type=click.Path(path_type=Path))
@click.argument("new", metavar="NEW", type=click.Path(path_type=Path))
@as_json
def upgrade(old: Path, new: Path, as_json: bool) -> None:
    """Write the cache OLD, of an older version of the format, into the folder NEW in today's.

    Rows, values and the order of batches stay the same, and OLD is not touched. Nothing is computed or decompressed.
    The new cache has an id of its own and tells that of the old one. What was written before an interrupt stays, and
    the same command goes on from there.
    """
    from hskcache.move.upgrade import upgrade as make

    with console.advancing("upgrade", unit="bytes") as advance:
        done = make(old, new, advance)
    manifest = done.manifest
    if as_json:
        console.print_json(
            {
                "cache": str(new),
                "cache_id": manifest.cache_id,
                "format_version": manifest.format_version,
                "upgraded_from": done.old.cache_id,
                "old_format_version": done.old.format_version,
                "num_rows": manifest.request.num_rows,
                "num_written": done.num_written,
                "num_kept": done.num_kept,
                "num_bytes": manifest.num_bytes,
            }
        )
    what = "is upgraded" if done.num_written else "was upgraded before"
    console.say(
        f"{new} {what}: format version {done.old.format_version} to {manifest.format_version}, "
        f"{counted(done.num_written, 'shard file')} written and {done.num_kept:,} kept, "
        f"{counted(manifest.request.num_rows, 'row')}, "
        f"id {done.old.cache_id[:12]} to {manifest.cache_id[:12]}; {old} is as it was"
    )
