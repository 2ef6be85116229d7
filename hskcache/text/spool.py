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

_IDS, _OFFSETS, _RECORD, _NEW_RECORD = "ids.bin", "offsets.bin", "rows.json", "rows.json.tmp"
_ID, _OFFSET = np.dtype("<i4"), np.dtype("<i8")


@dataclass(frozen=True)
class Spool:
    """Where rows are written, and through which tokenizer.

    The folder holds ``ids.bin`` (int32, the rows end to end), ``offsets.bin`` (int64, where each begins, and the end)
    and ``rows.json``, which is written last: without it the others are parts of something unfinished. One process at
    a time may write to a folder.

    Attributes:
        folder: made if missing; other files in it are left alone.
        tokenizer_digest: SHA-256 of the tokenizer's files; rows of another tokenizer are not taken for these.
    """

    folder: Path
    tokenizer_digest: str


@dataclass(frozen=True, eq=False)
class SpooledRows:
    """Rows as they stand on the disk, mapped into memory for reading.

    Attributes:
        input_ids: int32 [sum L], a numpy.memmap.
        offsets: int64 [N + 1], a numpy.memmap.
        num_documents: documents the rows come from.
        num_tokens: tokens of the text, special tokens not counted.
    """

    input_ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    num_documents: int
    num_tokens: int


def read_spool(folder: Path, identity: Mapping[str, Any]) -> SpooledRows | None:
    """The rows in a folder, if they are whole and were written with the same identity; otherwise None.

    That they are whole is told by the record and the sizes of the files; the ids themselves are not looked at.
    """
    try:
        record = json.loads((folder / _RECORD).read_bytes())
        ids_bytes, offsets_bytes = ((folder / name).stat().st_size for name in (_IDS, _OFFSETS))
    except (OSError, ValueError):
        return None
    if not isinstance(record, dict) or record.get("identity") != dict(identity):
        return None
    sizes = [record.get("num_ids", 0) * _ID.itemsize, (record.get("num_rows", 0) + 1) * _OFFSET.itemsize]
    if [ids_bytes, offsets_bytes] != sizes or not ids_bytes:
        return None
    return SpooledRows(
        np.memmap(folder / _IDS, _ID, "r"),
        np.memmap(folder / _OFFSETS, _OFFSET, "r"),
        record["num_documents"],
        record["num_tokens"],
    )


class SpoolWriter:
    """Writes rows front to back; used in a ``with`` statement, and whole once :meth:`commit` returns.

    Whatever rows the folder held are gone from the start, but arrays that were mapped from them stay valid: the files
    are replaced, not written over.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._num_rows = self._num_ids = 0

    def __enter__(self) -> "SpoolWriter":
        self._folder.mkdir(parents=True, exist_ok=True)
        # The record goes first, and for good: beside the beginning of other rows it would vouch for them.
        (self._folder / _RECORD).unlink(missing_ok=True)
        sync_folder(self._folder)
        for name in (_IDS, _OFFSETS):
            (self._folder / name).unlink(missing_ok=True)
        self._ids = (self._folder / _IDS).open("xb")
        self._offsets = (self._folder / _OFFSETS).open("xb")
        self._offsets.write(np.zeros(1, _OFFSET).tobytes())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ids.close()
        self._offsets.close()

    def append(self, ids: NDArray[np.int32], lengths: NDArray[np.int64]) -> None:
        """Add rows.

        Args:
            ids: int32 [sum L], end to end.
            lengths: int64 [N], their tokens.
        """
        offsets = self._num_ids + np.cumsum(lengths)
        self._ids.write(ids.astype(_ID, copy=False).tobytes())
        self._offsets.write(offsets.astype(_OFFSET, copy=False).tobytes())
        self._num_ids += len(ids)
        self._num_rows += len(lengths)

    def commit(self, identity: Mapping[str, Any], num_documents: int, num_tokens: int) -> None:
        """Bring everything to the disk, and only then the record that makes it whole.

        Args:
            identity: what :func:`read_spool` will be asked for with; JSON values.
            num_documents: see SpooledRows.
            num_tokens: see SpooledRows.
        """
        for file in (self._ids, self._offsets):
            file.flush()
            sync_file(file)
        record = {
            "identity": dict(identity),
            "num_documents": num_documents,
            "num_tokens": num_tokens,
            "num_rows": self._num_rows,
            "num_ids": self._num_ids,
        }
        with (self._folder / _NEW_RECORD).open("wb") as new:
            new.write(json.dumps(record, indent=2).encode() + b"\n")
            new.flush()
            sync_file(new)
        (self._folder / _NEW_RECORD).replace(self._folder / _RECORD)
        sync_folder(self._folder)
