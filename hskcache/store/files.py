"""Files that are either whole or absent, and the digests that name their content."""

import errno
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hskcache.disk import sync_file, sync_folder
from hskcache.errors import DamageError
from hskcache.system import NO_LINK, TO_READ

TEMPORARY_SUFFIX = ".tmp"

MAX_DOCUMENT_BYTES = 512 << 20
"""Most bytes of a manifest: in version 1 a record takes about 1 kB, so that 100,000 shards of four fields still fit."""

_READ_BYTES = 1 << 20


def write_atomic(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Write a file so that a kill or a power cut leaves the old file or the new one, never a part.

    The folder is made if missing. The temporary file stands beside the target, because a rename is atomic only
    within one file system, and has a random name, because several processes may write the same file.

    Args:
        path: target; replaced if it exists.
        data: its content, or pieces of it in order.

    Raises:
        OSError: the disk is full or the folder cannot be written; no temporary file stays behind.
    """
    make_folder(path.parent)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")
    try:
        with temporary.open("xb") as file:
            file.writelines([data] if isinstance(data, bytes) else data)
            file.flush()
            sync_file(file)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def read_file(path: Path, most_bytes: int) -> bytes:
    """Read a file of a cache, which may be a stranger's: nothing is followed, waited for or held that is not one.

    Args:
        path: the file.
        most_bytes: it may have at most; known before any of it is read.

    Raises:
        DamageError: it is a symbolic link, no regular file, or larger. The message says so without naming the file.
        OSError: it is missing or cannot be read.
    """
    with opened(path) as (descriptor, status):
        if status.st_size > most_bytes:
            raise DamageError(f"has {status.st_size} bytes, of at most {most_bytes}")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(status.st_size)


def read_document(path: Path) -> bytes:
    """One of the cache's JSON files.

    Raises:
        DamageError: it is no regular file, or absurdly large; names it.
        OSError: it is missing or cannot be read.
    """
    try:
        return read_file(path, MAX_DOCUMENT_BYTES)
    except DamageError as error:
        raise DamageError(f"{path} {error}") from None


@contextmanager
def opened(path: Path) -> Iterator[tuple[int, os.stat_result]]:
    """Open a file of a cache to read it.

    Returns:
        Its descriptor and its status.

    Raises:
        DamageError: it is a symbolic link or no regular file. The message says so without naming the file.
        OSError: it is missing or cannot be read.
    """
    try:
        # A pipe, opened so, does not wait for its other end.
        descriptor = os.open(path, TO_READ | NO_LINK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise DamageError("is a symbolic link, and a cache holds files of its own; copy it with cp -rL") from None
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise DamageError("is not a regular file")
        yield descriptor, status
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make a folder and the folders above it, each on the disk before anything is written into it."""
    if path.is_dir():
        return
    if path.parent != path:
        make_folder(path.parent)
    path.mkdir(exist_ok=True)
    sync_folder(path.parent)


def remove_matching(folder: Path, pattern: str) -> None:
    """Remove the files directly in a folder whose names match; another process may be quicker."""
    for path in folder.glob(pattern):
        path.unlink(missing_ok=True)


def sha256_hex(data: bytes) -> str:
    """SHA-256 of bytes as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file as 64 hexadecimal digits, read a piece at a time."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def canonical_json(value: Any) -> bytes:
    """The one spelling of a JSON value that digests are taken of: sorted keys, no spaces, UTF-8.

    Raises:
        ValueError: a NaN or infinity, which JSON cannot hold.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")
