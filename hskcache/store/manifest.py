"""The manifest: what was asked for, what was stored, and the two digests that name them.

The request digest (spec, teacher, tokenizer, rows) decides whether a build continues another. The cache id covers it
and the digest of every shard: the same id means the same bytes. Both are SHA-256 over canonical JSON in which a value
that equals its default is left out, so that a key added to a model later does not change the digests of older caches.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NoReturn

from pydantic import Field as Key
from pydantic import JsonValue

from hskcache.errors import DamageError, MismatchError
from hskcache.spec import FORMAT_VERSION, Spec, Strict
from hskcache.store.fields import AttentionField, Field, HiddenField, InputsField, LogitsField, check_record
from hskcache.store.files import canonical_json, sha256_hex
from hskcache.store.record import CONSTANTS, FieldName, Record, Sha256, parse

__all__ = [
    "AttentionField",
    "DataInfo",
    "Field",
    "HiddenField",
    "InputsField",
    "LayerKept",
    "LogitsField",
    "Manifest",
    "Request",
    "TeacherInfo",
    "TokenizerInfo",
    "cache_id",
    "parse_manifest",
]

# Where something came from is told to readers, but the same content under another name is the same cache.
_NAMES: dict[str, Any] = {
    "teacher": {"name": True, "revision": True, "config": {"_name_or_path": True, "transformers_version": True}},
    "data": {"name": True, "split": True, "task": True},
}


class TeacherInfo(Strict):
    """The model whose knowledge is stored; ``config`` is its configuration as JSON."""

    name: str
    revision: str | None = None
    weights_sha256: Sha256
    config: dict[str, JsonValue]
    model_type: str
    num_layers: int = Key(ge=0)
    num_heads: int = Key(ge=0)
    width: int = Key(ge=1)
    vocab_size: int = Key(ge=1)


class TokenizerInfo(Strict):
    """The tokenizer, whose files stand in the cache; ``sha256`` is that of ``files.tokenizer_digest``."""

    sha256: Sha256
    vocab_size: int = Key(ge=1)
    pad_token_id: int = Key(ge=0)
    has_token_types: bool


class DataInfo(Strict):
    """The rows; ``fingerprint`` is a digest of their texts and labels. The problem ``text`` is a corpus: no task."""

    name: str
    split: str | None = None
    fingerprint: str
    num_rows: int = Key(ge=0)
    task: str | None = None
    problem: Literal["classification", "regression", "text"]
    label_names: list[str]


class LayerKept(Strict):
    """A student layer and the teacher layer it learns from."""

    student: int = Key(ge=0)
    teacher: int = Key(ge=0)


class Request(Strict):
    """Everything that decides the content of a cache, resolved before the teacher runs."""

    spec: Spec
    teacher: TeacherInfo
    tokenizer: TokenizerInfo
    data: DataInfo
    shard_rows: int = Key(ge=1)
    layers: list[LayerKept]
    attention_layers: list[LayerKept] = Key(default=[], description="counted from 1")

    @property
    def digest(self) -> str:
        """The request digest; names, paths and revisions do not count."""
        return sha256_hex(canonical_json(self.model_dump(mode="json", exclude=_NAMES, exclude_defaults=True)))

    @property
    def num_shards(self) -> int:
        """Shards of each field."""
        return -(-self.data.num_rows // self.shard_rows)

    @property
    def shards(self) -> list[tuple[int, int]]:
        """Row ranges [start, stop) of the shards."""
        return [self.rows(shard) for shard in range(self.num_shards)]

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields that a build of this request writes."""
        kept = {"logits": self.data.problem != "text", "hidden": self.spec.hidden, "attention": self.spec.attention}
        return ("inputs", *(name for name, value in kept.items() if value))

    def rows(self, shard: int) -> tuple[int, int]:
        """Row range [start, stop) of one shard."""
        return shard * self.shard_rows, min((shard + 1) * self.shard_rows, self.data.num_rows)

    def difference(self, other: "Request") -> tuple[str, Any, Any] | None:
        """Where two requests first differ, names aside: the key's path, the value here, the value there."""
        return _difference("", *(request.model_dump(mode="json", exclude=_NAMES) for request in (self, other)))


class Manifest(Strict):
    """``manifest.json``, written last: it exists only where everything it lists does.

    Attributes:
        fields: by name, which is also the folder.
        shards: by field, one record for each row range of the request, in order.
        constants: by field, for those that have any.
        environment: package versions and device; told to readers, not digested.
    """

    format: Literal["hskcache"] = "hskcache"
    format_version: Literal[1] = 1
    cache_id: Sha256
    request_digest: Sha256
    request: Request
    fields: dict[FieldName, Field]
    shards: dict[FieldName, list[Record]]
    constants: dict[FieldName, Record]
    environment: dict[str, str]

    @property
    def records(self) -> list[Record]:
        """Every shard's record, constants included."""
        return [*self.constants.values(), *(record for records in self.shards.values() for record in records)]

    def edits(self) -> list[str]:
        """What was changed by hand, told by the digests that no longer fit; empty where none was."""
        found = []
        if (digest := self.request.digest) != self.request_digest:
            found.append(f"its request digest is {self.request_digest}, but its request gives {digest}")
        if (digest := cache_id(self.request_digest, self.fields, self.records)) != self.cache_id:
            found.append(f"its cache id is {self.cache_id}, but its records give {digest}")
        return found

    def to_json(self) -> bytes:
        """The file's content."""
        return self.model_dump_json(indent=1).encode() + b"\n"


def cache_id(request_digest: str, fields: Mapping[str, Field], records: Iterable[Record]) -> str:
    """The name of a cache's content: SHA-256 over the request, the fields and every shard's record, in any order."""
    ordered = sorted(records, key=lambda record: (record.field, record.shard))
    content = {
        "request": request_digest,
        "fields": {
            name: {"kind": field.kind, **field.model_dump(mode="json", exclude_defaults=True)}
            for name, field in fields.items()
        },
        "records": [record.model_dump(mode="json", exclude_defaults=True) for record in ordered],
    }
    return sha256_hex(canonical_json(content))


def parse_manifest(data: bytes, file: str) -> Manifest:
    """Read ``manifest.json`` and see that it is consistent and covers every row of every field.

    Args:
        data: content of the file.
        file: its name, for messages.

    Raises:
        MismatchError: a newer format version.
        DamageError: anything else that is not a manifest.
    """
    try:
        document = json.loads(data, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise DamageError(f"{file} is damaged: {error}") from None
    if not isinstance(document, dict) or document.get("format") != "hskcache":
        raise DamageError(f"{file} is damaged: it is not the manifest of a cache")
    version = document.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise MismatchError(
            f"{file} is of format version {version}; this hskcache reads {FORMAT_VERSION}: upgrade hskcache"
        )
    manifest = parse(Manifest, data, file)
    try:
        check(manifest)
    except DamageError as error:
        raise DamageError(f"{file} is damaged: {error}") from None
    return manifest


def check(manifest: Manifest) -> None:
    """See that a manifest lists one record for every row range of every field, each with the arrays it should have.

    Raises:
        DamageError: it does not.
    """
    request, fields = manifest.request, manifest.fields
    if odd := (fields.keys() ^ manifest.shards.keys()) | (manifest.constants.keys() - fields.keys()):
        raise DamageError(f"field {min(odd)} has no shards or no description")
    for name, field in fields.items():
        _check_teacher(name, field, request.teacher)
        records = manifest.shards[name]
        if len(records) != request.num_shards:
            raise DamageError(
                f"{name} lists {len(records)} shards, but {request.data.num_rows} rows make {request.num_shards}"
            )
        needed = isinstance(field, HiddenField) and field.columns in {"shared", "pca"}
        if needed != (name in manifest.constants):
            raise DamageError(f"{name} {'lacks' if needed else 'should not have'} constants")
        for shard, record in enumerate(records):
            _check_place(record, (name, shard), request.rows(shard))
            check_record(field, record)
        if needed:
            _check_place(manifest.constants[name], (name, CONSTANTS), (0, 0))
            check_record(field, manifest.constants[name])


def _check_teacher(name: str, field: Field, teacher: TeacherInfo) -> None:
    if isinstance(field, HiddenField | AttentionField) and field.layers[-1] > teacher.num_layers:
        raise DamageError(f"{name} has layer {field.layers[-1]}, but the teacher has {teacher.num_layers}")
    if isinstance(field, AttentionField) and field.teacher_heads != teacher.num_heads:
        raise DamageError(f"{name} is of {field.teacher_heads} heads, but the teacher has {teacher.num_heads}")


def _check_place(record: Record, place: tuple[str, int], rows: tuple[int, int]) -> None:
    if (record.field, record.shard) != place or (record.start, record.stop) != rows:
        raise DamageError(
            f"in the place of {place[0]} shard {place[1]} with rows {rows[0]} to {rows[1]} stands {record.field} shard "
            f"{record.shard} with rows {record.start} to {record.stop}"
        )


def _difference(path: str, here: Any, there: Any) -> tuple[str, Any, Any] | None:
    if isinstance(here, dict) and isinstance(there, dict):
        for key in {**here, **there}:
            found = _difference(f"{path}.{key}" if path else key, here.get(key), there.get(key))
            if found is not None:
                return found
        return None
    return None if here == there else (path, here, there)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"it holds {constant}, which is not JSON")
