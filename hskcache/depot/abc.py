"""Contract of a depot: six verbs on files by their names, each of which an object store has.

A file appears at once and whole, or not at all, and whoever lists or reads afterwards finds it. There are no renames,
no locks and no folders: a name has ``/`` in it, and that is all. Of several that put one file if it is absent, one
does, and that is all that a build needs to be shared.
"""

from typing import NamedTuple, Protocol


class Found(NamedTuple):
    """A file of a depot.

    Attributes:
        name: of it, from the depot.
        num_bytes: its size.
        modified_s: when it was put, by the clock of the store, in seconds since 1970.
    """

    name: str
    num_bytes: int
    modified_s: float


class Depot(Protocol):
    """Files by their names below a URL. Threads may share it; a process that is forked opens its own.

    Every verb is tried again for a while where the store does not answer. It raises an OutOfReachError where that was
    in vain, and a CacheError where another attempt mends nothing: no credentials, no such bucket.
    """

    @property
    def url(self) -> str:
        """The URL as people may read it, without passwords."""
        ...

    def get(self, name: str) -> bytes:
        """Read a file. Raises FileNotFoundError if there is none."""
        ...

    def get_range(self, name: str, start: int, stop: int) -> bytes:
        """Read the bytes [start, stop) of a file; one that ends before gives less.

        Raises FileNotFoundError if there is none.
        """
        ...

    def put(self, name: str, data: bytes) -> None:
        """Write a file whole, in place of what may stand there."""
        ...

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """Write a file unless there is one; of several that do so at once one does.

        Returns:
            True if the file is there with this content, be it from an attempt whose answer was lost; False if another
            stands there.
        """
        ...

    def list(self, prefix: str = "") -> list[Found]:
        """Files whose names begin with a folder, ``""`` or ``name/``, in order of their names."""
        ...

    def delete(self, *names: str) -> None:
        """Remove files, many at a time where the store can; any may be gone already."""
        ...
