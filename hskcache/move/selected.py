"""Fields and rows of a cache that go to a place that may have some of it: chosen, rounded to shards, and grown."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

from hskcache.counted import counted
from hskcache.errors import MismatchError
from hskcache.nearest import meant
from hskcache.store.fields import INPUTS
from hskcache.store.manifest import Manifest
from hskcache.store.record import Record


@dataclass(frozen=True)
class Subset:
    """Fields and rows that are asked for.

    Attributes:
        fields: names; None: all. The inputs are always among them.
        rows: range [start, stop) of the source; None: all. A stop beyond the last row means the last.
    """

    fields: tuple[str, ...] | None = None
    rows: tuple[int, int] | None = None


@dataclass(frozen=True)
class Selected:
    """Content that a place is to have in the end.

    Attributes:
        manifest: of the cache there.
        source: manifest of the cache that it comes from.
        first: shard of the source that is the first there.
    """

    manifest: Manifest
    source: Manifest
    first: int

    @property
    def records(self) -> Iterator[tuple[Record, Record]]:
        """Every shard, constants included: its record at the source and at the place, where the number differs.

        A page of them is in memory at a time.
        """
        for name, record in self.manifest.constants.items():
            yield self.source.constants[name], record
        for name, records in self.manifest.shards.items():
            yield from zip(self.source.shards[name].since(self.first), records, strict=False)

    @property
    def start(self) -> int:
        """First row of the source that is there; row 0 of the place."""
        return self.source.request.shards[self.first][0]

    @property
    def stop(self) -> int:
        """One past the last row of the source that is there."""
        return self.start + self.manifest.request.num_rows


@dataclass(frozen=True)
class NamedManifest:
    """A cache and what to call it."""

    name: str
    manifest: Manifest


def select(source: NamedManifest, standing: NamedManifest | None, subset: Subset) -> Selected:
    """Content for a place: what is asked for, rounded outward to whole shards, and what it has already.

    Args:
        source: where the cache comes from.
        standing: what the place has, complete or begun; None: nothing.
        subset: what is asked for.

    Raises:
        MismatchError: the source has no such field or rows, or the place holds something that is no part of it, or
            whose rows begin elsewhere.
    """
    manifest = source.manifest
    fields = {INPUTS, *(manifest.fields if subset.fields is None else subset.fields)}
    if unknown := fields - manifest.fields.keys():
        known, near = ", ".join(manifest.fields), meant(min(unknown), manifest.fields)
        raise MismatchError(f"{source.name} has no field {min(unknown)}; it has {known}{near}")
    shards = _shards(source, subset.rows)
    if standing is not None:
        begin = _begin(source, standing)
        if begin != shards.start:
            at, wanted = (manifest.request.shards[shard][0] for shard in (begin, shards.start))
            raise MismatchError(
                f"{standing.name} holds rows from {at} of {source.name} and rows from {wanted} are asked for; a cache "
                "grows at its end alone: ask for rows from there, or choose another place"
            )
        fields |= standing.manifest.fields.keys()
        shards = range(begin, max(shards.stop, begin + standing.manifest.request.num_shards))
    chosen = manifest.subset(fields, shards)
    return Selected(chosen, manifest, shards.start)


def _shards(source: NamedManifest, rows: tuple[int, int] | None) -> range:
    """The shards that hold some rows."""
    ranges, num_rows = source.manifest.request.shards, source.manifest.request.num_rows
    if rows is None:
        return range(len(ranges))
    start, stop = rows[0], min(rows[1], num_rows)
    if not 0 <= start < stop:
        raise MismatchError(f"{source.name} has no rows {rows[0]} to {rows[1]}; it has {num_rows}, counted from 0")
    return range(ranges.shard_of(start), ranges.shard_of(stop - 1) + 1)


def _begin(source: NamedManifest, standing: NamedManifest) -> int:
    """The shard of the source that shard 0 of what stands at the place is.

    Raises:
        MismatchError: it is none, or a later one differs.
    """
    whole, held = source.manifest, standing.manifest
    num_shards = held.request.num_shards
    row = (held.part.start if held.part is not None else 0) - (whole.part.start if whole.part is not None else 0)
    begin = whole.request.shards.shard_of(row) if 0 <= row < whole.request.num_rows else -1
    if begin < 0 or whole.request.shards[begin][0] != row:
        _refuse(source, standing, f"its rows are counted from row {row} of it")
    if lacking := held.fields.keys() - whole.fields.keys():
        _refuse(source, standing, f"{source.name} has no field {min(lacking)}, which {standing.name} has")
    if begin + num_shards > whole.request.num_shards:
        _refuse(source, standing, f"it has {counted(held.request.num_rows, 'row')}, more than there are")
    for name, records in held.shards.items():
        for ours, theirs in zip(whole.shards[name].since(begin), records, strict=False):
            if ours.sha256 != theirs.sha256 or whole.fields[name] != held.fields[name]:
                _refuse(source, standing, f"its {name} differs at rows {ours.start} to {ours.stop}")
        if [one.sha256 for one in _constants(whole, name)] != [one.sha256 for one in _constants(held, name)]:
            _refuse(source, standing, f"the constants of its {name} differ")
    return begin


def _constants(manifest: Manifest, name: str) -> list[Record]:
    return [manifest.constants[name]] if name in manifest.constants else []


def _refuse(source: NamedManifest, standing: NamedManifest, why: str) -> NoReturn:
    raise MismatchError(
        f"{standing.name} holds another cache ({standing.manifest.cache_id[:12]}) that is no part of {source.name} "
        f"({source.manifest.cache_id[:12]}): {why}; choose another place"
    )
