"""``hskcache pack``: a cache as one tar."""

import sys
from pathlib import Path

import click

from hskcache import console
from hskcache.cli.options import cache_argument
from hskcache.completion import places
from hskcache.counted import counted
from hskcache.disk import require_file_outside
from hskcache.errors import SpecError
from hskcache.options import as_json

COMPRESSED = (".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz", ".zst", ".tzst", ".lz4", ".zip", ".7z")


def plain_name(name: str) -> str:
    """Name of the tar that has the name of a compressed file."""
    bare = Path(name).with_suffix("")
    return str(bare if bare.suffix == ".tar" else bare.with_suffix(".tar"))


@click.command()
@cache_argument
@click.argument("out", shell_complete=places)
@click.option("--force", is_flag=True, help="Replace whatever stands at OUT.")
@as_json
def pack(cache: Path, out: str, force: bool, as_json: bool) -> None:
    """Write the cache CACHE to one tar OUT, or to stdout (-) for a pipe to `hskcache unpack - DIR`.

    Every shard is verified. The same cache gives the same tar; a finished one is left alone.
    """
    from hskcache.move.pack import pack as to_file
    from hskcache.move.pack import pack_to

    if out == "-" and as_json:
        raise SpecError("--json prints where OUT - writes the tar; leave one of them out")
    if out == "-" and sys.stdout.isatty():
        raise SpecError("OUT - writes a tar to the terminal; give a file, or a pipe: hskcache pack CACHE - | ssh ...")
    if out.lower().endswith(COMPRESSED):
        raise SpecError(
            f"{out} has the name of a compressed file, and a cache's tar is none, as its shards are compressed "
            f"already; give {plain_name(out)}"
        )
    if out != "-":
        require_file_outside(cache, Path(out))
    with console.advancing("pack", unit="bytes") as advance:
        done = pack_to(cache, sys.stdout.buffer, advance) if out == "-" else to_file(cache, Path(out), force, advance)
    manifest = done.manifest
    if as_json:
        facts = {"file": out, "cache_id": manifest.cache_id, "num_rows": manifest.request.num_rows}
        console.print_json(facts | {"num_bytes": Path(out).stat().st_size, "was_there": done.was_there})
    where, what = "stdout" if out == "-" else out, "already holds" if done.was_there else "holds"
    console.say(f"{where} {what} {cache}: {counted(manifest.request.num_rows, 'row')}, id {manifest.cache_id[:12]}")
