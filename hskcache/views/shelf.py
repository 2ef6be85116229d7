"""The shelf of a view: reads the shards of a cache and hands out the part of them that the view sees."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from hskcache.store.content import check_content
from hskcache.store.fields import INPUTS, OFFSETS, StoredField, kind_of, row_offsets
from hskcache.store.manifest import Manifest
from hskcache.store.record import CONSTANTS, Record
from hskcache.store.shelf import Shelf
from hskcache.views.abc import Arrays, Narrowed, RowTokens, ShardContext


class ViewedCache(NamedTuple):
    """The cache that a view is of.

    Attributes:
        manifest: what it is.
        shelf: where its shards stand.
    """

    manifest: Manifest
    shelf: Shelf


class ViewShelf:
    """Hands out the shards of a view.

    Args:
        name: of the view, for messages.
        origin: the cache.
        fields: of the view, by name.
        first: number of the cache's shard that is the first of the view.
    """

    def __init__(self, name: str, origin: ViewedCache, fields: Mapping[str, Narrowed], first: int) -> None:
        self.name = f"the view {name} of {origin.shelf.name}"
        self._origin = origin
        self._fields = fields
        self._first = first
        self._shared: dict[str, Arrays] = {}

    @property
    def tokenizer_path(self) -> Path:
        """Folder of the tokenizer's files, which are those of the cache."""
        return self._origin.shelf.tokenizer_path

    def read(self, record: Record, field: StoredField, names: Collection[str] | None) -> dict[str, NDArray[Any]]:
        """Read a shard of the cache and narrow it.

        Raises:
            DamageError: the cache's file is missing or is not what its record says; names it.
            CacheError: it is far away and cannot be fetched.
        """
        narrowed = self._fields[record.field]
        if record.shard == CONSTANTS:
            return _some(narrowed.constants(self._constants(record.field)), names)
        stored = self._record(record)
        wanted = kind_of(field).arrays(field).keys() if names is None else names
        arrays = self._origin.shelf.read(stored, narrowed.source, narrowed.needed(wanted))
        check_content(self._origin.manifest.request, narrowed.source, arrays)
        if record.num_rows < stored.num_rows:
            arrays = _first_rows(narrowed.source, arrays, record.num_rows)
        beside = ShardContext(partial(self._constants, record.field), partial(self._tokens, record))
        return _some(narrowed.shard(arrays, beside), wanted)

    def ahead(self, records: Sequence[Record], names: Mapping[str, Collection[str]] | None = None) -> None:
        """Tell the cache of shards that will be read soon, and of which arrays of them."""
        wanted = {name: kind_of(one.field).arrays(one.field).keys() for name, one in self._fields.items()}
        needed = {name: self._fields[name].needed(some) for name, some in (wanted | dict(names or {})).items()}
        self._origin.shelf.ahead([self._record(record) for record in records], needed)

    def require(self, num_bytes: Callable[[], int], what: str) -> None:
        """Raise unless so many bytes of the cache's shards can stand on this machine at once."""
        self._origin.shelf.require(num_bytes, what)

    def _record(self, record: Record) -> Record:
        """The record of the cache's shard that a shard of the view is of."""
        return self._origin.manifest.shards[record.field][self._first + record.shard]

    def _constants(self, name: str) -> Arrays:
        if name not in self._shared:
            manifest, field = self._origin.manifest, self._fields[name].source
            arrays: Arrays = {}
            # A view may share columns where the cache has all and shares nothing.
            if name in manifest.constants:
                arrays = self._origin.shelf.read(manifest.constants[name], field, None)
                check_content(manifest.request, field, arrays)
            self._shared[name] = arrays
        return self._shared[name]

    def _tokens(self, record: Record) -> RowTokens:
        """Tokens of the rows of a shard of the view."""
        manifest = self._origin.manifest
        field, stored = manifest.fields[INPUTS], manifest.shards[INPUTS][self._first + record.shard]
        names = [name for name in ("row_ids", "input_ids", "row_offsets", "targets") if name in stored.arrays]
        arrays = self._origin.shelf.read(stored, field, names)
        check_content(manifest.request, field, arrays)
        if record.num_rows < stored.num_rows:
            arrays = _first_rows(field, arrays, record.num_rows)
        rows = (arrays["row_ids"], arrays["input_ids"], arrays["row_offsets"])
        return RowTokens(*rows, lambda: self._special_ids, arrays.get("targets"))

    @cached_property
    def _special_ids(self) -> frozenset[int]:
        # Of no use to a view whose positions are ranked as they are.
        from hskcache.views.ranking import special_ids_in

        return special_ids_in(self.tokenizer_path)


def _first_rows(field: StoredField, arrays: Arrays, num_rows: int) -> Arrays:
    """The arrays of the first rows of a shard."""
    found: Arrays = {}
    for name, array in arrays.items():
        offsets = row_offsets(field, name, arrays)
        stop = num_rows + (name in OFFSETS) if offsets is None else int(offsets[num_rows])
        found[name] = array[:stop].copy()
    return found


def _some(arrays: Arrays, names: Collection[str] | None) -> Arrays:
    return arrays if names is None else {name: arrays[name] for name in names}
