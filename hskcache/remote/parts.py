"""Parts of files that are fetched: a whole one, or a run of neighbouring arrays of a shard, verified one by one."""

from collections.abc import Collection
from typing import NamedTuple

from hskcache.store.files import canonical_json, sha256_hex
from hskcache.store.record import NamedRecord, Record, StoredArray

REQUEST_BYTES = 1 << 18
"""Bytes that come about as soon as the answer to another request."""

_SHARE = 4


class Piece(NamedTuple):
    """Bytes [start, stop) of a file that have a digest, which is 64 hexadecimal digits."""

    start: int
    stop: int
    sha256: str


class FilePart(NamedTuple):
    """Part of a file, and all that is known of its bytes.

    Attributes:
        path: of the file, below a URL.
        start, stop: the part, bytes [start, stop) of the file.
        sha256: digest that names it: its own where it is a whole file.
        pieces: what of it is verified; of a run of arrays the gaps between them are not, and nobody reads those.
    """

    path: str
    start: int
    stop: int
    sha256: str
    pieces: tuple[Piece, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes of the part."""
        return self.stop - self.start

    @property
    def is_whole(self) -> bool:
        """True if it is the file of its name, verified as one."""
        return self.pieces == (Piece(0, self.stop, self.sha256),)


def whole(path: str, num_bytes: int, sha256: str) -> FilePart:
    """A whole file of this size and digest."""
    return FilePart(path, 0, num_bytes, sha256, (Piece(0, num_bytes, sha256),))


def parts_of(record: Record, names: Collection[str] | None) -> list[FilePart]:
    """Parts of a shard's file to fetch for some of its arrays: all of it where next to nothing would be spared.

    Args:
        record: of the shard.
        names: arrays; None: all.
    """
    file = whole(record.path, record.num_bytes, record.sha256)
    if names is None or not isinstance(record, NamedRecord):
        return [file]
    runs: list[list[StoredArray]] = []
    for info in sorted((record.arrays[name] for name in names), key=lambda info: info.offset):
        if runs and info.offset < max(one.offset + one.num_bytes for one in runs[-1]) + REQUEST_BYTES:
            runs[-1].append(info)
        else:
            runs.append([info])
    parts = [_run(record, run) for run in runs]
    spared = record.num_bytes - sum(part.num_bytes for part in parts)
    return parts if spared > max(REQUEST_BYTES * len(parts), record.num_bytes // _SHARE) else [file]


def _run(record: NamedRecord, arrays: list[StoredArray]) -> FilePart:
    pieces = tuple(Piece(info.offset, info.offset + info.num_bytes, info.sha256) for info in arrays)
    start, stop = pieces[0].start, max(piece.stop for piece in pieces)
    return FilePart(record.path, start, stop, sha256_hex(canonical_json([record.sha256, start, stop, pieces])), pieces)
