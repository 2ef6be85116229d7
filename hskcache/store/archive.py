"""A zip whose entries are stored, as bytes in memory: the wrapping of a shard."""

import io
import struct
import zipfile
from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from hskcache.errors import DamageError

Bytes = NDArray[np.uint8]

_LOCAL_HEADER = struct.Struct("<4s22xHH")
_WHOLE_HEADER = struct.Struct("<4s2xHH8xIIHH")


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


def read_entries(data: bytes) -> dict[str, Bytes]:
    """Neighbouring entries of a zip, cut out of it with their headers, as views into these bytes.

    Raises:
        DamageError: something else than stored entries from end to end, or one that is named twice.
    """
    view, entries, place = np.frombuffer(data, np.uint8), dict[str, Bytes](), 0
    while place < len(data):
        header = data[place : place + 30]
        if len(header) < 30:
            raise DamageError("holds a damaged entry")
        magic, flags, method, packed, size, name_size, extra_size = _WHOLE_HEADER.unpack(header)
        start = place + 30 + name_size + extra_size
        place = start + size
        # Sizes that stand behind the content instead of before it have flag 3, encrypted content flag 0.
        if magic != b"PK\x03\x04" or method or flags & 9 or packed != size or place > len(data):
            raise DamageError("holds a damaged or compressed entry")
        name = data[start - name_size - extra_size : start - extra_size].decode("ascii", "replace")
        if name in entries:
            raise DamageError(f"holds the entry {name} twice")
        entries[name] = view[start:place]
    return entries


def spans(data: bytes, prefixes: Collection[str]) -> dict[str, tuple[int, int]]:
    """Ranges of a zip, by prefix, of the entries whose names begin with it, headers included: [offset, end).

    Raises:
        DamageError: not a zip, or other entries lie between those of a prefix.
    """
    found: dict[str, tuple[int, int]] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos, end = sorted(archive.infolist(), key=lambda info: info.header_offset), archive.start_dir
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, EOFError, struct.error) as error:
        raise DamageError(f"is not a shard: {error}") from None
    for info, stop in zip(infos, [*(info.header_offset for info in infos[1:]), end], strict=True):
        owners = [prefix for prefix in _prefixes(info.filename) if prefix in prefixes]
        for prefix in owners:
            start, last = found.get(prefix, (info.header_offset, info.header_offset))
            if last != info.header_offset:
                raise DamageError(f"holds other entries between those of {prefix}")
            found[prefix] = start, stop
    return found


def _prefixes(name: str) -> list[str]:
    """The folders of an entry, each with its slash."""
    return [name[: place + 1] for place, letter in enumerate(name) if letter == "/"]


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
