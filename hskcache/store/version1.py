"""Format version 1: every record in the manifest, every value of it spelled out there and digested one by one."""

from collections.abc import Collection, Iterable
from typing import Literal

from pydantic import Field as Key

from hskcache.store.agreement import Agreement
from hskcache.store.fields import Field
from hskcache.store.files import canonical_json, sha256_hex
from hskcache.store.manifest import Format, Manifest, Part, named_content, with_checksum
from hskcache.store.record import FieldName, Record, Sha256, parse
from hskcache.store.records import ListedRecords, Records
from hskcache.store.request import Added, Request
from hskcache.strict import Strict


class Document(Strict):
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


_SHARED = tuple(name for name in Document.model_fields if name not in {"format", "format_version", "shards"})


class _Version1(Format):
    version = 1

    def spelled(self, manifest: Manifest) -> bytes:
        """Content of ``manifest.json``, its checksum included."""
        shared = {name: getattr(manifest, name) for name in _SHARED}
        document = Document(shards={name: list(records) for name, records in manifest.shards.items()}, **shared)
        return with_checksum(document.model_dump_json(indent=1).encode() + b"\n")

    def identity(self, manifest: Manifest, names: Collection[str]) -> str:
        """SHA-256 over the request, the fields and every shard's record."""
        constants = [record for name, record in manifest.constants.items() if name in names]
        shards = [record for name, records in manifest.shards.items() if name in names for record in records]
        ordered = sorted([*constants, *shards], key=lambda record: (record.field, record.shard))
        records = [record.model_dump(mode="json", exclude_defaults=True) for record in ordered]
        return sha256_hex(canonical_json({**named_content(manifest, names), "records": records}))

    def records(self, records: Iterable[Record]) -> Records:
        """Records of a field, in memory."""
        return ListedRecords(records)


VERSION_1 = _Version1()


def parse_version1(body: bytes, file: str) -> Manifest:
    """Read ``manifest.json`` without its checksum.

    Raises:
        DamageError: it is not what it should be; names ``file``.
    """
    document = parse(Document, body, file)
    shards: dict[str, Records] = {name: ListedRecords(records) for name, records in document.shards.items()}
    return Manifest(format=VERSION_1, shards=shards, **{name: getattr(document, name) for name in _SHARED})
