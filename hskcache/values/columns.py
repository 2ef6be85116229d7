"""Columns of decoded rows: what there are, and their values, a block of rows at a time."""

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hskcache.classes import has_gold
from hskcache.errors import MismatchError
from hskcache.nearest import meant
from hskcache.rows import Arrays, Integers, by_shard, in_pieces, take
from hskcache.store.fields import INPUTS, OFFSETS, Field, kind_of, layer_name, row_offsets

if TYPE_CHECKING:
    from hskcache.values.values import DecodedRows

Shape = tuple[int | None, ...]

BLOCK_BYTES = 64_000_000
"""Decoded values of a block, about; one row may take more."""

_INPUTS = {
    "row_id": "row_ids",
    "input_ids": "input_ids",
    "token_type_ids": "token_type_ids",
    "label": "labels",
    "positions": "positions",
    "tags": "tags",
    "copy": "copies",
    "origin": "origins",
    "document": "documents",
    "targets": "targets",
}


class ColumnOrigin(NamedTuple):
    """Place of a column in a cache.

    Attributes:
        field: its name.
        layer: teacher layer; None where there are none.
        array: that holds it as it is; None of values that are decoded.
        shape: of a row; None where that differs from row to row.
    """

    field: str
    layer: int | None
    array: str | None
    shape: Shape


class Column(NamedTuple):
    """A column of n rows.

    Attributes:
        values: of one row after the other, flat.
        shapes: of each row, int64 [n, r].
        shape: of a row as far as it is the same in all of a cache.
    """

    values: NDArray[Any]
    shapes: Integers
    shape: Shape

    def rows(self) -> list[NDArray[Any]]:
        """The rows, each of its own shape."""
        ends = np.cumsum(self.shapes.prod(1))
        parts = np.split(self.values, ends[:-1]) if len(ends) else []
        return [part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def numpy(self) -> NDArray[Any] | list[NDArray[Any]]:
        """One array [n, ...] where all rows have the same shape, else one a row."""
        if not len(self.shapes):
            return self.values.reshape(0, *(size or 0 for size in self.shape))
        if (self.shapes == self.shapes[0]).all():
            return self.values.reshape(len(self.shapes), *self.shapes[0])
        return self.rows()


Block = dict[str, Column]


def origins(fields: Mapping[str, Field]) -> dict[str, ColumnOrigin]:
    """The columns of a cache by name, in the order of its fields."""
    found: dict[str, ColumnOrigin] = {}
    for name, field in fields.items():
        arrays = kind_of(field).arrays(field)
        if name == INPUTS:
            for column, array in _INPUTS.items():
                if array in arrays:
                    of_rows = column in {"row_id", "label", "copy", "origin", "document"}
                    own_shape: Shape = arrays[array].shape if of_rows else (None,)
                    found[column] = ColumnOrigin(name, None, array, own_shape)
            continue
        shape = kind_of(field).shape(field)
        for layer in (*field.stored_layers,) or (None,):
            own = name if layer is None else f"{name}.{layer}"
            # A field may be called as a column of the rows is.
            own = f"field.{own}" if own in found else own
            found[own] = ColumnOrigin(name, layer, None, shape)
            if layer is not None and (positions := f"{layer_name(layer)}/positions") in arrays:
                found[f"{own}.positions"] = ColumnOrigin(name, layer, positions, (None,))
    return found


def chosen(cache: "DecodedRows", columns: Collection[str] | None) -> dict[str, ColumnOrigin]:
    """Some columns of a cache in its order; None: all. Raises MismatchError if it has no such column."""
    known = origins(cache.fields)
    for name in columns or ():
        if name not in known:
            raise MismatchError(f"{cache.name} has no column {name}; it has {', '.join(known)}{meant(name, known)}")
    return known if columns is None else {name: origin for name, origin in known.items() if name in columns}


def blocks(cache: "DecodedRows", rows: Integers, columns: Collection[str] | None = None) -> Iterator[Block]:
    """Columns of some rows, in blocks of about ``BLOCK_BYTES``; of each field one shard at a time is in memory.

    Args:
        cache: that holds them.
        rows: their numbers, ascending.
        columns: names; None: all.

    Raises:
        MismatchError: the cache has no such column.
        DamageError: a file is missing or altered.
    """
    wanted = chosen(cache, columns)
    needed = {origin.field: _arrays(cache.fields, wanted, origin.field) for origin in wanted.values()}
    constants = {name: cache.constants(name) for name in needed}
    places = list(by_shard(cache.shards, rows))
    cache.ahead(((name, shard) for shard, _ in places for name in needed), needed)
    for shard, inside in places:
        own = rows[inside] - cache.shards[shard][0]
        stored = {name: cache.read(name, shard, names) for name, names in needed.items()}
        for part in _parts(cache.fields, stored, own):
            taken = {name: take(cache.fields[name], arrays, part) for name, arrays in stored.items()}
            yield {
                name: _column(origin, cache.fields[origin.field], taken[origin.field], constants[origin.field])
                for name, origin in wanted.items()
            }


def together(found: list[Block], cache: "DecodedRows", columns: Collection[str] | None) -> Block:
    """Blocks as one; where there is none, columns without a row."""
    if not found:
        return {
            name: Column(np.empty(0, np.float32), np.empty((0, len(one.shape)), np.int64), one.shape)
            for name, one in chosen(cache, columns).items()
        }
    return {
        name: Column(
            np.concatenate([block[name].values for block in found]),
            np.concatenate([block[name].shapes for block in found]),
            column.shape,
        )
        for name, column in found[0].items()
    }


def _arrays(fields: Mapping[str, Field], wanted: Mapping[str, ColumnOrigin], name: str) -> list[str]:
    """Arrays of a field that some columns are made of."""
    stored = list(kind_of(fields[name]).arrays(fields[name]))
    own = [origin for origin in wanted.values() if origin.field == name]
    exact = {origin.array for origin in own}
    layers = {layer_name(origin.layer) for origin in own if origin.array is None and origin.layer is not None}
    is_whole = any(origin.array is None and origin.layer is None for origin in own)
    return [array for array in stored if is_whole or array in exact | OFFSETS or array.partition("/")[0] in layers]


def _parts(fields: Mapping[str, Field], stored: Mapping[str, Arrays], rows: Integers) -> Iterator[Integers]:
    """The rows of a shard in blocks whose decoded values fit together."""
    num_bytes = np.zeros(len(rows), np.int64)
    for name, arrays in stored.items():
        if name != INPUTS:
            from hskcache.decoded import DECODED

            field = fields[name]
            num_layers = max(1, sum(f"{layer_name(layer)}/positions" in arrays for layer in field.stored_layers))
            num_bytes += 4 * num_layers * DECODED[field.kind].num_values(field, arrays)[rows]
    return in_pieces(rows, num_bytes, BLOCK_BYTES)


def _column(origin: ColumnOrigin, field: Field, arrays: Arrays, constants: Arrays) -> Column:
    if origin.array is None:
        from hskcache.decoded import dense

        return Column(*dense(field, arrays, origin.layer, constants), origin.shape)
    values, offsets = arrays[origin.array], row_offsets(field, origin.array, arrays)
    if offsets is None:
        return Column(values.ravel(), np.full((len(values), values.ndim - 1), values.shape[1:], np.int64), origin.shape)
    return Column(values.astype(np.int32), np.diff(offsets)[:, None], origin.shape)


def each(block: Block) -> Iterator[dict[str, Any]]:
    """The rows of a block one by one: scalars as Python has them, None for a label that is none."""
    columns = {name: column.rows() for name, column in block.items()}
    for parts in zip(*columns.values(), strict=True):
        row = {name: part.item() if part.ndim == 0 else part for name, part in zip(columns, parts, strict=True)}
        if "label" in row and not has_gold(np.array([row["label"]]))[0]:
            row["label"] = None
        yield row
