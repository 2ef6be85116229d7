"""The manifest: what was asked for, what was stored, and the two digests that name them.

The request digest (spec, teacher, tokenizer, rows) decides whether a build continues another. The cache id covers it
and the digest of every shard: the same id means the same bytes. Both are SHA-256 over canonical JSON in which a value
that equals its default is left out, so that a key added to a model later does not change the digests of older caches.
How a manifest is spelled, and how records go into the id, is the affair of a version of the format.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any

from pydantic import ConfigDict
from pydantic import Field as Key

from hskcache.errors import MismatchError
from hskcache.nearest import meant
from hskcache.store.agreement import Agreement
from hskcache.store.evaluation import Evaluation
from hskcache.store.fields import INPUTS, AttentionField, Field, HiddenField, InputsField, LogitsField
from hskcache.store.files import sha256_hex
from hskcache.store.format import Format
from hskcache.store.pages import IndexFile, PagedRecords
from hskcache.store.record import FieldName, Record, Sha256
from hskcache.store.records import Records
from hskcache.store.request import Added, DataInfo, LayerKept, Request, TeacherInfo, TokenizerInfo
from hskcache.store.tokenizer import TokenizerFile
from hskcache.strict import Strict

__all__ = [
    "Added",
    "AttentionField",
    "DataInfo",
    "Field",
    "Format",
    "HiddenField",
    "InputsField",
    "LayerKept",
    "LogitsField",
    "Manifest",
    "Part",
    "Request",
    "TeacherInfo",
    "TokenizerInfo",
]


_CHECKSUM = re.compile(rb',\n "checksum": "([0-9a-f]{64})"\n}\n\Z')


class Part(Strict):
    """Whole of which a cache is a part.

    Attributes:
        cache_id: the whole.
        start, stop: its rows [start, stop) that are there; row 0 here is row ``start`` there.
    """

    cache_id: Sha256
    start: int = Key(ge=0)
    stop: int = Key(ge=0)


class Manifest(Strict):
    """A complete cache, in whichever version of the format its ``manifest.json`` is.

    Attributes:
        format: the version.
        cache_id: SHA-256 over the request and the digests of all shards: equal ids, equal bytes.
        request_digest: SHA-256 over the request, by which a build knows whether it continues another.
        request: what was asked for.
        fields: by name, which is also the folder.
        shards: by field, one record for each row range of the request, in order.
        constants: by field, for those that have any.
        added: by field, where those came from that the request does not ask for.
        tokenizer: its files by path within their folder; None in version 1, which keeps their digest alone.
        part: the cache that this one is a part of, if it is; told to readers, not digested.
        upgraded_from: id of the cache of an older version that this one was made from; told to readers, not digested.
        environment: package versions and device, several where rows were appended with others; told to readers, not
            digested.
        agreement: of the teacher's answers with the labels, by field of logits, where rows have labels; told to
            readers, not digested.
        evaluations: scores of the request's teacher on rows that are not in the cache; told to readers, not digested.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    format: Format
    cache_id: Sha256
    request_digest: Sha256
    request: Request
    fields: dict[FieldName, Field]
    shards: dict[FieldName, Records]
    constants: dict[FieldName, Record]
    tokenizer: dict[str, TokenizerFile] | None = None
    added: dict[FieldName, Added] = Key(default={})
    part: Part | None = None
    upgraded_from: Sha256 | None = None
    environment: dict[str, str]
    agreement: dict[FieldName, Agreement] = Key(default={})
    evaluations: list[Evaluation] = Key(default=[])

    @property
    def format_version(self) -> int:
        """Number of the version of the format."""
        return self.format.version

    @property
    def records(self) -> Iterator[Record]:
        """Every shard's record, constants first."""
        return chain(self.constants.values(), *self.shards.values())

    @property
    def num_records(self) -> int:
        """Number of :attr:`records`."""
        return len(self.constants) + sum(map(len, self.shards.values()))

    @property
    def index(self) -> Iterator[IndexFile]:
        """Files of the cache that hold records; in version 1 there are none."""
        return (file for records in self.shards.values() if isinstance(records, PagedRecords) for file in records.files)

    @property
    def num_bytes(self) -> int:
        """Bytes of all shards on disk, constants included."""
        return sum(map(self.field_bytes, self.fields))

    @property
    def own_fields(self) -> dict[str, Field]:
        """The fields that the request asks for, without those that were added."""
        return {name: field for name, field in self.fields.items() if name not in self.added}

    @property
    def first_row(self) -> int:
        """The row of the whole cache that row 0 here is: later than 0 in a part that begins later."""
        return 0 if self.part is None else self.part.start

    def field_bytes(self, field: str) -> int:
        """Bytes of a field on disk, constants included."""
        return self.shards[field].num_bytes + self.shared_bytes(field)

    def shared_bytes(self, field: str) -> int:
        """Bytes of a field's constants on disk, such as a language model's head, which stand there once."""
        constants = self.constants.get(field)
        return 0 if constants is None else constants.num_bytes

    def request_for(self, field: str) -> Request:
        """The request that a field is the answer to: of an added one, that of its own teacher over the same rows."""
        added = self.added.get(field)
        if added is None:
            return self.request
        own = {"teacher": added.teacher, "spec": added.spec, "layers": added.layers}
        return self.request.model_copy(update=own | {"attention_layers": added.attention_layers})

    def with_records(self, records: Mapping[str, Iterable[Record]]) -> "Manifest":
        """Copy with other shards of some fields, unsigned."""
        others = {name: self.format.records(name, found) for name, found in records.items()}
        return self.model_copy(update={"shards": self.shards | others})

    def extended(self, records: Mapping[str, Iterable[Record]]) -> "Manifest":
        """Copy with more shards of some fields after those that there are, unsigned."""
        return self.with_records(
            {name: self.format.extended(self.shards[name], more) for name, more in records.items()}
        )

    def with_added(self, other: "Manifest") -> "Manifest":
        """Copy with the fields that were added to another, of the same rows, and its teacher's scores."""
        names = other.added
        changes = {
            part: getattr(self, part) | {name: value for name, value in getattr(other, part).items() if name in names}
            for part in ("fields", "shards", "constants", "added", "agreement")
        }
        return self.model_copy(update=changes | {"evaluations": other.evaluations})

    def subset(self, fields: Collection[str], shards: range | None = None) -> "Manifest":
        """The manifest of a cache of some fields and some neighbouring shards, which are numbered from 0 there.

        Args:
            fields: names; the inputs are always among them.
            shards: numbers of the shards, one after the other; None: all.

        Raises:
            MismatchError: there is no such field or shard.
        """
        names = {INPUTS, *fields}
        if unknown := names - self.fields.keys():
            near = meant(min(unknown), self.fields)
            raise MismatchError(f"there is no field {min(unknown)}; there are {', '.join(self.fields)}{near}")
        kept = range(self.request.num_shards) if shards is None else shards
        if not kept or kept.step != 1 or kept.start < 0 or kept.stop > self.request.num_shards:
            raise MismatchError(f"there are no shards {kept.start} to {kept.stop} of {self.request.num_shards}")
        if names == self.fields.keys() and len(kept) == self.request.num_shards:
            return self
        start, stop = self.request.shards[kept.start][0], self.request.shards[kept.stop - 1][1]
        changes: dict[str, Any] = {
            part: {name: value for name, value in getattr(self, part).items() if name in names}
            for part in ("fields", "constants", "added")
        }
        records = {name: self._neighbours(name, kept, start) for name in changes["fields"]}
        whole = Part(
            cache_id=self.part.cache_id if self.part is not None else self.cache_id,
            start=self.first_row + start,
            stop=self.first_row + stop,
        )
        request = self.request.between(start, stop)
        # Without what was added, all rows are the cache as it was built, and no part of one.
        is_built = self.part is None and len(kept) == self.request.num_shards and self.own_fields.keys() <= names
        part = None if is_built else whole
        # What is known of all rows says nothing of some.
        known = self.agreement if len(kept) == self.request.num_shards else {}
        changes["agreement"] = {name: one for name, one in known.items() if name in names}
        changes |= {"shards": records, "part": part, "request": request, "request_digest": request.digest}
        return self.model_copy(update=changes).signed()

    def signed(self) -> "Manifest":
        """Copy with the cache id that belongs to its content."""
        return self.model_copy(update={"cache_id": self.identity(self.fields)})

    def identity(self, names: Collection[str]) -> str:
        """The name of the content of some fields: the cache id as it would be if the cache held no others."""
        return self.format.identity(self, names)

    def edits(self) -> list[str]:
        """Changes made by hand, told by the digests that no longer fit; empty where there are none."""
        edits = []
        if (digest := self.request.digest) != self.request_digest:
            edits.append(f"its request digest is {self.request_digest}, but its request gives {digest}")
        if (digest := self.identity(self.fields)) != self.cache_id:
            edits.append(f"its cache id is {self.cache_id}, but its records give {digest}")
        return edits

    def to_json(self) -> bytes:
        """The file's content, its checksum included."""
        return self.format.spelled(self)

    def _neighbours(self, name: str, shards: range, start: int) -> Records:
        """Records of some neighbouring shards of a field as those of a cache that begins at row ``start`` here."""
        if len(shards) == len(self.shards[name]):
            return self.shards[name]
        return self.format.records(name, _renumbered(islice(self.shards[name].since(shards.start), len(shards)), start))


def named_content(manifest: Manifest, names: Collection[str]) -> dict[str, Any]:
    """Names of the content of some fields in every version: the request, the fields, and the origin of added ones.

    A value that equals its default is left out, so that a key added to a model later does not change older digests.
    """
    content: dict[str, Any] = {
        "request": manifest.request_digest,
        "fields": {
            name: {"kind": field.kind, **field.model_dump(mode="json", exclude_defaults=True)}
            for name, field in manifest.fields.items()
            if name in names
        },
    }
    if added := {name: one.identity for name, one in manifest.added.items() if name in names}:
        content["added"] = added
    return content


def with_checksum(body: bytes) -> bytes:
    """A JSON object, ending in a line of its own, with the SHA-256 of these bytes as its last key."""
    return body.removesuffix(b"\n}\n") + f',\n "checksum": "{sha256_hex(body)}"\n}}\n'.encode()


def without_checksum(data: bytes) -> tuple[bytes, bool]:
    """A manifest as it was before its checksum was added, and whether that fits; manifests of old have none."""
    match = _CHECKSUM.search(data)
    if match is None:
        return data, True
    body = data[: match.start()] + b"\n}\n"
    return body, sha256_hex(body) == match[1].decode()


def _renumbered(records: Iterable[Record], start: int) -> Iterator[Record]:
    """Records of neighbouring shards as those of a cache that begins with them, at row ``start`` here."""
    return (
        record.model_copy(
            update={
                "shard": shard,
                "start": record.start - start,
                "stop": record.stop - start,
                "skipped": [one.model_copy(update={"row": one.row - start}) for one in record.skipped],
            }
        )
        for shard, record in enumerate(records)
    )
