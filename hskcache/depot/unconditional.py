"""A depot whose store keeps no conditions, found out by trying: files that only one worker may put."""

import secrets
import time
from typing import NamedTuple

from hskcache.depot.abc import Depot, Found

PROBE = ".building/probe-"
"""Beginning of the name of a file that is put to see what a store does; nobody else's."""


_MORE_TRIES = 2


class Unconditional:
    """A depot that looks whether a file is absent and then puts it, which is as good only where nobody else does."""

    def __init__(self, depot: Depot) -> None:
        self._depot = depot

    @property
    def url(self) -> str:
        """As of the depot."""
        return self._depot.url

    def get(self, name: str) -> bytes:
        """As of the depot."""
        return self._depot.get(name)

    def get_range(self, name: str, start: int, stop: int) -> bytes:
        """As of the depot."""
        return self._depot.get_range(name, start, stop)

    def put(self, name: str, data: bytes) -> None:
        """As of the depot."""
        self._depot.put(name, data)

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """Write a file unless there is one; of several that do so at once the last does."""
        try:
            return self._depot.get(name) == data
        except FileNotFoundError:
            self._depot.put(name, data)
            return True

    def list(self, prefix: str = "") -> list[Found]:
        """As of the depot."""
        return self._depot.list(prefix)

    def delete(self, *names: str) -> None:
        """As of the depot."""
        self._depot.delete(*names)


class Nature(NamedTuple):
    """Nature of a store, as it was found.

    Attributes:
        keeps_conditions: whether a file that is there stays when it is put if absent.
        ahead_s: seconds that its clock is ahead of this machine's.
    """

    keeps_conditions: bool
    ahead_s: float


def nature_of(depot: Depot) -> Nature:
    """Put files twice if they are absent, look what stands there and when it was put, and remove them.

    Raises:
        CacheError: the store may not be written, or does not answer.
    """
    found = _tried(depot)
    # A worker that ends the build may have removed one meanwhile.
    for _ in range(_MORE_TRIES):
        if found.keeps_conditions:
            break
        found = _tried(depot)
    return found


def _tried(depot: Depot) -> Nature:
    name = f"{PROBE}{secrets.token_hex(8)}"
    begun = time.time()
    depot.put_if_absent(name, b"first")
    ended = time.time()
    try:
        was_put = depot.put_if_absent(name, b"second")
        modified = next((found.modified_s for found in depot.list(PROBE) if found.name == name), ended)
    finally:
        depot.delete(name)
    # Stores count whole seconds.
    ahead = max(modified - ended, 0.0) or min(modified + 1 - begun, 0.0)
    return Nature(not was_put, ahead)
