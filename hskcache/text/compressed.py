"""Data files, as they are or compressed by gzip: ``rows.csv.gz`` is read as ``rows.csv`` is."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from hskcache.errors import DataError

_GZIP = ".gz"


def format_of(path: Path) -> str:
    """Suffix that tells the format of a file, without that of gzip, in small letters: ``.csv``."""
    name = Path(path.stem) if path.suffix.lower() == _GZIP else path
    return name.suffix.lower()


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file for its bytes, decompressed.

    Raises:
        DataError: it is not compressed as its name says, or cut short.
        OSError: it is missing or cannot be read.
    """
    if path.suffix.lower() != _GZIP:
        with path.open("rb") as file:
            yield file
        return
    try:
        with gzip.open(path) as file:
            yield cast("BinaryIO", file)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is no whole file of gzip ({error}); compress or copy it again") from None


def content(path: Path) -> bytes:
    """All bytes of a file, decompressed. Raises as :func:`opened`."""
    with opened(path) as file:
        return file.read()


def most_characters(path: Path) -> int:
    """Characters that the text of a file cannot have more of."""
    size = path.stat().st_size
    if path.suffix.lower() != _GZIP:
        return size
    # Deflate makes of a byte 1,032 at most.
    return size * 1032
