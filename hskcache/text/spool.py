"""Rows of tokens on the disk instead of in memory, whole or not there."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hskcache.disk import sync_file, sync_folder
from hskcache.spec import Packing

_IDS, _OFFSETS, _TYPES, _RECORD, _NEW_RECORD = "ids.bin", "offsets.bin", "types.bin", "rows.json", "rows.json.tmp"
PLAIN = Packing()
"""Single texts, as long as they may be."""
_ID, _OFFSET, _TYPE = np.dtype("<i4"), np.dtype("<i8"), np.dtype("u1")


@dataclass(frozen=True)
class Spool:
    """Folder that rows are written to, through one tokenizer and packed in one way.

    The folder holds ``ids.bin`` (int32, the rows end to end), ``offsets.bin`` (int64, where each begins, and the end),
    of pairs ``types.bin`` (uint8, token types) and ``rows.json``, which is written last: without it the others are
    parts of something unfinished. Until the rows are whole, the corpus they are packed from stands beside them, in
    the same files with ``documents.`` before their names. One process at a time may write to a folder.

    Attributes:
        folder: made if missing; other files in it are left alone.
        tokenizer_digest: SHA-256 of the tokenizer's files; rows of another tokenizer are not taken for these.
        packing: rows packed otherwise are not taken for these either.
    """

    folder: Path
    tokenizer_digest: str
    packing: Packing = PLAIN


@dataclass(frozen=True, eq=False)
class SpooledRows:
    """Rows as they stand on the disk, mapped into memory for reading.

    Attributes:
        input_ids: int32 [sum L], a numpy.memmap.
        offsets: int64 [N + 1], a numpy.memmap.
        token_type_ids: uint8 [sum L], a numpy.memmap; None where none were written.
        num_tokens: tokens of the text, special tokens not counted.
    """

    input_ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    token_type_ids: NDArray[np.uint8] | None
    num_documents: int
    num_tokens: int


def read_spool(folder: Path, identity: Mapping[str, Any], stem: str = "") -> SpooledRows | None:
    """The rows in a folder, if they are whole and were written with the same identity; otherwise None.

    That they are whole is told by the record and the sizes of the files; the ids themselves are not looked at.
    ``identity``: what they were committed with; ``stem``: before the names of their files.
    """
    try:
        record = json.loads((folder / f"{stem}{_RECORD}").read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(record, dict) or record.get("identity") != dict(identity):
        return None
    num_ids, num_rows = record.get("num_ids", 0), record.get("num_rows", 0)
    files: dict[str, tuple[np.dtype[Any], int]] = {_IDS: (_ID, num_ids), _OFFSETS: (_OFFSET, num_rows + 1)}
    if record.get("has_types"):
        files[_TYPES] = _TYPE, num_ids
    paths = {name: folder / f"{stem}{name}" for name in files}
    try:
        sizes = {name: path.stat().st_size for name, path in paths.items()}
    except OSError:
        return None
    if not num_ids or sizes != {name: dtype.itemsize * count for name, (dtype, count) in files.items()}:
        return None
    maps = {name: np.memmap(path, files[name][0], "r") for name, path in paths.items()}
    return SpooledRows(maps[_IDS], maps[_OFFSETS], maps.get(_TYPES), record["num_documents"], record["num_tokens"])


def remove_spool(folder: Path, stem: str = "") -> None:
    """Remove the rows in a folder, whole or not, the record first."""
    for name in (_RECORD, _NEW_RECORD, _IDS, _OFFSETS, _TYPES):
        (folder / f"{stem}{name}").unlink(missing_ok=True)


class SpoolWriter:
    """Writes rows front to back; used in a ``with`` statement, and whole once :meth:`commit` returns.

    Whatever rows the folder held are gone from the start, but arrays that were mapped from them stay valid: the files
    are replaced, not written over. ``stem``: before the names of the files. Raises OSError if the disk is full or the
    folder cannot be written.
    """

    def __init__(self, folder: Path, stem: str = "", with_types: bool = False) -> None:
        self._folder, self._stem = folder, stem
        self._names = [_IDS, _OFFSETS, *([_TYPES] if with_types else [])]
        self._num_rows = self._num_ids = self._end = 0

    def __enter__(self) -> "SpoolWriter":
        self._folder.mkdir(parents=True, exist_ok=True)
        # The record goes first, and for good: beside the beginning of other rows it would vouch for them.
        self._path(_RECORD).unlink(missing_ok=True)
        sync_folder(self._folder)
        for name in (_IDS, _OFFSETS, _TYPES):
            self._path(name).unlink(missing_ok=True)
        self._files = {name: self._path(name).open("xb") for name in self._names}
        self._files[_OFFSETS].write(np.zeros(1, _OFFSET).tobytes())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.close()

    def append(
        self, ids: NDArray[np.int32], lengths: NDArray[np.int64], types: NDArray[np.uint8] | None = None
    ) -> None:
        """Add tokens, and the rows that end among them; what is behind the last of these begins the next row.

        ``ids``: int32 [sum L], end to end; ``lengths``: int64 [N], tokens of the rows that end; ``types``: uint8 [sum
        L], of rows that have token types.
        """
        offsets = self._end + np.cumsum(lengths)
        self._files[_IDS].write(ids.astype(_ID, copy=False).tobytes())
        self._files[_OFFSETS].write(offsets.astype(_OFFSET, copy=False).tobytes())
        if types is not None:
            self._files[_TYPES].write(types.astype(_TYPE, copy=False).tobytes())
        self._num_ids += len(ids)
        self._num_rows += len(lengths)
        self._end = int(offsets[-1]) if len(offsets) else self._end

    def commit(self, identity: Mapping[str, Any], num_documents: int, num_tokens: int) -> None:
        """Bring everything to the disk, and only then the record that makes it whole.

        ``identity``: what :func:`read_spool` will be asked for with; JSON values.
        """
        for file in self._files.values():
            file.flush()
            sync_file(file)
        record = {
            "identity": dict(identity),
            "num_documents": num_documents,
            "num_tokens": num_tokens,
            "num_rows": self._num_rows,
            "num_ids": self._num_ids,
        }
        if _TYPES in self._names:
            record["has_types"] = True
        with self._path(_NEW_RECORD).open("wb") as new:
            new.write(json.dumps(record, indent=2).encode() + b"\n")
            new.flush()
            sync_file(new)
        self._path(_NEW_RECORD).replace(self._path(_RECORD))
        sync_folder(self._folder)

    def _path(self, name: str) -> Path:
        return self._folder / f"{self._stem}{name}"
