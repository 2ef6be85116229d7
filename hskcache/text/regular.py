"""A file of text that is read more than once: it must be a regular one, and stay the same meanwhile."""

import hashlib
import os
import stat
from pathlib import Path
from typing import BinaryIO

from hskcache.errors import DataError

_GZIP = b"\x1f\x8b"
"""First bytes of what gzip has compressed."""


def check_corpus(path: str | Path) -> None:
    """Raise DataError, before a model is loaded, if a corpus is not there, no regular file, or compressed."""
    with open_regular(path) as file:
        if file.read(len(_GZIP)) == _GZIP:
            raise DataError(f"{path} is compressed by gzip; unpack it first")


def open_regular(path: str | Path) -> BinaryIO:
    """A file of text, open for reading. Raises DataError if it is not there, or no regular file."""
    try:
        # A pipe could not be read twice, and to open one waits for whoever writes to it.
        if stat.S_ISREG(Path(path).stat().st_mode):
            return Path(path).open("rb")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; give the path of a text file") from None
    what = "a folder" if Path(path).is_dir() else "not a regular file"
    raise DataError(f"{path} is {what}; give the path of a text file")


def state_of(file: BinaryIO) -> tuple[int, int]:
    """Size in bytes and time of the last change in ns."""
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def require_same(file: BinaryIO, begun: tuple[int, int]) -> None:
    """Raise DataError if a file is not any more as it was when :func:`state_of` was asked."""
    if state_of(file) != begun:
        raise DataError(f"{file.name} changed while it was read; give the command again")


def sha256_of(file: BinaryIO) -> str:
    """SHA-256 of a file from where it is read, which is its beginning again then."""
    digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    file.seek(0)
    return digest
