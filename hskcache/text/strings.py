"""Rows on the disk while a data set is read and tokenized: a text takes memory only while somebody looks at it.

Inside :func:`spooling` the columns of texts, and tokens, are written to files without a name, which are gone with the
process however that ends. Elsewhere they are lists and arrays in memory.
"""

import errno
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from hskcache.errors import CacheError
from hskcache.system import read_at

_BLOCK_ROWS = 1 << 12
_folder: ContextVar[Path | None] = ContextVar("folder", default=None)


@contextmanager
def spooling(folder: Path) -> Iterator[None]:
    """Keep on the disk what is read inside; ``folder`` stands on the file system that it goes to."""
    token = _folder.set(folder)
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise CacheError(
            f"cannot write to {folder}: {error.strerror}; the texts and tokens of a data set need about twice the "
            "space of its file: free some and run the same command again"
        ) from None
    finally:
        _folder.reset(token)


class Strings(Sequence[Any]):
    """Values of a column of texts, on the disk; what is no string stays in memory. Written first, then read."""

    def __init__(self, folder: Path) -> None:
        self._data, self._ends = _file(folder), _file(folder)
        self._num_rows = self._end = 0
        self._others: dict[int, object] = {}

    def append(self, value: object) -> None:
        """Add a value."""
        if isinstance(value, str):
            # Half of a surrogate pair, which a byte that is not UTF-8 is read as, must come back to be told of.
            self._end += self._data.write(value.encode("utf-8", "surrogatepass"))
        else:
            self._others[self._num_rows] = value
        self._ends.write(self._end.to_bytes(8, "little"))
        self._num_rows += 1

    def __len__(self) -> int:
        return self._num_rows

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            first, stop, step = index.indices(len(self))
            return self._rows(first, max(first, stop))[::step] if step > 0 else list(self)[index]
        place = range(len(self))[index]
        return self._rows(place, place + 1)[0]

    def __iter__(self) -> Iterator[Any]:
        for first in range(0, len(self), _BLOCK_ROWS):
            yield from self._rows(first, min(first + _BLOCK_ROWS, len(self)))

    def _rows(self, first: int, stop: int) -> list[Any]:
        self._data.flush()
        self._ends.flush()
        before = 8 * min(first, 1)
        raw = read_at(self._ends.fileno(), 8 * (stop - first) + before, 8 * first - before)
        ends = [*([] if before else [0]), *np.frombuffer(raw, "<i8").tolist()]
        data = read_at(self._data.fileno(), ends[-1] - ends[0], ends[0])
        bounds = pairwise(ends)
        texts = [data[begin - ends[0] : end - ends[0]].decode("utf-8", "surrogatepass") for begin, end in bounds]
        return [self._others.get(row, text) for row, text in enumerate(texts, first)] if self._others else texts


Value = TypeVar("Value")


class Mapped(Sequence[str]):
    """Texts that are made of values when they are looked at.

    Args:
        make: a text of a value.
        values: [N].
    """

    def __init__(self, make: Callable[[Value], str], values: Sequence[Value]) -> None:
        self._make: Callable[[Any], str] = make
        self._values: Sequence[Any] = values

    def __len__(self) -> int:
        return len(self._values)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return list(map(self._make, self._values[index]))
        return self._make(self._values[index])

    def __iter__(self) -> Iterator[str]:
        return map(self._make, self._values)


class Flat:
    """An array that is written front to back, in memory or, inside :func:`spooling`, on the disk."""

    def __init__(self, dtype: type[np.generic]) -> None:
        self.dtype, self._parts = np.dtype(dtype), list[NDArray[Any]]()
        folder = _folder.get()
        self._file = None if folder is None else _file(folder)

    def append(self, part: NDArray[Any]) -> None:
        """Add entries."""
        part = part.astype(self.dtype, copy=False)
        if self._file is None:
            self._parts.append(part)
        else:
            self._file.write(part.tobytes())

    def whole(self) -> NDArray[Any]:
        """All of it; read-only where it is on the disk."""
        if self._file is None or not self._file.tell():
            return np.concatenate([np.empty(0, self.dtype), *self._parts])
        self._file.flush()
        return np.memmap(self._file, self.dtype, "r")


def column(values: Iterable[object] = ()) -> Any:
    """A column of texts to append to: a list, or inside :func:`spooling` :class:`Strings`."""
    folder = _folder.get()
    made: Any = [] if folder is None else Strings(folder)
    for value in values:
        made.append(value)
    return made


def _file(folder: Path) -> BinaryIO:
    return tempfile.TemporaryFile(dir=folder, prefix="hskcache-", buffering=1 << 16)  # type: ignore[return-value]
