"""Calls of the operating system that POSIX has and Windows has not, with what stands for them there.

Nobody has run hskcache on Windows. Tests run it where these calls are taken away, so that reading, fetching and
training from a cache do not depend on them.
"""

import errno
import os
import platform
import threading
from collections.abc import Callable

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]

TO_READ = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
"""Flags to open a file with that is read."""
TO_WRITE = os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
"""Flags to open a file with that is written."""
NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""Flags that refuse a link, and do not wait for the other end of a pipe."""

_seeking = threading.Lock()


def lock_file(descriptor: int, shared: bool, wait: bool) -> None:
    """Lock a whole open file. Raises OSError: ENOLCK where the system has no such call."""
    if fcntl is None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
    fcntl.flock(descriptor, _operation(shared, wait))


def lock_range(descriptor: int, length: int, start: int, shared: bool, wait: bool) -> None:
    """Lock bytes of an open file for this process. Raises OSError: ENOLCK where the system has no such call."""
    if fcntl is None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
    fcntl.lockf(descriptor, _operation(shared, wait), length, start)


def unlock_file(descriptor: int) -> None:
    """Let a whole file go."""
    if fcntl is not None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def unlock_range(descriptor: int, length: int, start: int) -> None:
    """Let bytes of an open file go."""
    if fcntl is not None:
        fcntl.lockf(descriptor, fcntl.LOCK_UN, length, start)


def _operation(shared: bool, wait: bool) -> int:
    return (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)


def read_at(descriptor: int, num_bytes: int, offset: int) -> bytes:
    """Bytes of an open file from an offset on, at most so many; threads may share the file."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, num_bytes, offset)
    with _seeking:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, num_bytes)


def after_fork(restart: Callable[[], object]) -> None:
    """Let a forked child begin with something anew, where there are forks."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=restart)


def host_name() -> str:
    """Name of this machine."""
    return platform.node()


def can_sync_folders() -> bool:
    """True if a folder can be opened, which Windows refuses, and so brought to the disk."""
    return os.name != "nt"


def load() -> float | None:
    """Programs that were running or waiting for a core in the last minute; None where that is not counted."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
