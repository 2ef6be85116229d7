"""A manifest as it is read: JSON, of this format, and consistent.

It must list what it should: every row range of every field once, with arrays of the right shapes.
"""

import json
from itertools import pairwise
from typing import NoReturn

from hskcache.errors import DamageError, MismatchError
from hskcache.spec import FORMAT_VERSION
from hskcache.store.agreement import Agreement, ClassAgreement
from hskcache.store.fields import StoredField, check_record, kind_of
from hskcache.store.manifest import Manifest, Request, without_checksum
from hskcache.store.record import CONSTANTS, Record
from hskcache.store.version1 import parse_version1


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
    body, is_intact = without_checksum(data)
    manifest = parse_version1(body, file)
    try:
        check(manifest)
    except DamageError as error:
        raise DamageError(f"{file} is damaged: {error}") from None
    if not is_intact and not manifest.edits():
        # Digests that no longer fit tell more, where there are any.
        raise DamageError(f"{file} was edited or damaged: its checksum differs")
    return manifest


def check(manifest: Manifest) -> None:
    """See that a manifest lists one record for every row range of every field, each with the arrays it should have.

    Raises:
        DamageError: it does not.
    """
    request, fields = manifest.request, manifest.fields
    described = manifest.constants.keys() | manifest.added.keys()
    if odd := (fields.keys() ^ manifest.shards.keys()) | (described - fields.keys()):
        raise DamageError(f"field {min(odd)} has no shards or no description")
    if asked := manifest.added.keys() & set(request.fields):
        raise DamageError(f"field {min(asked)} is said to be added, but the request asks for it")
    for name, agreement in manifest.agreement.items():
        _check_agreement(name, agreement, fields.get(name))
    for name, field in fields.items():
        kind_of(field).check_teacher(name, field, manifest.request_for(name).teacher)
        _check_pairs(name, field, manifest.request_for(name))
        records = manifest.shards[name]
        if len(records) != request.num_shards:
            raise DamageError(
                f"{name} lists {len(records)} shards, but {request.num_rows} rows make {request.num_shards}"
            )
        needed = bool(kind_of(field).constants(field))
        if needed != (name in manifest.constants):
            raise DamageError(f"{name} {'lacks' if needed else 'should not have'} constants")
        for shard, (record, rows) in enumerate(zip(records, request.shards, strict=True)):
            _check_place(record, (name, shard), rows)
            check_record(field, record)
            _check_skipped(record)
        if needed:
            _check_place(manifest.constants[name], (name, CONSTANTS), (0, 0))
            check_record(field, manifest.constants[name])


def _check_agreement(name: str, agreement: Agreement, field: StoredField | None) -> None:
    width = len(agreement.label_counts) if isinstance(agreement, ClassAgreement) else 1
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
    kept = kind.kept(request.spec)
    for pair in kind.pairs(request):
        if kept is not None and pair.student > kept.depth.student_layers:
            raise DamageError(f"{name} is for student layer {pair.student} of {kept.depth.student_layers}")


def _check_place(record: Record, place: tuple[str, int], rows: tuple[int, int]) -> None:
    if (record.field, record.shard) != place or (record.start, record.stop) != rows:
        raise DamageError(
            f"in the place of {place[0]} shard {place[1]} with rows {rows[0]} to {rows[1]} stands {record.field} shard "
            f"{record.shard} with rows {record.start} to {record.stop}"
        )


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"it holds {constant}, which is not JSON")
