"""Format version 1: every record in the manifest and again beside its shard, whose file is named by its number.

It is read for ever. Of it is written what carries or mends a cache that there is, and no cache is begun in it.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field as Key

from hskcache.store.agreement import Agreement
from hskcache.store.fields import Field
from hskcache.store.files import canonical_json, sha256_hex
from hskcache.store.manifest import Format, Manifest, Part, named_content, with_checksum
from hskcache.store.record import ArrayInfo, FieldName, Record, Sha256, parse
from hskcache.store.records import ListedRecords, Records
from hskcache.store.request import Added, Request
from hskcache.strict import Strict

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Version1Document(Strict):
    """``manifest.json``; the keys are those of :class:`~hskcache.store.manifest.Manifest`."""

    format: Literal["hskcache"] = "hskcache"
    format_version: Literal[1] = 1
    cache_id: Sha256
    request_digest: Sha256
    request: Request
    fields: dict[FieldName, Field]
    shards: dict[FieldName, list[Record]]
    constants: dict[FieldName, Record]
    added: dict[FieldName, Added] = Key(default={})
    part: Part | None = None
    environment: dict[str, str]
    agreement: dict[FieldName, Agreement] = Key(default={})


_SHARED = tuple(name for name in Version1Document.model_fields if name not in {"format", "format_version", "shards"})


class _Version1(Format):
    version = 1
    keeps_records = True

    def spelled(self, manifest: Manifest) -> bytes:
        """Content of ``manifest.json``, its checksum included."""
        shared = {name: getattr(manifest, name) for name in _SHARED}
        document = Version1Document(shards={name: list(records) for name, records in manifest.shards.items()}, **shared)
        return with_checksum(document.model_dump_json(indent=1).encode() + b"\n")

    def identity(self, manifest: Manifest, names: Collection[str]) -> str:
        """SHA-256 over the request, the fields and every shard's record."""
        constants = [record for name, record in manifest.constants.items() if name in names]
        shards = [record for name, records in manifest.shards.items() if name in names for record in records]
        ordered = sorted([*constants, *shards], key=lambda record: (record.field, record.shard))
        records = [record.model_dump(mode="json", exclude_defaults=True) for record in ordered]
        return sha256_hex(canonical_json({**named_content(manifest, names), "records": records}))

    def records(self, field: str, records: Iterable[Record]) -> Records:
        """Records of a field, in memory."""
        return ListedRecords(records)

    def extended(self, records: Records, more: Iterable[Record]) -> Records:
        """Records of a field, and more after them."""
        return ListedRecords([*records, *more])

    def pack(self, arrays: "Mapping[str, NDArray[Any]]", sha256: str | None = None) -> bytes:
        """Arrays as the bytes of a shard, whose axes have no names."""
        from hskcache.store.shard import pack_shard

        return pack_shard(arrays)

    def record(self, data: bytes, facts: Mapping[str, Any]) -> Record:
        """The record of a shard."""
        from hskcache.store.shard import stored_arrays

        arrays = {name: ArrayInfo(shape=info.shape, dtype=info.dtype) for name, info in stored_arrays(data).items()}
        return Record(num_bytes=len(data), sha256=sha256_hex(data), arrays=arrays, **facts)

    def parse_record(self, data: bytes, file: str) -> Record:
        """Read a commit record."""
        return parse(Record, data, file)


VERSION_1 = _Version1()


def parse_version1(body: bytes, file: str) -> Manifest:
    """Read ``manifest.json`` without its checksum.

    Raises:
        DamageError: it is not what it should be; names ``file``.
    """
    document = parse(Version1Document, body, file)
    shards: dict[str, Records] = {name: ListedRecords(records) for name, records in document.shards.items()}
    # All of it is validated; to do so again would take as long.
    shared = {name: getattr(document, name) for name in _SHARED}
    return Manifest.model_construct(format=VERSION_1, shards=shards, **shared)
