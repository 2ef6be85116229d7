"""Rows appended to a finished cache: begun, written and finished beside what readers use meanwhile.

The new rows are shards with numbers of their own after those that are there. Until the manifest is replaced, at once,
by one that lists them, the cache is the old one; ``appending.json`` tells which rows are on their way, so that the same
command goes on after a kill. Rows are appended by one process at a time.
"""

import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pydantic import Field as Key

from hskcache.errors import CacheError, MismatchError
from hskcache.locks import locked
from hskcache.store.agreement import Agreement, joined
from hskcache.store.growth import LOCK, Growth, reading, stands, written
from hskcache.store.ledger import Ledger
from hskcache.store.manifest import DataInfo, Manifest, Request
from hskcache.store.publishing import sweep
from hskcache.store.record import Record
from hskcache.store.survey import APPENDING
from hskcache.strict import Strict

_LOCK = f"{LOCK}-append"
_SHARD = re.compile(r"([0-9]{6,})(-[0-9a-f]{16}\.zarr\.zip|\.json)(\.[0-9a-f]+\.tmp)?")


class RowsDraft(Strict):
    """Rows that are being appended.

    Attributes:
        data: the rows.
        start: rows of the cache before them.
    """

    data: DataInfo
    start: int = Key(ge=0)


def append_in(root: Path) -> Growth[RowsDraft]:
    """The rows that are being appended to a cache."""
    otherwise = "delete it to have the rows forgotten that were being appended"
    return Growth(root / APPENDING, reading(RowsDraft), otherwise, root / _LOCK)


@contextmanager
def appending(ledger: Ledger) -> Iterator[bool]:
    """Be the one process that appends rows to a cache.

    Returns:
        Whether one that died has left its lock, as :func:`is_left`.

    Raises:
        CacheError: another process is, or the file system knows no locks and several were started.
        OSError: the cache cannot be written.
    """
    left = is_left(ledger)
    with locked(ledger.root / _LOCK, wait=False, remove=True) as held:
        if not held:
            raise _busy(ledger)
        yield left


def require_nobody(ledger: Ledger) -> None:
    """Raise if anybody appends rows now.

    Raises:
        CacheError: a process does.
    """
    if is_being_appended(ledger):
        raise _busy(ledger)


def is_left(ledger: Ledger) -> bool:
    """True if a process that appended rows died before it removed its lock, which is the last that it does."""
    return stands(ledger.root / _LOCK) and not is_being_appended(ledger)


def is_being_appended(ledger: Ledger) -> bool:
    """True if a process is appending rows now."""
    return append_in(ledger.root).is_running


def is_unfinished(ledger: Ledger, manifest: Manifest) -> bool:
    """True if rows are on their way that the manifest does not list yet, written by a process now or cut off.

    Where ``appending.json`` cannot be read nobody can go on with them, so there are none.
    """
    return is_ahead(append_in(ledger.root).readable(), manifest)


def is_spent(ledger: Ledger, manifest: Manifest) -> bool:
    """True if ``appending.json`` has no more use: its rows are in the cache, or lack fields that were added since."""
    growth = append_in(ledger.root)
    draft = growth.readable()
    if draft is None or growth.is_running:
        return False
    return bool(manifest.added) or not is_ahead(draft, manifest)


def forget_append(ledger: Ledger, manifest: Manifest) -> None:
    """Remove ``appending.json``, and the shards of its rows where the manifest does not list them."""
    if is_unfinished(ledger, manifest):
        _remove_beyond(ledger, manifest)
    append_in(ledger.root).end()


def is_appended(ledger: Ledger, manifest: Manifest, data: DataInfo, left: bool) -> bool:
    """True if these rows came last and all that is left to do is to remove what appending them has left.

    That is so after a kill that came between the manifest and the end, and tells it from rows that are wanted twice.

    Args:
        ledger: the cache.
        manifest: of it.
        data: the rows.
        left: whether a process that died has left its lock, even if nothing else.
    """
    draft, last = append_in(ledger.root).readable(), manifest.request.parts[-1]
    if not manifest.request.appended or not _same(last, data):
        return False
    if draft is None:
        return left
    return _same(draft.data, data) and draft.start + last.num_rows == manifest.request.num_rows


def check_may_grow(root: Path, manifest: Manifest) -> None:
    """Raise unless rows may be appended to a cache, whichever they are.

    Raises:
        MismatchError: it is a part of another, or has added fields, which would lack the rows.
    """
    if manifest.part is not None:
        raise MismatchError(f"{root} is a part of another cache; append to that, or pull all of it first")
    if manifest.added:
        names = ", ".join(manifest.added)
        push = ["hskcache", "push", str(root), "--fields", ",".join(manifest.own_fields), "file:///NEW/COPY"]
        raise MismatchError(
            f"{root} has added fields ({names}), which would lack the new rows; append to a copy without them, which "
            f"{shlex.join(push)} makes, and add them again"
        )


def check_may_append(ledger: Ledger, manifest: Manifest, data: DataInfo) -> None:
    """Raise unless these rows may be appended now.

    Raises:
        MismatchError: other rows are on their way, or as :func:`check_may_grow`.
        DamageError: ``appending.json`` cannot be read.
    """
    ledger.require_current(manifest)
    check_may_grow(ledger.root, manifest)
    draft = append_in(ledger.root).said()
    if draft is not None and is_ahead(draft, manifest) and not _same(draft.data, data):
        raise MismatchError(
            f"to {ledger.root} rows of {draft.data.name} were being appended; give that command again, or delete "
            f"{ledger.root / APPENDING} to have them forgotten"
        )


def begin_append(ledger: Ledger, manifest: Manifest, data: DataInfo) -> None:
    """Start to append rows that :func:`check_may_append` allows, or go on with them."""
    growth = append_in(ledger.root)
    draft = growth.said()
    if draft is not None and is_ahead(draft, manifest) and _same(draft.data, data):
        return
    # Shards of other rows, whose draft was deleted, must not be taken for those of these.
    _remove_beyond(ledger, manifest)
    growth.begin(written(RowsDraft(data=data, start=manifest.request.num_rows)))


def finish_append(
    ledger: Ledger, draft: RowsDraft, environment: Mapping[str, str], agreement: Mapping[str, Agreement] | None = None
) -> Manifest:
    """Write the manifest with the rows in it and remove what appending them has left.

    Args:
        ledger: the cache.
        draft: the rows.
        environment: what computed them; where the manifest tells of another, it tells of both.
        agreement: of the new logits with the new labels, by field; one that is not known of all rows is left out.

    Raises:
        MismatchError: a shard is not committed, or the cache has grown otherwise meanwhile.
        DamageError: a shard does not hold what the field stores, or the manifest was edited.
    """

    def change(manifest: Manifest) -> Manifest:
        check_may_append(ledger, manifest, draft.data)
        if manifest.request.num_rows != draft.start:
            raise MismatchError(f"{ledger.root} has other rows than when this began; give the same command again")
        parts = [*manifest.request.appended, draft.data]
        request = manifest.request.model_copy(update={"appended": parts})
        changes = {
            "request": request,
            "request_digest": request.digest,
            "environment": _both(manifest.environment, environment),
            "agreement": {
                name: both
                for name, one in manifest.agreement.items()
                if (both := joined(one, (agreement or {}).get(name))) is not None
            },
        }
        more = {name: _new(ledger, name, request, manifest) for name in manifest.shards}
        return manifest.extended(more).model_copy(update=changes)

    grown = ledger.grow(change)
    tidy_append(ledger, grown)
    return grown


def tidy_append(ledger: Ledger, manifest: Manifest) -> None:
    """Remove what appending rows has left that the manifest lists."""
    sweep(ledger.root, manifest, manifest.own_fields)
    append_in(ledger.root).end()


def _remove_beyond(ledger: Ledger, manifest: Manifest) -> None:
    """Remove shards after those that the manifest lists, their records first."""
    for name in manifest.own_fields:
        stale = [path for path in (ledger.root / name).glob("*") if is_beyond(path.name, manifest.request)]
        for path in sorted(stale, key=lambda path: not path.name.endswith(".json")):
            path.unlink(missing_ok=True)


def _both(then: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """Environment of some rows and then others: values that differ stand one after the other."""
    found = dict(then)
    for name, value in now.items():
        known = found.setdefault(name, value)
        if value not in known.split("; "):
            found[name] = f"{known}; {value}"
    return found


def _new(ledger: Ledger, name: str, request: Request, manifest: Manifest) -> list[Record]:
    numbers = range(manifest.request.num_shards, request.num_shards)
    found = [ledger.committed(name, shard) for shard in numbers]
    if None in found:
        raise MismatchError(
            f"{ledger.root} lacks shard {numbers[found.index(None)]} of {name}; give the same command again to finish"
        )
    return [record for record in found if record is not None]


def _busy(ledger: Ledger) -> CacheError:
    return CacheError(f"another process is appending rows to {ledger.root}; wait until it is done")


def is_ahead(draft: RowsDraft | None, manifest: Manifest) -> bool:
    """True if rows come after those that the manifest lists."""
    return draft is not None and draft.start == manifest.request.num_rows


def _same(one: DataInfo, other: DataInfo) -> bool:
    return (one.fingerprint, one.num_rows) == (other.fingerprint, other.num_rows)


def is_beyond(name: str, request: Request) -> bool:
    """True if a file is of a shard after those that there are."""
    found = _SHARD.fullmatch(name)
    return found is not None and int(found[1]) >= request.num_shards
