"""Fields added to a finished cache: begun, written and finished beside what readers use meanwhile.

A field that is being added has ``adding.json`` in its folder, which says what it will be; its shards and records are
written like those of a build. The manifest comes last and is replaced at once, so that at any moment the cache is a
whole one, with the field or without it. Several fields may be added at the same time by different processes, and
several processes may add one together, if what they add is the same.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from hskcache.errors import MismatchError, SpecError
from hskcache.locks import locked
from hskcache.store.agreement import Agreement
from hskcache.store.claims import CLAIMS, Claims, claiming
from hskcache.store.commits import records_of
from hskcache.store.fields import KINDS, Field
from hskcache.store.growth import LOCK, Growth, reading, stands, written
from hskcache.store.ledger import TOKENIZER, Ledger
from hskcache.store.manifest import Added, Manifest
from hskcache.store.publishing import sweep
from hskcache.store.record import CONSTANTS, is_field_name
from hskcache.store.survey import ADDING, SPOOL, Complete
from hskcache.strict import Strict


class FieldDraft(Strict):
    """A field that is being added: what it stores and where it comes from."""

    field: Field
    added: Added


def check_name(manifest: Manifest, name: str) -> None:
    """Raise unless a field may be added under a name.

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


def is_added(ledger: Ledger, name: str, draft: FieldDraft) -> Manifest | None:
    """The manifest of the cache if it holds this field with all its files and nothing is left to do, else None.

    The size of every shard is looked at, not its content; ``hskcache verify`` does that.

    Raises:
        MismatchError: another field stands under the name, or is being added there, or files that belong to none.
        DamageError: the manifest or ``adding.json`` cannot be read, or was edited.
        CacheError: there is no complete cache.
    """
    manifest, folder = ledger.intact(), ledger.root / name
    check_name(manifest, name)
    standing = standing_field(ledger, manifest, name)
    growth = addition_in(ledger.root, name)
    if standing is None:
        ledger.require_current(manifest)
        if stands(folder) and not _is_vacant(folder, growth):
            raise MismatchError(f"{folder} holds what is no field of this cache; delete it or give another --name")
        return None
    _compare(ledger, name, standing, draft)
    if name not in manifest.fields or growth.stands or Complete(ledger.root).has_leftovers([name]):
        return None
    constants = [manifest.constants[name]] if name in manifest.constants else []
    records = chain(constants, manifest.shards[name])
    return manifest if all(ledger.committed(name, record.shard) == record for record in records) else None


def standing_field(ledger: Ledger, manifest: Manifest, name: str) -> FieldDraft | None:
    """The field that stands under a name, finished or not; None where there is none.

    Raises:
        DamageError: it is not finished, and what it was to be cannot be read.
    """
    if name in manifest.added:
        return FieldDraft(field=manifest.fields[name], added=manifest.added[name])
    return addition_in(ledger.root, name).said()


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
    # The lock is held together, so that others can ask whether anybody does; claims, which order the work, cannot be
    # asked so.
    lock = _lock_path(ledger.root, name)
    with claiming(ledger.root / f"{CLAIMS}-{name}") as claims, locked(lock, remove=True, shared=True):
        yield claims


def addition_in(root: Path, name: str) -> Growth[FieldDraft]:
    """The addition of a field of this name to a cache."""
    folder = root / name
    otherwise = f"delete the folder {folder} and add the field again"
    return Growth(folder / ADDING, reading(FieldDraft), otherwise, _lock_path(root, name))


def begin_field(ledger: Ledger, name: str, draft: FieldDraft) -> None:
    """Start to add a field that :func:`is_added` says is not there, or go on with it."""
    addition_in(ledger.root, name).begin(written(draft))


def finish_field(ledger: Ledger, name: str, draft: FieldDraft, agreement: Agreement | None = None) -> Manifest:
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

    def change(manifest: Manifest) -> Manifest:
        constants = ledger.committed(name, CONSTANTS)
        changes = {
            "fields": manifest.fields | {name: draft.field},
            "constants": manifest.constants | ({} if constants is None else {name: constants}),
            "added": manifest.added | {name: draft.added},
            "agreement": manifest.agreement | ({} if agreement is None else {name: agreement}),
        }
        records = {name: records_of(ledger, name, manifest.request)}
        return manifest.with_records(records).model_copy(update=changes)

    grown = ledger.grow(change)
    sweep(ledger.root, grown, [name])
    addition_in(ledger.root, name).end()
    return grown


def _lock_path(root: Path, name: str) -> Path:
    return root / f"{LOCK}-{name}"


def _compare(ledger: Ledger, name: str, standing: FieldDraft, draft: FieldDraft) -> None:
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


def _is_vacant(folder: Path, growth: Growth[FieldDraft]) -> bool:
    """True if a folder holds no more than a kill before or during :func:`begin_field` leaves."""
    return folder.is_dir() and all(growth.is_torn(path) for path in folder.iterdir())
