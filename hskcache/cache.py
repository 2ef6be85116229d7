"""The reader's face of a cache: open it, read verified shards of it."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hskcache.counted import counted
from hskcache.errors import DamageError, MismatchError
from hskcache.nearest import meant
from hskcache.store.content import check_content
from hskcache.store.fields import (
    INPUTS,
    OFFSETS,
    AttentionField,
    Field,
    HiddenField,
    InputsField,
    LogitsField,
    check_positions,
    kind_of,
    row_offsets,
)
from hskcache.store.ledger import Ledger
from hskcache.store.manifest import Manifest, Request
from hskcache.store.record import Record
from hskcache.store.records import Records
from hskcache.store.shelf import Directory, Shelf
from hskcache.values import DecodedRows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "AttentionField",
    "Cache",
    "Field",
    "HiddenField",
    "InputsField",
    "LogitsField",
    "Manifest",
    "Request",
    "check_positions",
    "open_cache",
    "row_offsets",
]


def open_cache(path: str | Path) -> "Cache":
    """Open a complete cache.

    Raises CacheError if there is no cache; MismatchError if its build is not finished, or its format is newer than this
    program; DamageError if its manifest is damaged or was edited.
    """
    root = Path(path)
    manifest = Ledger(root).intact()
    if not isinstance(manifest.fields.get(INPUTS), InputsField):
        raise DamageError(f"{root} holds no rows: it has no field inputs of that kind; fetch it or build it again")
    return Cache(manifest, Directory(root))


class Cache(DecodedRows):
    """A complete cache: a manifest, and a shelf of the shards that it lists.

    Holds no open file and never changes, so threads may share it. A sequence of rows, decoded: ``cache[3]`` is one by
    column, ``cache[10:20]`` has an array a column, ``len(cache)`` is the number of rows, and iterating reads every
    shard once; :attr:`columns` tells what there is of a row.

    Attributes:
        manifest: what it is, a :class:`Manifest` that is known to be intact.
        shelf: where its files are read.
        id: the cache id; caches of the same id hold the same bytes.
        shards: row range [start, stop) of each shard, the same for every field.
    """

    def __init__(self, manifest: Manifest, shelf: Shelf) -> None:
        self.manifest = manifest
        self.shelf = shelf
        self.id = manifest.cache_id
        self.shards = manifest.request.shards

    def __repr__(self) -> str:
        fields = ", ".join(self.fields)
        return f"<Cache {self.id[:12]} of {counted(self.num_rows, 'row')} in {self.name}: {fields}>"

    @property
    def name(self) -> str:
        """Name of the cache in errors: its directory, or the URL that it is read from."""
        return self.shelf.name

    @property
    def root(self) -> Path:
        """Its directory on this machine. Raises MismatchError if it has none, so nothing can be written to it."""
        if not isinstance(self.shelf, Directory):
            raise MismatchError(
                f"{self.name} is no folder of this machine; make one of it with hskcache pull or hskcache extract"
            )
        return self.shelf.root

    @property
    def num_rows(self) -> int:
        """Rows of the data set, N."""
        return self.manifest.request.num_rows

    @property
    def fields(self) -> dict[str, Field]:
        """Stored fields by name."""
        return self.manifest.fields

    @property
    def tokenizer_path(self) -> Path:
        """Folder of the tokenizer's files, as transformers saves and loads them."""
        return self.shelf.tokenizer_path

    def view(self, text: str = "", **parts: Any) -> "Cache":
        """A part of the cache as if it had been built so; nothing is copied, and whoever reads a cache reads it.

        What a view sees is what a build of the narrower spec would have stored, value by value. Of columns the largest
        as they are stored are kept: where an encoding makes some of them equal, these are the lowest, while a build
        chooses before it encodes. Raises SpecError if it is no view; MismatchError if it is not in the cache, or a
        build would have given other values; tells why.

        Args:
            text: such as ``1l_5t_0.05h`` or ``1l_5t_0.05h,attention=1l_5t,rows=1000,fields=logits+hidden``.
            parts: the same by name: ``layers``, ``tokens`` and ``width`` of hidden states, ``attention``, ``rows``,
                ``fields``; see :class:`~hskcache.views.View`.
        """
        if not text and not parts:
            return self
        from hskcache.views import parse_view, viewed

        return Cache(*viewed(self.manifest, self.shelf, parse_view(text, **parts)))

    def num_bytes(self, field: str) -> int:
        """Bytes of a field on disk, constants included."""
        self._records(field)
        return self.manifest.field_bytes(field)

    def bytes_per_row(self, field: str) -> float:
        """Bytes of a field on disk for each row, without its constants, which do not grow with the rows."""
        return round((self.num_bytes(field) - self.manifest.shared_bytes(field)) / max(self.num_rows, 1), 2)

    def identity(self, fields: Collection[str]) -> str:
        """The name of the content of some fields: the cache id as it would be if the cache held no others.

        Of all own fields it is the id that the cache had before any was added, and stays it whatever is added later.
        Raises MismatchError if the cache has no such field.
        """
        for name in fields:
            self._records(name)
        return self.manifest.identity(fields)

    def skipped(self, fields: Collection[str]) -> "NDArray[np.int64]":
        """Rows that some of the fields hold nothing of, int64, ascending. Raises MismatchError without the field."""
        import numpy as np

        rows = {one.row for name in fields for one in self._records(name).skipped()}
        return np.array(sorted(rows), np.int64)

    def ahead(self, shards: Iterable[tuple[str, int]], names: Mapping[str, Collection[str]] | None = None) -> None:
        """Tell that some shards, by field and number, will be read soon: one that is far away can then be fetched.

        ``names``: by field the arrays that will be read; of a field that is not there, all.
        """
        self.shelf.ahead([self._records(field)[shard] for field, shard in shards], names)

    def read(self, field: str, shard: int, names: Collection[str] | None = None) -> "dict[str, NDArray[Any]]":
        """Read one shard of a field with one read of its file, verified against the manifest.

        ``shard``: number of the shard, 0 to len(shards) - 1. ``names``: arrays to decode; None decodes all. Returns by
        name, arrays still encoded, each writable and with memory of its own. Raises MismatchError if the cache has no
        such field, shard or array; DamageError if the file is missing or altered; names the field, the shard and the
        file.
        """
        records = self._records(field)
        if not 0 <= shard < len(records):
            raise MismatchError(f"{self.name} has no shard {shard} of {field}; it has {len(records)}, counted from 0")
        record = records[shard]
        if unknown := set(names or ()) - record.arrays.keys():
            known = ", ".join(sorted(record.arrays))
            raise MismatchError(f"{field} of {self.name} holds no array {min(unknown)}; it holds {known}")
        return self._read(record, names, f"{field} shard {shard}")

    def constants(self, field: str) -> "dict[str, NDArray[Any]]":
        """Arrays that all rows of a field share: columns or principal components by layer; empty where there are none.

        Raises MismatchError if the cache has no such field, DamageError if the file is missing or altered.
        """
        self._records(field)
        record = self.manifest.constants.get(field)
        return {} if record is None else self._read(record, None, f"{field} constants")

    def row(self, index: int) -> dict[str, Any]:
        """Everything stored about one row, still encoded; for looking at, not for speed.

        Returns ``row_id``, ``input_ids``, ``token_type_ids`` and ``label`` where stored, then by field ``logits`` [C]
        and ``hidden``: by teacher layer, ``positions`` [K] and the other arrays of the layer, [K, ...]; ``attention``
        likewise, its vectors one after the other. What was added stands under ``added``, by field. Raises MismatchError
        if there is no such row, DamageError if a file is missing or altered.
        """
        if not 0 <= index < self.num_rows:
            raise MismatchError(f"{self.name} has no row {index}; it has {self.num_rows}, counted from 0")
        shard = self.shards.shard_of(index)
        place = index - self.shards[shard][0]
        found: dict[str, Any] = {}
        for name, field in self.fields.items():
            arrays = _at(field, self.read(name, shard), place)
            of_row = kind_of(field).of_row(field, arrays)
            if name == INPUTS:
                found |= of_row
            elif name in self.manifest.added:
                found.setdefault("added", {})[name] = of_row
            else:
                found[name] = of_row
        return found

    def _records(self, field: str) -> Records:
        if field not in self.manifest.shards:
            known = ", ".join(self.manifest.shards)
            raise MismatchError(f"{self.name} has no field {field}; it has {known}{meant(field, self.manifest.shards)}")
        return self.manifest.shards[field]

    def _read(self, record: Record, names: Collection[str] | None, what: str) -> "dict[str, NDArray[Any]]":
        try:
            arrays = self.shelf.read(record, self.fields[record.field], names)
            check_content(self.manifest.request, self.fields[record.field], arrays)
            return arrays
        except DamageError as error:
            again = "add the field" if record.field in self.manifest.added else "build the cache"
            raise DamageError(
                f"{what}: {error}; fetch it again, mend it with hskcache repair, or {again} again"
            ) from None


def _at(field: Field, arrays: "dict[str, NDArray[Any]]", place: int) -> "dict[str, NDArray[Any]]":
    """One row's part of every array of a shard; the offsets themselves are left out."""
    found = {}
    for name, array in arrays.items():
        offsets = row_offsets(field, name, arrays)
        if offsets is not None:
            first, last = offsets[place : place + 2]
            found[name] = array[first:last]
        elif name not in OFFSETS:
            found[name] = array[place]
    return found
