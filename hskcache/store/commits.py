"""Shards of a cache that is being built or grows: files under their names, each with a commit record beside it.

A shard is written first, then its record; a shard without a record that fits it does not count.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from hskcache.counted import counted
from hskcache.disk import sync_folder
from hskcache.errors import DamageError, MismatchError
from hskcache.store.fields import Field
from hskcache.store.files import read_document, write_atomic
from hskcache.store.manifest import Format, Manifest, Request
from hskcache.store.record import CONSTANTS, Record, Skipped, stem_of
from hskcache.store.tokenizer import TokenizerFile
from hskcache.store.version2 import VERSION_2
from hskcache.timeline import span

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hskcache.store.fields import StoredField


class Committing(Protocol):
    """Shards of a cache as whoever writes them sees them, wherever they stand.

    Attributes:
        first_counts: whether of several commits of one shard the first counts, whose content may be another's.
    """

    first_counts: ClassVar[bool]

    @property
    def name(self) -> str:
        """The place in messages: a folder, or a URL."""
        ...

    def committed(self, field: str, shard: int) -> Record | None:
        """The record of a shard, or of the constants, that is whole; else None."""
        ...

    def commit(
        self,
        field: str,
        shard: int,
        rows: tuple[int, int],
        arrays: "Mapping[str, NDArray[Any]]",
        nonfinite: Mapping[int, int] | None = None,
    ) -> Record:
        """Write a shard and then its record, see :meth:`Commits.commit`; gives the record that stands then."""
        ...

    def commit_constants(self, field: str, arrays: "Mapping[str, NDArray[Any]]") -> Record:
        """Write what all rows of a field share; gives the record that stands then."""
        ...

    def read(
        self, record: Record, field: "StoredField", names: Collection[str] | None = None
    ) -> "dict[str, NDArray[Any]]":
        """Read a shard, or the constants, that is committed; ``names``: arrays to decode, None for all.

        Raises:
            DamageError: it is not what the record says; names the file.
        """
        ...


def facts_of(
    field: str, shard: int, rows: tuple[int, int], nonfinite: Mapping[int, int] | None = None
) -> dict[str, Any]:
    """Facts of the record of a shard, see :attr:`~hskcache.store.record.Record.facts`, from those of a commit."""
    return {
        "field": field,
        "shard": shard,
        "start": rows[0],
        "stop": rows[1],
        "num_nonfinite": sum((nonfinite or {}).values()),
        "skipped": [Skipped(row=row, reason="nonfinite") for row in sorted(nonfinite or {})],
    }


def records_of(ledger: Committing, field: str, request: Request) -> list[Record]:
    """The records of every shard of a field, in order.

    Raises:
        MismatchError: a shard is not whole.
    """
    found = [ledger.committed(field, shard) for shard in range(request.num_shards)]
    if missing := [shard for shard, record in enumerate(found) if record is None]:
        raise MismatchError(
            f"{ledger.name} lacks {len(missing):,} of the {counted(len(found), 'shard')} of {field}, the first being "
            f"shard {missing[0]}; run the same build command again, or that of its part, to finish"
        )
    return [record for record in found if record is not None]


def manifest_of(
    ledger: Committing,
    request: Request,
    fields: Mapping[str, Field],
    environment: Mapping[str, str],
    tokenizer: Mapping[str, TokenizerFile],
) -> Manifest:
    """The manifest of a cache all of whose shards are committed, unsigned and without agreement.

    Args:
        ledger: the shards.
        request: of the cache.
        fields: that it asks for.
        environment: what computed them.
        tokenizer: its files.

    Raises:
        MismatchError: a shard is not committed.
    """
    return Manifest(
        format=VERSION_2,
        cache_id="0" * 64,
        request_digest=request.digest,
        request=request,
        fields=dict(fields),
        shards={field: VERSION_2.records(field, records_of(ledger, field, request)) for field in fields},
        constants={field: record for field in fields if (record := ledger.committed(field, CONSTANTS)) is not None},
        tokenizer=dict(tokenizer),
        environment=dict(environment),
    )


class Commits:
    """The shards in a folder that are whole.

    Attributes:
        root: the cache's directory.
        format: version of the format in which shards are committed.
    """

    format: Format = VERSION_2
    first_counts: ClassVar[bool] = False

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def name(self) -> str:
        """The folder in messages."""
        return str(self.root)

    def read(
        self, record: Record, field: "StoredField", names: Collection[str] | None = None
    ) -> "dict[str, NDArray[Any]]":
        """Read a shard, or the constants, that is committed, as :meth:`Committing.read`."""
        from hskcache.store.reading import read_shard

        path = self.shard_path(record)
        try:
            return read_shard(path, record, field, names)
        except DamageError as error:
            raise DamageError(f"{path} {error}") from None

    def shard_path(self, record: Record) -> Path:
        """File of a shard, or of the constants."""
        return self.root / record.path

    def record_path(self, field: str, shard: int) -> Path:
        """File of a shard's commit record."""
        return self.root / field / f"{stem_of(shard)}.json"

    def is_committed(self, field: str, shard: int) -> bool:
        """True if a shard is whole: its record can be read and the file has the size that it tells."""
        return self.committed(field, shard) is not None

    def num_committed(self, request: Request) -> int:
        """Row ranges of a request that are whole in all of its fields."""
        written = {
            int(path.stem) for path in (self.root / request.fields[0]).glob("[0-9]*.json") if path.stem.isdecimal()
        }
        return sum(all(self.is_committed(field, shard) for field in request.fields) for shard in written)

    def commit(
        self,
        field: str,
        shard: int,
        rows: tuple[int, int],
        arrays: "Mapping[str, NDArray[Any]]",
        nonfinite: Mapping[int, int] | None = None,
    ) -> Record:
        """Write a shard and then its record.

        Args:
            field: name of the field.
            shard: number of the shard.
            rows: its row range [start, stop).
            arrays: what to store, by the names of the format.
            nonfinite: rows of the cache that are left out, with how many of their values were NaN or infinite; the
                arrays hold zeros in their place.
        """
        with span("compress"):
            data = self.format.pack(arrays, self._sha256(field, shard))
        return self.commit_packed(data, facts_of(field, shard, rows, nonfinite))

    def commit_packed(self, data: bytes, facts: Mapping[str, Any]) -> Record:
        """Write a shard that is packed already, and then its record.

        Args:
            data: the shard.
            facts: of its record, as :attr:`~hskcache.store.record.Record.facts`.
        """
        with span("hash"):
            record = self.format.record(data, facts)
        path = self.record_path(record.field, record.shard)
        if path.exists():
            # The old record must not vouch for the new shard if the build is killed between the two.
            path.unlink()
            sync_folder(path.parent)
        with span("write and sync"):
            write_atomic(self.shard_path(record), data)
            write_atomic(path, record.model_dump_json().encode() + b"\n")
        return record

    def commit_constants(self, field: str, arrays: "Mapping[str, NDArray[Any]]") -> Record:
        """Write what all rows of a field share."""
        return self.commit(field, CONSTANTS, (0, 0), arrays)

    def record(self, field: str, shard: int) -> Record:
        """A shard's commit record.

        Raises:
            DamageError: it is of another shard or cannot be parsed.
            OSError: it is missing or cannot be read.
        """
        path = self.record_path(field, shard)
        record = self.format.parse_record(read_document(path), str(path))
        if (record.field, record.shard) != (field, shard):
            raise DamageError(f"{path} is the record of {record.field} shard {record.shard}; build again")
        return record

    def committed(self, field: str, shard: int) -> Record | None:
        """The record of a shard that is whole, from beside it or, where it is removed, from the manifest; else None."""
        try:
            record: Record | None = self.record(field, shard)
        except (OSError, DamageError):
            record = self._listed(field, shard)
        try:
            whole = record is not None and self.shard_path(record).stat().st_size == record.num_bytes
        except OSError:
            return None
        return record if whole else None

    def _sha256(self, field: str, shard: int) -> str | None:
        """Digest that a shard had when it was written before; None where that is not known."""
        return None

    def _listed(self, field: str, shard: int) -> Record | None:
        """The record of a shard whose own is removed; None where there is no list of them."""
        return None
