"""Locks on some bytes of a file, which network file systems know, and which belong to a process."""

from hskcache.locks.missing import TAKEN
from hskcache.system import lock_range, unlock_range


def lock_bytes(descriptor: int, length: int, start: int, shared: bool = False, wait: bool = True) -> bool:
    """Lock bytes of an open file for this process, which loses them when it closes any descriptor of the file.

    Args:
        descriptor: of the file, open for writing.
        length: how many bytes; 0 means all from there on.
        start: the first one; the file need not have it.
        shared: whether others may hold them, too, who take them so.
        wait: whether to wait for others that hold them.

    Returns:
        Whether they are held; always, if they were waited for.

    Raises:
        OSError: they cannot be locked; see :func:`~hskcache.locks.missing.are_missing`.
    """
    try:
        lock_range(descriptor, length, start, shared, wait)
    except OSError as error:
        if wait or error.errno not in TAKEN:
            raise
        return False
    return True


def unlock_bytes(descriptor: int, length: int, start: int) -> None:
    """Let bytes of an open file go."""
    unlock_range(descriptor, length, start)
