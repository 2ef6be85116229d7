"""Disks: what one has room for, what it says in one line whichever library hears it, and that it keeps a file."""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from hskcache.errors import CacheError
from hskcache.system import TO_READ, can_sync_folders
from hskcache.units import human_bytes

# Of tokenizers, which raises Exception itself, and of torch's archives, which raise RuntimeError.
_DISK = re.compile(r"\(os error [0-9]+\)|inline_container|PytorchStreamWriter")

# A file system that cannot be asked for it (vfat, SMB, FUSE) says so by one of these; a disk that fails says others.
_NO_SYNC = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP})


class _Open(Protocol):
    def fileno(self) -> int: ...


def sync_file(file: _Open) -> None:
    """Bring a file's bytes to the disk, where that can be asked for. Raises OSError if it is full, or fails."""
    _sync(file.fileno())


def sync_folder(path: Path) -> None:
    """Bring a folder's entries to the disk, where its file system can be asked for that.

    A rename is lost in a power cut until this is done. Raises OSError if the folder cannot be opened, or the disk
    fails.
    """
    if not can_sync_folders():
        return
    descriptor = os.open(path, TO_READ)
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def spool_folder(path: Path) -> Path:
    """Folder for temporary files beside what will be written to a path, or the system's where that is read-only."""
    folder = _standing(path)
    return folder if folder.is_dir() and os.access(folder, os.W_OK) else Path(tempfile.gettempdir())


def _standing(path: Path) -> Path:
    folder = path.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder


def require_space(path: Path, need: int, what: str, otherwise: str, place: str = "--out") -> None:
    """Refuse before the work rather than when the disk is full. Raises CacheError if there is less room.

    Args:
        path: that will be written to; it need not exist.
        need: bytes.
        what: what needs them, up to the verb.
        otherwise: what else to do than to free space or to choose another place.
        place: what the user calls that which is written.
    """
    folder = _standing(path)
    free = shutil.disk_usage(folder).free
    if need > free:
        raise CacheError(
            f"{what} {human_bytes(need)} more and {folder} has {human_bytes(free)} free; free space, choose another "
            f"{place}, or {otherwise}"
        )


def require_writable(out: Path) -> None:
    """Raise CacheError for a place of a folder where a file stands, or whose folder takes none."""
    folder = out.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise CacheError(f"cannot write {out}: {folder} is a file; give a new folder, or an empty one, with --out")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CacheError(f"cannot write {out}: no permission to write in {folder}; give another --out")


def require_file_outside(cache: str | Path, out: Path) -> None:
    """Refuse a file within a cache, whose folder holds nothing else (a URL has no folder), or where a folder is.

    Raises CacheError.
    """
    require_outside(cache, out)
    require_file(out)


def require_outside(cache: str | Path, out: Path) -> None:
    """Refuse a place within a cache. Raises CacheError."""
    if Path(cache).resolve() in (out.resolve(), *out.resolve().parents):
        raise CacheError(f"{out} is within the cache {cache}, which holds nothing else; give a place outside of it")


def require_file(out: Path) -> None:
    """Refuse to write a file where a folder is; raises CacheError."""
    if out.is_dir():
        raise CacheError(f"{out} is a folder; give the name of a file")


@contextmanager
def writing_to(path: Path, since: str) -> Iterator[None]:
    """Turn what the disk says into one line. Raises CacheError if a file cannot be written or read.

    ``since``: where the same command goes on from.
    """
    try:
        yield
    except CacheError:
        raise
    except Exception as error:
        # A reader of the progress that went away is not the disk.
        is_pipe = isinstance(error, OSError) and error.errno == errno.EPIPE
        # By name: safetensors is no dependency of those who only read caches.
        is_of_weights = type(error).__name__ == "SafetensorError"
        if is_pipe or not (isinstance(error, OSError) or is_of_weights or _DISK.search(str(error))):
            raise
        raise CacheError(
            f"cannot write {path}: {_reason(error)}; mend that and run the same command again, which goes on from "
            f"{since}"
        ) from error


def _reason(error: Exception) -> str:
    if isinstance(error, shutil.Error) and isinstance(error.args[0], list):
        # An entry for each file of a folder: source, target, and what was said.
        return str(error.args[0][0][-1])
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error) if not isinstance(error, RuntimeError) else f"a checkpoint cannot be written ({error})"
