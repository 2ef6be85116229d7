"""Files of a cache, found by what they are of, whichever names the format gives them."""

from pathlib import Path

from hskcache.store.record import CONSTANTS


def shard_file(root: Path, field: str, shard: int) -> Path:
    """The file of a shard, or of the constants; of one that is not there, a name that it could have."""
    stem = "constants" if shard == CONSTANTS else f"{shard:06d}"
    return next((root / field).glob(f"{stem}*.zarr.zip"), root / field / f"{stem}.zarr.zip")
