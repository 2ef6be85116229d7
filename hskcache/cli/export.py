"""``hskcache export``: a cache as one HDF5 file."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hskcache import console
from hskcache.cli.options import cache_argument
from hskcache.counted import counted
from hskcache.disk import require_file_outside
from hskcache.options import as_json

if TYPE_CHECKING:
    from hskcache.move.hdf5 import Compression


@click.command()
@cache_argument
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--compression",
    type=click.Choice(["gzip", "lzf", "none"]),
    default="gzip",
    help="Of the datasets: gzip is what every HDF5 reads, lzf is faster and known to h5py alone.",
)
@click.option("--force", is_flag=True, help="Replace whatever stands at OUT.")
@as_json
def export(cache: Path, out: Path, compression: "Compression", force: bool, as_json: bool) -> None:
    """Write the cache CACHE to one HDF5 file OUT, which h5py and others read without hskcache.

    Every shard is verified. `hskcache import` makes the same cache of it again, with the same id. A finished file of
    the same cache is left alone.
    """
    from hskcache.move.hdf5 import export_hdf5

    require_file_outside(cache, out)
    with console.advancing("export", unit="bytes") as advance:
        done = export_hdf5(cache, out, compression, force, advance)
    manifest, num_bytes = done.manifest, out.stat().st_size
    if as_json:
        facts = {"file": str(out), "cache_id": manifest.cache_id, "num_rows": manifest.request.num_rows}
        console.print_json(facts | {"num_bytes": num_bytes, "was_there": done.was_there})
    what = "already holds" if done.was_there else "holds"
    size = console.human_bytes(num_bytes)
    console.say(
        f"{out} {what} {cache}: {counted(manifest.request.num_rows, 'row')}, {size}, id {manifest.cache_id[:12]}"
    )
