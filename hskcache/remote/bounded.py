"""A folder of fetched files that never holds more than so many bytes, shared by threads, processes and runs.

A file is named by its SHA-256, so that whatever names the same content finds it, and beside it stands what belongs to
it: ``<sha256>.zarr.zip``, a part of it under some longer name, and while somebody fetches it ``<sha256>.lock``. That is
held by who fetches it, ends with the process, and says how many bytes the file will have once there is room for them.
Room is counted and made by one at a time, who holds ``.lock`` of the folder: the files that were used least recently
go, but none that somebody holds. Nothing here knows where files come from, or looks into them.
"""

import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from hskcache.errors import SpecError
from hskcache.locks import LockFile, locked
from hskcache.store.files import make_folder
from hskcache.system import TO_READ, TO_WRITE
from hskcache.units import human_bytes

_SUFFIX = ".zarr.zip"
_LOCK_SUFFIX = ".lock"
_POLL_S = 0.05

Fetch = Callable[[Path], None]
"""Makes a file appear at a path, whole and verified."""


class WantedFile(NamedTuple):
    """A file by what it holds.

    Attributes:
        sha256: its digest.
        num_bytes: its size.
    """

    sha256: str
    num_bytes: int


class _KeptFile(NamedTuple):
    """A file that may go; the least recently used sorts first."""

    used_ns: int
    path: Path
    num_bytes: int

    @property
    def sha256(self) -> str:
        return self.path.name.partition(".")[0]


@dataclass(frozen=True)
class BoundedFolder:
    """Files that were fetched, as many as there is room for.

    Attributes:
        root: the folder; ``shards`` in it holds the files that may go, everything else in ``caches`` stays and counts.
        most_bytes: the bound.
    """

    root: Path
    most_bytes: int

    @property
    def files(self) -> Path:
        """The folder of the files that may go."""
        return self.root / "shards"

    @property
    def kept(self) -> Path:
        """The folder of what stays."""
        return self.root / "caches"

    def make(self) -> None:
        """Make the folders where they are missing."""
        for folder in (self.files, self.kept):
            make_folder(folder)

    def holds(self, sha256: str) -> bool:
        """True if a file is there."""
        try:
            return self._path(sha256).exists()
        except PermissionError:
            # Whoever fetches it is told.
            return False

    def drop(self, sha256: str) -> None:
        """Remove a file that is not what it should be."""
        self._path(sha256).unlink(missing_ok=True)

    @contextmanager
    def holding(self, wanted: WantedFile, fetch: Fetch, soon: Collection[str] = ()) -> Iterator[Path]:
        """A file, fetched if it is not there, that stays until the end of the block.

        Waits for whoever fetches it already, and for room.

        Args:
            wanted: the file.
            fetch: fetches it.
            soon: digests of files that go last.

        Returns:
            A context manager that gives its path.

        Raises:
            SpecError: it is larger than the bound allows.
            CacheError, OSError: as ``fetch`` does.
        """
        path = self._path(wanted.sha256)
        file = _held(path)
        if file is None:
            with locked(self._lock(wanted.sha256), remove=True):
                file = _held(path)
                if file is None:
                    while not self._reserve(wanted, soon, ()):
                        time.sleep(_POLL_S)
                    fetch(path)
                    # Still under the lock: nobody can have removed it.
                    file = _held(path)
        try:
            yield path
        finally:
            if file is not None:
                file.close()

    def prepare(self, wanted: WantedFile, fetch: Fetch, soon: Collection[str]) -> bool:
        """Fetch a file that will be used soon if it is not there, nobody fetches it, and there is room.

        Args:
            wanted: the file.
            fetch: fetches it.
            soon: digests of files that do not go for it.

        Returns:
            False where there is no room; else it is there or on its way.

        Raises:
            CacheError, OSError: as ``fetch`` does.
        """
        if _is_used_now(self._path(wanted.sha256)):
            return True
        with ExitStack() as stack:
            # Whoever counts looks at every lock, and must not be taken for somebody who fetches the file.
            with locked(self.root / _LOCK_SUFFIX):
                held = stack.enter_context(locked(self._lock(wanted.sha256), wait=False, remove=True))
            if not held or _is_used_now(self._path(wanted.sha256)):
                return True
            if not self._reserve(wanted, soon, soon):
                return False
            fetch(self._path(wanted.sha256))
            return True

    def require(self, num_bytes: int, what: str) -> None:
        """Refuse a bound that leaves less room than some files need together.

        Args:
            num_bytes: of the files.
            what: they are, up to the verb.

        Raises:
            SpecError: there can never be so much room.
        """
        need = num_bytes + sum(file.num_bytes for file in _found(self.kept))
        if need > self.most_bytes:
            raise SpecError(
                f"--local-bytes: {what} need {human_bytes(need)} in {self.root}, which may hold "
                f"{human_bytes(self.most_bytes)}; give {-(-need // 1_000_000)}MB or more"
            )

    def _reserve(self, wanted: WantedFile, last: Collection[str], spared: Collection[str]) -> bool:
        """Make room for a file whose lock is held here; False if others must first finish what they fetch.

        Args:
            wanted: the file.
            last: digests of files that go last.
            spared: digests of files that do not go at all.
        """
        lock = self._lock(wanted.sha256)
        with locked(self.root / _LOCK_SUFFIX):
            # What a killed process had reserved for the same file is no longer.
            lock.write_bytes(b"")
            files, fetched = self._count(wanted)
            free = self.most_bytes - sum(fetched.values()) - sum(file.num_bytes for file in _found(self.kept))
            missing = sum(file.num_bytes for file in files) - free
            candidates = [file for file in files if file.sha256 not in spared]
            if missing > sum(file.num_bytes for file in candidates):
                if len(fetched) == 1 and not spared:
                    self.require(wanted.num_bytes, "a shard and what belongs to it")
                return False
            for file in sorted(candidates, key=lambda file: (file.sha256 in last, file)):
                if missing > 0 and _removed(file.path):
                    missing -= file.num_bytes
            if missing > 0:
                return False
            lock.write_bytes(str(wanted.num_bytes).encode())
            return True

    def _count(self, wanted: WantedFile) -> tuple[list[_KeptFile], dict[str, int]]:
        """The files that may go, and by digest the bytes of those that are being fetched, the one wanted among them.

        Locks of dead processes are removed; what they had fetched is a file like others. So is the part from before of
        who still waits for room: if it stayed, several might wait for each other without end.
        """
        fetched = {wanted.sha256: wanted.num_bytes}
        for lock in self.files.glob(f"*{_LOCK_SUFFIX}"):
            if lock.stem in fetched:
                continue
            with locked(lock, wait=False, remove=True) as is_free:
                if not is_free and (num_bytes := _reserved(lock)):
                    fetched[lock.stem] = num_bytes
        found = [file for file in _found(self.files) if file.path.suffix != _LOCK_SUFFIX]
        for file in found:
            if file.sha256 in fetched:
                fetched[file.sha256] = max(fetched[file.sha256], file.num_bytes)
        return [file for file in found if file.sha256 not in fetched], fetched

    def _path(self, sha256: str) -> Path:
        return self.files / f"{sha256}{_SUFFIX}"

    def _lock(self, sha256: str) -> Path:
        return self.files / f"{sha256}{_LOCK_SUFFIX}"


def _held(path: Path) -> LockFile | None:
    """An open file that nobody removes until it is closed, and that counts as used now; None where there is none."""
    try:
        file = LockFile(path, os.open(path, TO_READ))
    except FileNotFoundError:
        return None
    try:
        file.take(shared=True)
        if os.fstat(file.descriptor).st_nlink and _is_used_now(path):
            return file
    except BaseException:
        file.close()
        raise
    file.close()
    return None


def _is_used_now(path: Path) -> bool:
    """True if a file is there; it then counts as used now."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    except OSError:
        # Of somebody else, or of a file system that keeps no such times: it goes sooner than it might.
        return path.exists()
    return True


def _removed(path: Path) -> bool:
    """Remove a file, unless somebody holds it; whether it is gone."""
    try:
        file = LockFile(path, os.open(path, TO_WRITE))
    except FileNotFoundError:
        return True
    try:
        if not file.take(wait=False):
            return False
        path.unlink(missing_ok=True)
    finally:
        file.close()
    return True


def _reserved(lock: Path) -> int:
    """Bytes that whoever holds a lock has reserved; 0 before, and when it has just been let go."""
    try:
        return int(lock.read_bytes() or 0)
    except (FileNotFoundError, ValueError):
        # What a power cut leaves of a file is no number; nobody has room by it.
        return 0


def _found(folder: Path) -> Iterator[_KeptFile]:
    """Every file in a folder and below it; others may remove some meanwhile."""
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            yield _KeptFile(status.st_mtime_ns, path, status.st_size)
