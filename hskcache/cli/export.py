"""``hskcache export``: a cache as one HDF5 file, as one Zarr group, or for another trainer."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hskcache import console, units
from hskcache.cli.options import cache_argument
from hskcache.completion import places
from hskcache.counted import counted
from hskcache.disk import require_file, require_outside
from hskcache.options import as_json
from hskcache.runtime import require_teacher_extra

if TYPE_CHECKING:
    from hskcache.move.hdf5 import Compression
    from hskcache.move.whole import OnProgress, Written


@click.command()
@cache_argument
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--compression",
    type=click.Choice(["gzip", "lzf", "none"]),
    help="Of the datasets: gzip, the default, is what every HDF5 reads, lzf is faster and known to h5py alone.",
)
@click.option(
    "--as",
    "form",
    type=click.Choice(["hdf5", "zarr", "speculators"]),
    default="hdf5",
    help="One HDF5 file, one Zarr group, or what speculators trains draft models of a language model from.",
)
@click.option("--zarr", "form", flag_value="zarr", help="As --as zarr.")
@click.option(
    "--teacher",
    metavar="DIR_OR_ID",
    help="Of the cache, for --as speculators: its final norm is taken off the last states.",
    shell_complete=places,
)
@click.option("--force", is_flag=True, help="Replace whatever stands at OUT; of folders, the export of another cache.")
@as_json
def export(
    cache: Path,
    out: Path,
    compression: "Compression | None",
    form: str,
    teacher: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Write the cache CACHE to one HDF5 file OUT, or in another form.

    Others read them without hskcache: h5py the one; zarr, xarray, tensorstore and zarrs the Zarr group; the trainer of
    vllm-project/speculators the third. Every shard is verified. `hskcache import` makes the same cache of an HDF5 file
    again, with the same id. What is finished, of the same cache, is left alone.
    """
    require_outside(cache, out)
    if form != "hdf5" and compression is not None:
        raise click.UsageError(f"--compression is of HDF5; leave it out with --as {form}")
    if (form == "speculators") != (teacher is not None):
        raise click.UsageError(
            "--as speculators needs the --teacher of the cache, whose final norm is taken off the last states"
            if teacher is None
            else f"--teacher is of --as speculators; leave it out with --as {form}"
        )
    with console.advancing("export", unit="rows" if form == "speculators" else "bytes") as advance:
        if form == "zarr":
            from hskcache.move.zarr_group import export_zarr

            done = export_zarr(cache, out, force, advance)
        elif teacher is not None:
            done = _for_speculators(cache, teacher, out, force, advance)
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


def _for_speculators(cache: Path, teacher: str, out: Path, force: bool, advance: "OnProgress") -> "Written":
    require_teacher_extra()
    from hskcache.cache import open_cache
    from hskcache.move.speculators import NormedCache, export_speculators, layers_of
    from hskcache.teacher.final_norm import before_final_norm, load_same

    opened = open_cache(cache)
    # What the cache lacks is said before the teacher is loaded.
    layers_of(opened)
    return export_speculators(
        NormedCache(opened, before_final_norm(load_same(teacher, opened.manifest.request))), out, force, advance
    )


def _size(out: Path) -> int:
    """Bytes of a file, or of all in a folder."""
    return sum(path.stat().st_size for path in ([out] if out.is_file() else out.rglob("*")) if path.is_file())
