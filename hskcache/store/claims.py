"""Claims on shards, where several processes write one cache: locks on the bytes of a file, and nothing else.

The processes need not know of each other; what they share is a folder, on one machine or over a network. Each holds a
lock on the byte of a shard while it computes and commits it. A lock ends with its process, however that ends, so what
a dead one leaves undone is taken up by another. Two further locks order what must not happen twice: being alone, and
leaving. The last process to leave removes the file.

These are POSIX locks, which network file systems know. They belong to a process: it loses all of them when it closes
any descriptor of the file, and its threads do not exclude each other. So a process opens the file once, in
:func:`claiming`, and a folder is written to by one thread of it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar

from hskcache import locks

CLAIMS = ".building"
"""Name of the file; readers and hubs leave such names alone. That of a field that is added ends in ``-NAME``."""

# Bytes of the file: held together by all who are here; by who leaves; by who is alone; then one for each shard.
_PRESENT, _DOOR, _ALONE, _SHARDS = 0, 1, 2, 3


class Claims:
    """Shards that this process has taken on, of the work that it may share with others.

    Attributes:
        descriptor: the open file; None where nobody else can take part, so that every claim is granted.
        poll_s: seconds between looks at shards that others have claimed.
    """

    poll_s: ClassVar[float] = 0.1

    def __init__(self, descriptor: int | None) -> None:
        self.descriptor = descriptor

    def claim(self, shard: int) -> bool:
        """Take on a shard, unless another process has; it is let go with :meth:`release` or with the process.

        Whoever takes one on must look once more whether it is still to be written.
        """
        return self.descriptor is None or locks.lock_bytes(self.descriptor, 1, _SHARDS + shard, wait=False)

    def release(self, shard: int) -> None:
        """Let a shard go, written or not."""
        if self.descriptor is not None:
            locks.unlock_bytes(self.descriptor, 1, _SHARDS + shard)

    @contextmanager
    def alone(self, idle: bool = False) -> Iterator[None]:
        """Do what one process at a time may do; waits for the others. Nothing may be claimed by who asks for it.

        Args:
            idle: whether to wait until no shard is claimed either, so that nobody is writing anything.
        """
        if self.descriptor is None:
            yield
            return
        # A length of 0 means all bytes from there on.
        place = (0 if idle else 1, _ALONE)
        locks.lock_bytes(self.descriptor, *place)
        try:
            yield
        finally:
            locks.unlock_bytes(self.descriptor, *place)


UNSHARED = Claims(None)
"""The claims of a process that has the folder to itself."""


@contextmanager
def claiming(path: Path) -> Iterator[Claims]:
    """Take part in work that several processes may share.

    Args:
        path: the file; made if missing, in a folder that exists, and removed by the last process to leave.

    Returns:
        The claims of this process, :data:`UNSHARED` where the file system knows no locks.

    Raises:
        CacheError: the file system knows no locks, and several processes were started.
        OSError: the file cannot be made.
    """
    descriptor = _enter(path)
    if descriptor is None:
        yield UNSHARED
        return
    try:
        yield Claims(descriptor)
    finally:
        _leave(path, descriptor)


def _enter(path: Path) -> int | None:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            locks.lock_bytes(descriptor, 1, _PRESENT, shared=True)
        except OSError as error:
            os.close(descriptor)
            if not locks.are_missing(error):
                raise
            path.unlink(missing_ok=True)
            locks.work_without(path.parent)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        if _stands(path, descriptor):
            return descriptor
        # The last of those before has removed it meanwhile: locks that nobody else can find are none.
        os.close(descriptor)


def _leave(path: Path, descriptor: int) -> None:
    # An error in here must not take the place of the one that may have brought us here.
    with suppress(OSError):
        # One after the other: of two that leave at once each would take the other for one who stays.
        locks.lock_bytes(descriptor, 1, _DOOR)
        if locks.lock_bytes(descriptor, 1, _PRESENT, wait=False):
            path.unlink()
    os.close(descriptor)


def _stands(path: Path, descriptor: int) -> bool:
    """True if the open file is the one that the path leads to."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
