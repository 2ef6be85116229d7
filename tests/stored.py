"""Files of a cache, found by what they are of, whichever names the format gives them."""

import re
from pathlib import Path

from hskcache.store.record import CONSTANTS

MANIFESTS = ("manifest.json", "manifest.copy.json")


def shard_file(root: Path, field: str, shard: int) -> Path:
    """The file of a shard, or of the constants; of one that is not there, a name that it could have."""
    stem = "constants" if shard == CONSTANTS else f"{shard:06d}"
    return next((root / field).glob(f"{stem}*.zarr.zip"), root / field / f"{stem}.zarr.zip")


def both_manifests(root: Path, data: bytes) -> None:
    """Put the same in the place of a manifest and, where there is one, of its copy."""
    for name in MANIFESTS:
        if (root / name).exists():
            (root / name).write_bytes(data)


def written(path: Path) -> tuple[int, int, int]:
    """What changes when a file is written or replaced, and not when it is read."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def plain(name: str) -> str:
    """Name of a shard's file without its digest, by which tests know it: ``hidden/000003.zarr.zip``."""
    return re.sub(r"-[0-9a-f]{16}(?=\.(zarr\.zip|jsonl))", "", name)
