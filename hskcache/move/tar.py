"""Tars of plain files, written and read one member after the other.

Nothing of a member depends on a clock or an owner. Headers are read one block at a time and taken for what they say
themselves: ``tarfile`` would hold extended headers of any size in memory.
"""

import tarfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from hskcache.errors import DamageError, MismatchError

BLOCK_BYTES = tarfile.BLOCKSIZE

_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK\3\4": "zip"}
AGAIN = "fetch or pack it again and give the same command, which keeps what is whole"

_PIECE_BYTES = 1 << 20
_MODE = 0o644


class Member(NamedTuple):
    """A file in a tar: its path, and its size."""

    name: str
    num_bytes: int


class TarReader:
    """The members of a tar, one after the other, of which only plain files are known.

    Whatever is cut short, no tar, or not what a caller expects, ends in a DamageError that names the tar.

    Attributes:
        name: what to call the tar in messages.
    """

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream = stream
        self.name = name
        self._next: Member | None = None

    def peek(self, expected: str = "its next file") -> Member | None:
        """The next member, called ``expected`` where its header is not whole; None at the end."""
        if self._next is None:
            self._next = self._header(expected)
        return self._next

    def expect(self, name: str) -> Member:
        """The next member, which must be the one of this name."""
        member = self.peek(name)
        if member is None:
            raise DamageError(f"{self.name} ends before {name}; {AGAIN}")
        if member.name != name:
            raise DamageError(
                f"{self.name} is no tar of hskcache pack, or was altered: it holds {member.name!r:.120} in the place "
                f"of {name}"
            )
        return member

    def whole(self, member: Member, most_bytes: int) -> bytes:
        """Content of the next member."""
        if member.num_bytes > most_bytes:
            raise DamageError(f"{self.name}: {member.name} has {member.num_bytes} bytes, of at most {most_bytes}")
        return b"".join(self.pieces(member))

    def pieces(self, member: Member) -> Iterator[bytes]:
        """Content of the next member, a piece at a time."""
        self._next, left = None, member.num_bytes
        while left:
            piece = self._read(min(left, _PIECE_BYTES), member.name)
            left -= len(piece)
            yield piece
        self._read(-member.num_bytes % BLOCK_BYTES, member.name)

    def end(self) -> None:
        """Raise if anything follows, and take the padding, for which a pipe's writer may be waiting."""
        if (member := self.peek()) is not None:
            raise DamageError(
                f"{self.name} was altered: it holds {member.name!r:.120}, which does not belong to its cache"
            )
        self._stream.read(tarfile.RECORDSIZE)

    def _header(self, expected: str) -> Member | None:
        block = self._stream.read(BLOCK_BYTES)
        if not block or not block.strip(b"\0"):
            return None
        if (packer := next((name for magic, name in _MAGIC.items() if block.startswith(magic)), None)) is not None:
            raise DamageError(
                f"{self.name} is compressed by {packer}, and hskcache pack writes plain tars; take that off first: a "
                "pipe may lead to hskcache unpack - DIR"
            )
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        except (tarfile.HeaderError, ValueError) as error:
            # What was read may be the beginning of a header, or no tar at all.
            raise DamageError(f"{self.name} is cut short or no tar, at {expected}: {error}; {AGAIN}") from None
        if info.type != tarfile.REGTYPE or info.size < 0:
            raise DamageError(
                f"{self.name} is no tar of hskcache pack: {info.name!r:.120} is no plain file but of type "
                f"{info.type.decode('latin-1')!r}"
            )
        return Member(info.name, info.size)

    def _read(self, num_bytes: int, within: str) -> bytes:
        data = self._stream.read(num_bytes)
        if len(data) < num_bytes:
            raise DamageError(f"{self.name} is cut short: it ends within {within}; {AGAIN}")
        return data


def add_member(stream: BinaryIO, name: str, data: bytes) -> int:
    """Write a member.

    Returns:
        The bytes it took, header and padding included.

    Raises:
        MismatchError: the name is too long for a tar.
    """
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), _MODE
    try:
        header = info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict")
    except ValueError as error:
        raise MismatchError(f"{name!r:.120} does not fit into a tar: {error}; rename it") from None
    padding = bytes(-len(data) % BLOCK_BYTES)
    for part in (header, data, padding):
        stream.write(part)
    return len(header) + len(data) + len(padding)


def add_end(stream: BinaryIO, num_bytes: int) -> None:
    """Write the end of a tar whose members took ``num_bytes``: two blocks of zeros, and up to a record of twenty."""
    end = 2 * BLOCK_BYTES
    stream.write(bytes(end + -(num_bytes + end) % tarfile.RECORDSIZE))
