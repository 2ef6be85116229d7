"""``hskcache import``: the cache that an HDF5 file was exported from."""

from pathlib import Path

import click

from hskcache import console
from hskcache.counted import counted
from hskcache.options import as_json


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("out", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--new-id",
    is_flag=True,
    help="Where another version of numcodecs compresses the same values to other bytes: accept that, under a new id.",
)
@as_json
def import_(file: Path, out: Path, new_id: bool, as_json: bool) -> None:
    """Write the cache that FILE, an HDF5 file of `hskcache export`, was made from into the folder DIR.

    Every shard is compared with the digest that it had, so the cache has the same id. An interrupted import goes on
    with the same command.
    """
    from hskcache.move.hdf5 import import_hdf5

    with console.advancing("import", unit="bytes") as advance:
        done = import_hdf5(file, out, new_id, advance)
    manifest = done.manifest
    if as_json:
        facts = {"cache": str(out), "cache_id": manifest.cache_id, "exported_id": done.exported_id}
        counts = {"num_rows": manifest.request.num_rows, "num_written": done.num_written, "num_kept": done.num_kept}
        console.print_json(facts | counts)
    if manifest.cache_id != done.exported_id:
        console.say(f"the values are those of {done.exported_id}, in other bytes; their cache is {manifest.cache_id}")
    what = "complete" if done.num_written else "already complete"
    console.say(f"{out} is {what}: {counted(manifest.request.num_rows, 'row')}, id {manifest.cache_id[:12]}")
