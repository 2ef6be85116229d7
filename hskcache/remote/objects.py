"""A store of objects behind fsspec; each is one thread's view of a file system and makes one attempt."""

from collections.abc import Iterator
from typing import Any

from hskcache.depot.retry import status
from hskcache.depot.waiting import SILENCE_S

PIECE_BYTES = 8 << 20
"""Bytes that are asked for, or held, at a time."""

_PAST_THE_END = 416
# Whoever takes a file slower than that has stopped: nobody tells how much of it has gone, and libraries wait for ever.
_SLOWEST_BYTES_PER_S = 10_000


class Objects:
    """A store whose objects appear when they are whole, such as s3, gs and the hub.

    Args:
        system: the fsspec file system.
        root: path in it of the folder below which all names are.
        query: of a URL, which is sent along with every name.
    """

    def __init__(self, system: Any, root: str, query: str = "") -> None:
        self.system = system
        self._root, self._query = root.rstrip("/"), query

    def pieces(self, name: str, start: int, stop: int) -> Iterator[bytes]:
        """The bytes [start, stop) of a file, or those up to its end, at most ``PIECE_BYTES`` at a time."""
        while start < stop:
            end = min(start + PIECE_BYTES, stop)
            try:
                piece = self.system.cat_file(self._path(name), start=start, end=end)
            except Exception as error:
                if not is_past_the_end(error):
                    raise
                return
            yield piece
            start += len(piece)
            if start < end:
                return

    def size(self, name: str) -> int:
        """Bytes of a file."""
        info = self.system.info(self._path(name))
        if info["type"] != "file":
            raise FileNotFoundError(name)
        return int(info["size"])

    def write(self, name: str, data: bytes) -> None:
        """Write a file whole."""
        limit = {"timeout": SILENCE_S + len(data) / _SLOWEST_BYTES_PER_S} if self.system.async_impl else {}
        self.system.pipe_file(self._path(name), data, **limit)

    def remove(self, name: str) -> None:
        """Remove a file."""
        self.system.rm_file(self._path(name))

    def names(self, folder: str) -> list[str]:
        """Names of the files in a folder and below it, from there."""
        self.system.invalidate_cache()
        root = self._path(folder).rstrip("/") + "/"
        return [path.removeprefix(root) for path in self.system.find(root) if path.startswith(root)]

    def close(self) -> None:
        """Let go of a connection that is lost."""

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}{self._query}"


def is_past_the_end(error: BaseException) -> bool:
    """True if a server says that a file ends before the bytes that were asked for."""
    causes = [error, error.__cause__]
    return any(cause is not None and status(cause) == _PAST_THE_END for cause in causes)
