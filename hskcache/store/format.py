"""A version of the format: how a manifest is spelled, and how its content is named."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from hskcache.store.record import Record
from hskcache.store.records import Records

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hskcache.store.manifest import Manifest


class Format(ABC):
    """A version of the format: how a manifest is spelled, and how its content is named.

    Attributes:
        version: its number.
        keeps_records: whether every shard of a complete cache has its commit record beside it.
    """

    version: int
    keeps_records: bool

    @abstractmethod
    def spelled(self, manifest: "Manifest") -> bytes:
        """Content of ``manifest.json``, its checksum included."""

    @abstractmethod
    def identity(self, manifest: "Manifest", names: Collection[str]) -> str:
        """SHA-256 that names the content of some fields, as 64 hexadecimal digits; of all fields it is the cache id."""

    @abstractmethod
    def records(self, field: str, records: Iterable[Record]) -> Records:
        """Records of a field, as this version keeps them."""

    @abstractmethod
    def extended(self, records: Records, more: Iterable[Record]) -> Records:
        """Records of a field, and more after them."""

    @abstractmethod
    def pack(self, arrays: "Mapping[str, NDArray[Any]]", sha256: str | None = None) -> bytes:
        """Arrays as the bytes of a shard, see :func:`~hskcache.store.shard.pack_shard`.

        Args:
            arrays: what to store, by the names of the format.
            sha256: digest that the shard had when it was written; where another form that this version has had gives
                it, that is taken.
        """

    @abstractmethod
    def record(self, data: bytes, facts: Mapping[str, Any]) -> Record:
        """The record of a shard.

        Args:
            data: the shard.
            facts: ``field``, ``shard``, ``start`` and ``stop``, and whatever else does not follow from the bytes.
        """

    @abstractmethod
    def parse_record(self, data: bytes, file: str) -> Record:
        """Read a commit record.

        Raises:
            DamageError: it is none; names ``file``.
        """
