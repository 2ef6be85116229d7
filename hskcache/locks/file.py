"""Locks on whole files."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hskcache.errors import CacheError
from hskcache.locks.missing import INSIDE, TAKEN, are_missing, work_without
from hskcache.system import TO_WRITE, lock_file, unlock_file


@contextmanager
def locked(
    path: Path, wait: bool = True, remove: bool = False, for_all: bool = False, shared: bool = False
) -> Iterator[bool]:
    """Hold a lock file, which one process at a time can; it stays behind, empty, unless it is to be removed.

    A file, opened for writing, is what network file systems can lock, too.

    Args:
        path: the lock file; made if missing, in a folder that exists.
        wait: whether to wait for another process that holds it.
        remove: whether to remove the file when it is let go, by the last who holds it; who waited for it makes another.
        for_all: whether one process of a run holds it for all of them, who then need no locks among themselves.
        shared: whether others may hold it, too, who take it so.

    Returns:
        Whether it is held; always, if it was waited for.

    Raises:
        CacheError: the file system knows no locks, and several processes were started.
        OSError: the file cannot be made.
    """
    try:
        file, held = _lock(path, wait, for_all, shared)
    except CacheError:
        # A file that locks nothing would only be in the way.
        if remove:
            path.unlink(missing_ok=True)
        raise
    try:
        yield held
    finally:
        if remove and held and (not shared or file.is_last()):
            # Some file systems remove no open file; it is then as if it were to stay.
            with suppress(OSError):
                path.unlink(missing_ok=True)
        file.close()


def is_locked(path: Path) -> bool:
    """True if a process holds a lock file, by itself or with others; nothing is made where there is none.

    Where the file system knows no locks, only what this process holds is known.
    """
    with _unheld(path) as is_free:
        return is_free is False


def is_abandoned(path: Path) -> bool:
    """True if a lock file is there that nobody holds, and that may be removed."""
    with _unheld(path) as is_free:
        return is_free is True


def remove_unheld(paths: Iterable[Path]) -> None:
    """Remove lock files that nobody holds, as a kill leaves them; whoever waits for one makes another."""
    for path in paths:
        with _unheld(path) as is_free, suppress(OSError):
            if is_free:
                path.unlink(missing_ok=True)


class LockFile:
    """An open file and the lock on it, which ends when it is closed by the process that took it.

    Args:
        path: of the file, for those who lock it where the file system cannot.
        descriptor: of it; open for writing, unless the lock is a shared one.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self._inside: bool | None = None
        self._holder: int | None = None

    def take(self, shared: bool = False, wait: bool = True, for_all: bool = False, quiet: bool = False) -> bool:
        """Lock the file.

        Args:
            shared: whether others may hold it, too, who take it so.
            wait: whether to wait for others that hold it.
            for_all: as :func:`locked`.
            quiet: whether nothing is said where the file system knows no locks.

        Returns:
            Whether it is held; always, if it was waited for.

        Raises:
            CacheError: the file system knows no locks, and several processes were started.
            OSError: it cannot be locked.
        """
        try:
            lock_file(self.descriptor, shared, wait)
            self._holder = os.getpid()
            return True
        except OSError as error:
            if not wait and error.errno in TAKEN:
                return False
            if not are_missing(error):
                raise
        if not quiet:
            work_without(self.path.parent, for_all)
        if not INSIDE.take(self.path, shared, wait):
            return False
        self._inside = shared
        return True

    def is_last(self) -> bool:
        """True if nobody else holds a lock that is shared; this one then excludes others until it is closed."""
        if self._inside is not None:
            INSIDE.release(self.path, self._inside)
            self._inside = None
        try:
            return self.take(wait=False, for_all=True, quiet=True)
        except OSError:
            return False

    def close(self) -> None:
        """Let it go."""
        if self._inside is not None:
            INSIDE.release(self.path, self._inside)
            self._inside = None
        if self._holder == os.getpid():
            # A child that was forked meanwhile has it open, too, and would hold the lock for as long as it lives.
            unlock_file(self.descriptor)
        os.close(self.descriptor)

    def stands(self) -> bool:
        """True if it is still the file of its name, which may have been removed and made again."""
        try:
            return os.path.samestat(self.path.lstat(), os.fstat(self.descriptor))
        except FileNotFoundError:
            return False


def _lock(path: Path, wait: bool, for_all: bool, shared: bool) -> tuple[LockFile, bool]:
    """The open lock file, and whether it is held."""
    while True:
        file = LockFile(path, os.open(path, TO_WRITE | os.O_CREAT, 0o666))
        try:
            held = file.take(shared, wait, for_all)
        except BaseException:
            file.close()
            raise
        if not held or file.stands():
            return file, held
        # Whoever held it has removed it: a lock that nobody else can find is none.
        file.close()


@contextmanager
def _unheld(path: Path) -> Iterator[bool | None]:
    """True while a lock file is held here that nobody held; False if somebody does, None if there is none to hold."""
    try:
        file = LockFile(path, os.open(path, TO_WRITE))
    except OSError:
        # In a folder that cannot be written nobody can tell, and nobody holds one to write there.
        yield None
        return
    try:
        yield _is_taken(file)
    finally:
        file.close()


def _is_taken(file: LockFile) -> bool | None:
    try:
        # One that was removed meanwhile is nobody's, and what stands there now is another's.
        return file.take(wait=False, for_all=True, quiet=True) and (file.stands() or None)
    except OSError:
        return None
