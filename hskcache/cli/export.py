"""``hskcache export``: a cache as one HDF5 file, or as one Zarr group."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hskcache import console, units
from hskcache.cli.options import cache_argument
from hskcache.counted import counted
from hskcache.disk import require_file, require_outside
from hskcache.options import as_json

if TYPE_CHECKING:
    from hskcache.move.hdf5 import Compression


@click.command()
@cache_argument
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--compression",
    type=click.Choice(["gzip", "lzf", "none"]),
    help="Of the datasets: gzip, the default, is what every HDF5 reads, lzf is faster and known to h5py alone.",
)
@click.option("--zarr", "as_zarr", is_flag=True, help="A folder OUT that is one Zarr group, for others to read.")
@click.option("--force", is_flag=True, help="Replace whatever stands at OUT; of folders, the export of another cache.")
@as_json
def export(
    cache: Path, out: Path, compression: "Compression | None", as_zarr: bool, force: bool, as_json: bool
) -> None:
    """Write the cache CACHE to one HDF5 file OUT, or with --zarr to one Zarr group.

    Others read them without hskcache: h5py the one; zarr, xarray, tensorstore and zarrs the other. Every shard is
    verified. `hskcache import` makes the same cache of an HDF5 file again, with the same id. What is finished, of the
    same cache, is left alone.
    """
    require_outside(cache, out)
    if as_zarr and compression is not None:
        raise click.UsageError("--compression is of HDF5; leave it out with --zarr")
    with console.advancing("export", unit="bytes") as advance:
        if as_zarr:
            from hskcache.move.zarr_group import export_zarr

            done = export_zarr(cache, out, force, advance)
        else:
            from hskcache.move.hdf5 import export_hdf5

            require_file(out)
            done = export_hdf5(cache, out, compression or "gzip", force, advance)
    manifest, num_bytes = done.manifest, _size(out)
    if as_json:
        facts = {"file": str(out), "cache_id": manifest.cache_id, "num_rows": manifest.request.num_rows}
        console.print_json(facts | {"num_bytes": num_bytes, "was_there": done.was_there})
    what = "already holds" if done.was_there else "holds"
    size = units.human_bytes(num_bytes)
    console.say(
        f"{out} {what} {cache}: {counted(manifest.request.num_rows, 'row')}, {size}, id {manifest.cache_id[:12]}"
    )


def _size(out: Path) -> int:
    """Bytes of a file, or of all in a folder."""
    return sum(path.stat().st_size for path in ([out] if out.is_file() else out.rglob("*")) if path.is_file())
