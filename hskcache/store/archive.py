"""A zip whose entries are stored, as bytes in memory: the wrapping of a shard."""

import io
import struct
import zipfile
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hskcache.errors import DamageError

Bytes = NDArray[np.uint8]

_LOCAL_HEADER = struct.Struct("<4s22xHH")


def write_archive(entries: Mapping[str, bytes]) -> bytes:
    """Entries as a zip without clock, user or system in it: sorted, stored, dated 1980."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(entries):
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system = 3
            info.external_attr = 0o644 << 16
            archive.writestr(info, entries[name])
    return buffer.getvalue()


def read_archive(data: bytes) -> dict[str, Bytes]:
    """Entries of a zip as views into its bytes, nothing copied.

    The zip's own checksums are left alone: chunks bring a faster one, and documents are compared word for word.

    Raises:
        DamageError: not a zip, or one whose entries are compressed, cut short, named twice, misplaced or shared.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, EOFError, struct.error) as error:
        raise DamageError(f"is not a shard: {error}") from None
    view = np.frombuffer(data, np.uint8)
    entries: dict[str, Bytes] = {}
    for info in infos:
        if info.filename in entries:
            raise DamageError(f"holds the entry {info.filename} twice")
        entries[info.filename] = _entry(view, info)
    if sum(30 + len(info.filename) + info.file_size for info in infos) > len(data):
        # One chunk that stands for thousands would take thousands of times the memory of the file.
        raise DamageError("holds entries that lie upon each other")
    return entries


def _entry(view: Bytes, info: zipfile.ZipInfo) -> Bytes:
    start = info.header_offset + 30
    header = view[info.header_offset : start].tobytes() if info.header_offset >= 0 else b""
    if len(header) < 30 or info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise DamageError(f"holds a damaged or compressed entry {info.filename}")
    magic, name_size, extra_size = _LOCAL_HEADER.unpack(header)
    name = view[start : start + name_size].tobytes()
    entry = view[start + name_size + extra_size :][: info.file_size]
    if magic != b"PK\x03\x04" or name != info.filename.encode() or len(entry) != info.file_size:
        raise DamageError(f"holds a damaged entry {info.filename}")
    return entry
