"""A manifest as it is read: JSON, of this format, and consistent.

It must list what it should: every row range of every field once, with arrays of the right shapes.
"""

import json
from collections.abc import Callable
from itertools import pairwise
from typing import NoReturn

from hskcache.counted import counted
from hskcache.errors import DamageError, MismatchError
from hskcache.store.agreement import Agreement, ClassAgreement, FlagsAgreement
from hskcache.store.fields import StoredField, check_record, kind_of
from hskcache.store.files import canonical_json, sha256_hex
from hskcache.store.manifest import Manifest, Request, without_checksum
from hskcache.store.pages import CheckRecord, PageStore, ReadPage
from hskcache.store.record import CONSTANTS, Record
from hskcache.store.tokenizer import MAX_TOKENIZER_FILES, check_tokenizer_name
from hskcache.store.version1 import parse_version1
from hskcache.store.version2 import parse_version2


def parse_manifest(data: bytes, file: str, read: ReadPage | None = None) -> Manifest:
    """Read ``manifest.json`` and see that it is consistent and covers every row of every field.

    Args:
        data: content of the file.
        file: its name, for messages.
        read: reads the pages that it refers to; None where none is needed.

    Raises:
        MismatchError: a format version that this program does not know.
        DamageError: anything else that is not a manifest.
    """
    try:
        document = json.loads(data, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise DamageError(f"{file} is damaged: {error}") from None
    if not isinstance(document, dict) or document.get("format") != "hskcache":
        raise DamageError(f"{file} is damaged: it is not the manifest of a cache")
    version = document.get("format_version")
    if type(version) is not int:
        raise DamageError(f"{file} is damaged: it does not tell the version of its format")
    if version not in VERSIONS:
        raise MismatchError(
            f"{file} is of format version {version}; this hskcache reads {' and '.join(map(str, VERSIONS))}: "
            "upgrade hskcache"
        )
    body, is_intact = without_checksum(data)
    manifest = VERSIONS[version](body, file, read or _unread)
    try:
        check(manifest)
        if manifest.format.keeps_records:
            check_records(manifest)
    except DamageError as error:
        raise DamageError(f"{file} is damaged: {error}") from None
    if not is_intact and not manifest.edits():
        # Digests that no longer fit tell more, where there are any.
        raise DamageError(f"{file} was edited or damaged: its checksum differs")
    return manifest


def _parsed1(body: bytes, file: str, _read: ReadPage) -> Manifest:
    return parse_version1(body, file)


def _parsed2(body: bytes, file: str, read: ReadPage) -> Manifest:
    folder = file.rpartition("/")[0]
    return parse_version2(body, file, PageStore(read, lambda path: f"{folder}/{path}" if folder else path), _checks)


VERSIONS: dict[int, Callable[[bytes, str, ReadPage], Manifest]] = {1: _parsed1, 2: _parsed2}
"""Every version of the format that is read: what makes a manifest of its ``manifest.json``."""


def _unread(path: str, _num_bytes: int) -> bytes:
    raise DamageError(f"is not at hand: {path} stands beside the manifest")


def check(manifest: Manifest) -> None:
    """Raise unless a manifest has records for every row range of every field, and constants where they should be.

    Raises:
        DamageError: it has not.
    """
    request, fields = manifest.request, manifest.fields
    described = manifest.constants.keys() | manifest.added.keys()
    if odd := (fields.keys() ^ manifest.shards.keys()) | (described - fields.keys()):
        raise DamageError(f"field {min(odd)} has no shards or no description")
    if asked := manifest.added.keys() & set(request.fields):
        raise DamageError(f"field {min(asked)} is said to be added, but the request asks for it")
    for name, agreement in manifest.agreement.items():
        _check_agreement(name, agreement, fields.get(name))
    _check_tokenizer(manifest)
    for name, field in fields.items():
        kind_of(field).check_teacher(name, field, manifest.request_for(name).teacher)
        _check_pairs(name, field, manifest.request_for(name))
        if (count := len(manifest.shards[name])) != request.num_shards:
            raise DamageError(
                f"{name} lists {counted(count, 'shard')}, but {counted(request.num_rows, 'row')} make "
                f"{request.num_shards}"
            )
        needed = bool(kind_of(field).constants(field))
        if needed != (name in manifest.constants):
            raise DamageError(f"{name} {'lacks' if needed else 'should not have'} constants")
        if needed:
            _check_place(manifest.constants[name], (name, CONSTANTS), (0, 0))
            check_record(field, manifest.constants[name])


def check_records(manifest: Manifest) -> None:
    """Raise unless every record is of its place and lists the arrays that its shard should have.

    Raises:
        DamageError: one does not.
    """
    for name, field in manifest.fields.items():
        check_at = _checks(manifest.request, name, field)
        for shard, record in enumerate(manifest.shards[name]):
            check_at(shard, record)


def _checks(request: Request, name: str, field: StoredField) -> CheckRecord:
    def check_at(shard: int, record: Record) -> None:
        _check_place(record, (name, shard), request.shards[shard])
        check_record(field, record)
        _check_skipped(record)

    return check_at


def _check_tokenizer(manifest: Manifest) -> None:
    """Raise unless the tokenizer's files are named once, within their folder, and are those of its digest."""
    if manifest.tokenizer is None:
        return
    if len(manifest.tokenizer) > MAX_TOKENIZER_FILES:
        raise DamageError(f"it lists {len(manifest.tokenizer)} tokenizer files, of at most {MAX_TOKENIZER_FILES}")
    names: list[str] = []
    for name in manifest.tokenizer:
        check_tokenizer_name(name, names)
        names.append(name)
    pairs = sorted((name, file.sha256) for name, file in manifest.tokenizer.items())
    if sha256_hex(canonical_json(pairs)) != manifest.request.tokenizer.sha256:
        raise DamageError("it lists other tokenizer files than the rows were tokenized with")


def _check_agreement(name: str, agreement: Agreement, field: StoredField | None) -> None:
    width = len(agreement.label_counts) if isinstance(agreement, ClassAgreement | FlagsAgreement) else 1
    if field is None or kind_of(field).num_answers(field) != width:
        raise DamageError(f"it tells of an agreement of {name} with labels, which is no field of {width} logits a row")


def _check_skipped(record: Record) -> None:
    """Rows are left out once, and of the shard that they are in."""
    rows = [record.start - 1, *(skipped.row for skipped in record.skipped), record.stop]
    if any(low >= high for low, high in pairwise(rows)):
        raise DamageError(f"{record.field} shard {record.shard} leaves out rows that it does not have, or one twice")


def _check_pairs(name: str, field: StoredField, request: Request) -> None:
    """Raise unless students of the depth asked for have the layers that learn."""
    kind = kind_of(field)
    section = kind.kept(request.spec)
    for pair in kind.pairs(request):
        if section is not None and pair.student > section.depth.student_layers:
            raise DamageError(f"{name} is for student layer {pair.student} of {section.depth.student_layers}")


def _check_place(record: Record, place: tuple[str, int], rows: tuple[int, int]) -> None:
    if (record.field, record.shard) != place or (record.start, record.stop) != rows:
        raise DamageError(
            f"in the place of {place[0]} shard {place[1]} with rows {rows[0]} to {rows[1]} stands {record.field} shard "
            f"{record.shard} with rows {record.start} to {record.stop}"
        )


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"it holds {constant}, which is not JSON")
