"""Locks by which processes and threads keep out of each other's way, and what stands for them where there are none.

A lock is on an open file: it ends with the process that holds it, however that ends, and so leaves nothing that the
next one would have to judge. Some file systems know no locks (Lustre without flock, some NFS and FUSE). There the
threads of one process still keep out of each other's way, by a table in memory, and a line on stderr says that only one
process may work on the folder. Where several processes of one run would, each is refused.
"""

import errno
import fcntl
import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from hskcache import console, processes
from hskcache.errors import CacheError

WRITING = ".writing"
"""Name of the lock file of a folder that one command at a time writes; those who judge a folder leave it out."""

# EINVAL is what POSIX has for a file of a kind that cannot be locked, and some FUSE file systems say it.
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL})
# POSIX leaves it open which of them tells that another process holds it.
_TAKEN = frozenset({errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK})


@contextmanager
def locked(path: Path, wait: bool = True, remove: bool = False, for_all: bool = False) -> Iterator[bool]:
    """Hold a lock file, which one process at a time can; it stays behind, empty, unless it is to be removed.

    A file, opened for writing, is what network file systems can lock, too. Returns whether it is held; always, if it
    was waited for. Raises CacheError if the file system knows no locks, and several processes were started; OSError if
    the file cannot be made.

    Args:
        path: the lock file; made if missing, in a folder that exists.
        wait: whether to wait for another process that holds it.
        remove: whether to remove the file when it is let go; who waited for it makes another.
        for_all: whether one process of a run holds it for all of them, who then need no locks among themselves.
    """
    try:
        file, held = _lock(path, wait, for_all)
    except CacheError:
        # A file that locks nothing would only be in the way.
        if remove:
            path.unlink(missing_ok=True)
        raise
    try:
        yield held
    finally:
        if remove and held:
            # Some file systems remove no open file; it is then as if it were to stay.
            with suppress(OSError):
                path.unlink(missing_ok=True)
        file.close()


@contextmanager
def sole_writer(out: Path, is_file: bool = False) -> Iterator[None]:
    """Be the one command that writes an ``--out``; of several processes of a run the first one is it for all.

    ``out``: a folder, in which a file :data:`WRITING` says who writes it until it is let go; made if missing, and gone
    again if it stays empty. ``is_file``: whether it is a file, for which one beside it says so. Raises CacheError if
    another command writes it.
    """
    folder, name = (out.parent, f".{out.name}{WRITING}") if is_file else (out, WRITING)
    with ExitStack() as stack:
        # What cannot be written nobody else writes, and who reads alone must not be stopped; others will be told why.
        with suppress(OSError):
            stack.enter_context(_kept_if_used(folder))
            if not stack.enter_context(locked(folder / name, wait=False, remove=True, for_all=True)):
                raise CacheError(
                    f"{out} is being written by another process{_writer(folder / name)}; wait for it, or give another "
                    "--out"
                )
            (folder / name).write_text(f"{os.getpid()} {os.uname().nodename}\n", encoding="utf-8")
        yield


def is_locked(path: Path) -> bool:
    """True if a process holds a lock file, by itself or with others; nothing is made where there is none.

    Where the file system knows no locks, only what this process holds is known.
    """
    try:
        file = LockFile(path, os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        # In a folder that cannot be written nobody can tell, and nobody holds one to write there.
        return False
    try:
        return not file.take(wait=False, for_all=True, quiet=True)
    except OSError:
        return False
    finally:
        file.close()


class LockFile:
    """An open file and the lock on it, which ends when it is closed by the process that took it.

    ``path``: of the file, for those who lock it where the file system cannot. ``descriptor``: of it; open for writing,
    unless the lock is a shared one.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self._inside: bool | None = None
        self._holder: int | None = None

    def take(self, shared: bool = False, wait: bool = True, for_all: bool = False, quiet: bool = False) -> bool:
        """Lock the file.

        ``shared``: whether others may hold it, too, who take it so; ``wait``: whether to wait for others that hold it;
        ``for_all``: as :func:`locked`; ``quiet``: whether nothing is said where the file system knows no locks. Returns
        whether it is held; always, if it was waited for. Raises CacheError if the file system knows no locks, and
        several processes were started; OSError if it cannot be locked.
        """
        try:
            fcntl.flock(self.descriptor, _kind(shared, wait))
            self._holder = os.getpid()
            return True
        except OSError as error:
            if not wait and error.errno in _TAKEN:
                return False
            if not are_missing(error):
                raise
        if not quiet:
            work_without(self.path.parent, for_all)
        if not _INSIDE.take(self.path, shared, wait):
            return False
        self._inside = shared
        return True

    def close(self) -> None:
        """Let it go."""
        if self._inside is not None:
            _INSIDE.release(self.path, self._inside)
            self._inside = None
        if self._holder == os.getpid():
            # A child that was forked meanwhile has it open, too, and would hold the lock for as long as it lives.
            fcntl.flock(self.descriptor, fcntl.LOCK_UN)
        os.close(self.descriptor)

    def stands(self) -> bool:
        """True if it is still the file of its name, which may have been removed and made again."""
        try:
            return os.path.samestat(self.path.lstat(), os.fstat(self.descriptor))
        except FileNotFoundError:
            return False


def lock_bytes(descriptor: int, length: int, start: int, shared: bool = False, wait: bool = True) -> bool:
    """Lock bytes of an open file for this process, which loses them when it closes any descriptor of the file.

    Returns whether they are held; always, if they were waited for. Raises OSError if they cannot be locked; see
    :func:`are_missing`.

    Args:
        descriptor: of the file, open for writing.
        length: how many bytes; 0 means all from there on.
        start: the first one; the file need not have it.
        shared: whether others may hold them, too, who take them so.
        wait: whether to wait for others that hold them.
    """
    try:
        fcntl.lockf(descriptor, _kind(shared, wait), length, start)
    except OSError as error:
        if wait or error.errno not in _TAKEN:
            raise
        return False
    return True


def unlock_bytes(descriptor: int, length: int, start: int) -> None:
    """Let bytes of an open file go."""
    fcntl.lockf(descriptor, fcntl.LOCK_UN, length, start)


def are_missing(error: OSError) -> bool:
    """True if an error says that the file system knows no locks."""
    return error.errno in _NO_LOCKS


def work_without(folder: Path, for_all: bool = False) -> None:
    """Go on in a folder whose file system knows no locks, and say so once.

    ``for_all``: whether this process works for all of its run. Raises CacheError if several processes were started,
    which would harm each other unseen.
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


@contextmanager
def _kept_if_used(folder: Path) -> Iterator[None]:
    """Make a folder and those above it; those that are empty in the end are removed again."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):
            for path in made:
                path.rmdir()


def _writer(lock: Path) -> str:
    """Holder of a lock file, in brackets, if it says so."""
    try:
        process, host = lock.read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return ""
    return f" ({process} on {host})"


def _kind(shared: bool, wait: bool) -> int:
    return (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)


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


def _lock(path: Path, wait: bool, for_all: bool) -> tuple[LockFile, bool]:
    """The open lock file, and whether it is held."""
    while True:
        file = LockFile(path, os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666))
        try:
            held = file.take(wait=wait, for_all=for_all)
        except BaseException:
            file.close()
            raise
        if not held or file.stands():
            return file, held
        # Whoever held it has removed it: a lock that nobody else can find is none.
        file.close()


_INSIDE = _Inside()
_said: set[int] = set()
# A child holds nothing here, and must not wait for a thread that it does not have.
os.register_at_fork(after_in_child=_INSIDE.__init__)  # type: ignore[misc]
