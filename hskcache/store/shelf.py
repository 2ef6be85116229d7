"""Shelf that the files of a cache stand on: a directory here, and whatever else can hand out its shards."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hskcache.errors import DamageError
from hskcache.store.fields import Field
from hskcache.store.ledger import TOKENIZER
from hskcache.store.record import Record

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Shelf(Protocol):
    """Hands out the shards of one cache, verified. Never changes, so threads may share it."""

    @property
    def name(self) -> str:
        """The name of the place in errors: a directory, or a URL."""
        ...

    @property
    def tokenizer_path(self) -> Path:
        """Folder of the tokenizer's files on this machine, brought here first if need be.

        Raises:
            DamageError: it is another tokenizer than the rows were made with.
            CacheError: it cannot be fetched.
        """
        ...

    def read(self, record: Record, field: Field, names: Collection[str] | None) -> "dict[str, NDArray[Any]]":
        """Read a shard, or the constants of a field.

        Args:
            record: what the manifest says of it.
            field: that it belongs to.
            names: arrays to decode; None decodes all.

        Returns:
            By name, arrays still encoded, each writable and with memory of its own.

        Raises:
            DamageError: the file is missing or is not what the record says; names it.
            CacheError: it is far away and cannot be fetched.
        """
        ...

    def ahead(self, records: Sequence[Record], names: Mapping[str, Collection[str]] | None = None) -> None:
        """Tell of shards that will be read soon: one that is far away can then be fetched.

        Args:
            records: of the shards, in the order in which they will be read.
            names: by field the arrays that will be read; of a field that is not there, all.
        """
        ...

    def require(self, num_bytes: Callable[[], int], what: str) -> None:
        """Raise unless so many bytes of shards can stand on this machine at once.

        Args:
            num_bytes: gives that of them, where it is asked for.
            what: they are, for the message.

        Raises:
            SpecError: fewer may.
        """
        ...


class Directory:
    """The files of a cache in a directory of this machine.

    Attributes:
        root: the directory.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def name(self) -> str:
        """Its path."""
        return str(self.root)

    @property
    def tokenizer_path(self) -> Path:
        """Folder of the tokenizer's files, as transformers saves and loads them."""
        return self.root / TOKENIZER

    def read(self, record: Record, field: Field, names: Collection[str] | None) -> "dict[str, NDArray[Any]]":
        """Read a shard with one read of its file.

        Raises:
            DamageError: it is missing or altered; names it.
        """
        from hskcache.store.reading import reread_shard

        path = self.root / record.path
        try:
            return reread_shard(path, record, field, names)
        except DamageError as error:
            raise DamageError(f"{path} {error}") from None

    def ahead(self, records: Sequence[Record], names: Mapping[str, Collection[str]] | None = None) -> None:
        """Do nothing: all shards are here."""

    def require(self, num_bytes: Callable[[], int], what: str) -> None:
        """Raise nothing: all shards are here."""
