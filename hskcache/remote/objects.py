"""A store of objects behind fsspec; each is one thread's view of a file system and makes one attempt."""

from collections.abc import Iterator
from typing import Any

from hskcache.remote.retry import status

PIECE_BYTES = 8 << 20
"""Bytes that are asked for, or held, at a time."""

_PAST_THE_END = 416


class Objects:
    """A store whose objects appear when they are whole, such as s3, gs and the hub.

    Args:
        system: the fsspec file system.
    """

    def __init__(self, system: Any) -> None:
        self.system = system

    def pieces(self, url: str, start: int, stop: int) -> Iterator[bytes]:
        """The bytes [start, stop) of a file, or those up to its end, at most ``PIECE_BYTES`` at a time."""
        while start < stop:
            end = min(start + PIECE_BYTES, stop)
            try:
                piece = self.system.cat_file(url, start=start, end=end)
            except Exception as error:
                if not is_past_the_end(error):
                    raise
                return
            yield piece
            start += len(piece)
            if start < end:
                return

    def size(self, url: str) -> int:
        """Bytes of a file."""
        found = self.system.info(url)
        if found["type"] != "file":
            raise FileNotFoundError(url)
        return int(found["size"])

    def write(self, url: str, data: bytes) -> None:
        """Write a file whole."""
        self.system.pipe_file(url, data)

    def remove(self, url: str) -> None:
        """Remove a file."""
        self.system.rm_file(url)

    def close(self) -> None:
        """Let go of a connection that is lost."""

    def names(self, url: str) -> list[str]:
        """Names of the files in a folder and below it, from there."""
        self.system.invalidate_cache()
        root = self.system._strip_protocol(url).rstrip("/") + "/"
        return [path.removeprefix(root) for path in self.system.find(root) if path.startswith(root)]


def is_past_the_end(error: BaseException) -> bool:
    """Whether a server says that a file ends before the bytes that were asked for."""
    causes = [error, error.__cause__]
    return any(cause is not None and status(cause) == _PAST_THE_END for cause in causes)
