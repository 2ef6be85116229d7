"""File systems that know no locks, and the table that stands for them among the threads of this process."""

import errno
import threading
from collections import Counter
from pathlib import Path

from hskcache import console, processes
from hskcache.errors import CacheError
from hskcache.system import after_fork

# EINVAL is what POSIX has for a file of a kind that cannot be locked, and some FUSE file systems say it.
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL})
TAKEN = frozenset({errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK})
"""Errors that tell that another process holds a lock; POSIX leaves it open which."""


def are_missing(error: OSError) -> bool:
    """True if an error says that the file system knows no locks."""
    return error.errno in _NO_LOCKS


def work_without(folder: Path, for_all: bool = False) -> None:
    """Go on in a folder whose file system knows no locks, and say so once.

    Args:
        folder: that is worked on.
        for_all: whether this process works for all of its run.

    Raises:
        CacheError: several processes were started, which would harm each other unseen.
    """
    if processes.count() > 1 and not for_all:
        raise CacheError(
            f"{folder.absolute()} is on a file system that knows no locks, by which {processes.count()} processes "
            "would divide the work; start one process, or choose a folder elsewhere"
        )
    device = folder.stat().st_dev
    if device not in _said:
        _said.add(device)
        console.say(f"the file system of {folder.absolute()} knows no locks: only one process may work on it")


class _Inside:
    """Locks among the threads of this process, by the path of the file."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        # Shared ones by their number, an exclusive one as -1.
        self._held: Counter[str] = Counter()

    def take(self, path: Path, shared: bool, wait: bool) -> bool:
        key = _key(path)
        with self._changed:
            while self._held[key] < 0 or (self._held[key] and not shared):
                if not wait:
                    return False
                self._changed.wait()
            self._held[key] += 1 if shared else -1
        return True

    def release(self, path: Path, shared: bool) -> None:
        key = _key(path)
        with self._changed:
            self._held[key] -= 1 if shared else -1
            if not self._held[key]:
                del self._held[key]
            self._changed.notify_all()


def _key(path: Path) -> str:
    return str(path.parent.resolve() / path.name)


INSIDE = _Inside()
"""Locks that this process holds where the file system knows none."""
_said: set[int] = set()
# A child holds nothing here, and must not wait for a thread that it does not have.
after_fork(INSIDE.__init__)  # type: ignore[misc]
