"""Fields added to a finished cache: begun, written and finished beside what readers use meanwhile.

A field that is being added has ``adding.json`` in its folder, which says what it will be; its shards and records are
written like those of a build. The manifest comes last and is replaced at once, so that at any moment the cache is a
whole one, with the field or without it. Several fields may be added at the same time by different processes, and
several processes may add one together, if what they add is the same.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from hskcache.errors import DamageError, MismatchError, SpecError
from hskcache.locks import LockFile, is_locked, locked
from hskcache.store.agreement import Agreement
from hskcache.store.claims import CLAIMS, Claims, claiming
from hskcache.store.fields import KINDS, Field
from hskcache.store.files import TEMPORARY_SUFFIX, remove_matching, write_atomic
from hskcache.store.ledger import LOCK, SPOOL, TOKENIZER, Ledger
from hskcache.store.manifest import Added, Manifest
from hskcache.store.publishing import COPY, MANIFEST, TEMPORARY, publish, sweep
from hskcache.store.reading import read_document
from hskcache.store.record import CONSTANTS, is_field_name, parse
from hskcache.strict import Strict

ADDING = "adding.json"


class Draft(Strict):
    """A field that is being added: what it stores and where it comes from."""

    field: Field
    added: Added


def check_name(manifest: Manifest, name: str) -> None:
    """See that a field may be added under a name.

    Raises:
        SpecError: it is no name for a field, or one that every cache keeps for itself.
        MismatchError: the cache's own request asks for a field of that name.
    """
    if not is_field_name(name):
        raise SpecError(
            f"--name {name!r} is not a name for a field; give lowercase letters, digits, - and _, such as s30"
        )
    if name in {*KINDS, TOKENIZER, SPOOL}:
        raise SpecError(f"--name {name!r} is a name that caches keep for themselves; give another, such as s30")
    if name in manifest.own_fields:
        raise MismatchError(f"the cache was built with a field {name} of its own; give another --name")


def is_added(ledger: Ledger, name: str, draft: Draft) -> Manifest | None:
    """The manifest of the cache if it holds this field with all its files and nothing is left to do, else None.

    The size of every shard is looked at, not its content; ``hskcache verify`` does that.

    Raises:
        MismatchError: another field stands under the name, or is being added there, or files that belong to none.
        DamageError: the manifest or ``adding.json`` cannot be read, or was edited.
        CacheError: there is no complete cache.
    """
    manifest, folder = ledger.intact(), ledger.root / name
    check_name(manifest, name)
    standing = _standing(ledger, manifest, name)
    if standing is None:
        ledger.require_current(manifest)
        if folder.exists() and not _is_leftover(folder):
            raise MismatchError(f"{folder} holds what is no field of this cache; delete it or give another --name")
        return None
    _compare(ledger, name, standing, draft)
    if name not in manifest.fields or (folder / ADDING).exists() or any(folder.glob(TEMPORARY)):
        return None
    constants = [manifest.constants[name]] if name in manifest.constants else []
    records = chain(constants, manifest.shards[name])
    return manifest if all(ledger.committed(name, record.shard) == record for record in records) else None


@contextmanager
def adding(ledger: Ledger, name: str) -> Iterator[Claims]:
    """Take part in adding a field of this name.

    :func:`is_added` must be asked alone, see :meth:`~hskcache.store.claims.Claims.alone`, before it is begun and before
    it is finished: another process may add another field of the name, or have finished this one.

    Returns:
        The claims of this process.

    Raises:
        CacheError: the file system knows no locks, and several processes were started.
        OSError: the cache cannot be written.
    """
    path = _lock_path(ledger, name)
    file = LockFile(path, os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666))
    try:
        # Held together, so that others can ask whether anybody does; that which orders the work cannot be asked so.
        file.take(shared=True)
        with claiming(claims_path(ledger, name)) as claims:
            yield claims
    finally:
        file.close()


def claims_path(ledger: Ledger, name: str) -> Path:
    """The file in which processes that add a field claim its shards; it is there while they do."""
    return ledger.root / f"{CLAIMS}-{name}"


def is_being_added(ledger: Ledger, name: str) -> bool:
    """Whether a process is adding a field of this name now."""
    return is_locked(_lock_path(ledger, name))


def begin_field(ledger: Ledger, name: str, draft: Draft) -> None:
    """Start to add a field that :func:`is_added` says is not there, or go on with it."""
    write_atomic(ledger.root / name / ADDING, draft.model_dump_json(indent=1).encode() + b"\n")


def finish_field(ledger: Ledger, name: str, draft: Draft, agreement: Agreement | None = None) -> Manifest:
    """Write the manifest with the field in it and remove what its build left behind.

    Args:
        ledger: the cache.
        name: of the field.
        draft: the field.
        agreement: of its logits with the labels, where that is known.

    Raises:
        MismatchError: a shard is not committed.
        DamageError: a shard does not hold what the field stores, or the manifest was edited.
    """
    with locked(ledger.root / LOCK):
        manifest = ledger.intact()
        ledger.require_current(manifest)
        constants = ledger.committed(name, CONSTANTS)
        changes = {
            "fields": manifest.fields | {name: draft.field},
            "constants": manifest.constants | ({} if constants is None else {name: constants}),
            "added": manifest.added | {name: draft.added},
            "agreement": manifest.agreement | ({} if agreement is None else {name: agreement}),
        }
        grown = (
            manifest.with_records({name: ledger.records(name, manifest.request)}).model_copy(update=changes).signed()
        )
        publish(ledger.root, grown)
        # While nobody else may write a manifest, one that is half written is what a kill has left.
        for file in (COPY, MANIFEST):
            remove_matching(ledger.root, f"{file}{TEMPORARY}")
    sweep(ledger.root, grown, [name])
    remove_matching(ledger.root / name, ADDING)
    return grown


def _lock_path(ledger: Ledger, name: str) -> Path:
    return ledger.root / f"{LOCK}-{name}"


def _standing(ledger: Ledger, manifest: Manifest, name: str) -> Draft | None:
    """The field that stands under a name, finished or not."""
    if name in manifest.added:
        return Draft(field=manifest.fields[name], added=manifest.added[name])
    path = ledger.root / name / ADDING
    try:
        return parse(Draft, read_document(path), str(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except DamageError as error:
        raise DamageError(f"{error}; delete the folder {path.parent} and add the field again") from None


def _compare(ledger: Ledger, name: str, standing: Draft, draft: Draft) -> None:
    found = standing.added.difference(draft.added)
    if standing.field.kind != draft.field.kind:
        found = "kind", standing.field.kind, draft.field.kind
    elif found is None and standing.field != draft.field:
        found = "field", standing.field, draft.field
    if found is not None:
        path, here, wanted = found
        raise MismatchError(
            f"{ledger.root} has a field {name} with {path} = {here!s:.80} and this one is to have {wanted!s:.80}; give "
            "another --name, or ask for the same"
        )


def _is_leftover(folder: Path) -> bool:
    """Whether a folder is what a kill before or during :func:`begin_field` leaves."""
    return folder.is_dir() and all(path.name.endswith(TEMPORARY_SUFFIX) for path in folder.iterdir())
