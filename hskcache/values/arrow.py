"""Decoded columns as Arrow: record batches, one at a time."""

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from hskcache.classes import has_gold
from hskcache.errors import DataError
from hskcache.rows import Integers
from hskcache.values.columns import Column, ColumnOrigin, Shape, blocks, chosen

if TYPE_CHECKING:
    from hskcache.values.values import DecodedRows

try:
    import pyarrow as pa
except ImportError:
    raise DataError("Arrow needs pyarrow; install it with: pip install 'hskcache[hub]'") from None


def schema(cache: "DecodedRows", columns: Collection[str] | None) -> pa.Schema:
    """Types of some columns of a cache; None: all."""
    is_score = cache.manifest.request.data.problem == "regression"

    def of(name: str, one: ColumnOrigin) -> pa.DataType:
        if not one.shape:
            return pa.float32() if name == "label" and is_score else pa.int64()
        # Labels are stored as they are, as ids are, and with a value for each class are no integers.
        return _nested(one.shape, pa.int32() if one.array and name != "label" else pa.float32())

    return pa.schema([(name, of(name, one)) for name, one in chosen(cache, columns).items()])


def batches(cache: "DecodedRows", rows: Integers, columns: Collection[str] | None) -> Iterator[pa.RecordBatch]:
    """Rows as record batches, a block of rows each."""
    types = schema(cache, columns)
    for block in blocks(cache, rows, columns):
        yield pa.RecordBatch.from_arrays(
            [_array(name, column, types.field(name).type) for name, column in block.items()], schema=types
        )


def reader(cache: "DecodedRows", rows: Integers, columns: Collection[str] | None) -> pa.RecordBatchReader:
    """Rows as a stream of record batches."""
    return pa.RecordBatchReader.from_batches(schema(cache, columns), batches(cache, rows, columns))


def frame(cache: "DecodedRows", rows: Integers, columns: Collection[str] | None) -> Any:
    """Rows as a DataFrame: what has a shape is an array in each cell. Raises DataError if pandas is missing."""
    try:
        import pandas as pd
    except ImportError:
        raise DataError("a DataFrame needs pandas; install it with: pip install pandas") from None
    found: dict[str, list[Any]] = {name: [] for name in chosen(cache, columns)}
    for block in blocks(cache, rows, columns):
        for name, column in block.items():
            found[name] += column.rows() if column.shape else column.values.tolist()
    table = pd.DataFrame({name: pd.Series(values) for name, values in found.items()})
    if "label" in table:
        # A class that is none is NaN, as a score that is none.
        labels = np.array(table["label"].tolist())
        table["label"] = table["label"].where(has_gold(labels))
    return table


def _nested(shape: Shape, value: pa.DataType) -> pa.DataType:
    """Lists of the value, of a fixed size where the shape knows one."""
    for size in reversed(shape):
        value = pa.list_(value) if size is None else pa.list_(value, size)
    return value


def _array(name: str, column: Column, kind: pa.DataType) -> pa.Array:
    if not column.shape:
        missing = ~has_gold(column.values) if name == "label" else None
        return pa.array(column.values, kind, mask=missing)
    kinds = [kind]
    while len(kinds) < len(column.shape):
        kinds.append(kinds[-1].value_type)
    array: pa.Array = pa.array(column.values, kinds[-1].value_type)
    for axis in reversed(range(len(column.shape))):
        if column.shape[axis] is not None:
            missing = pa.array(~has_gold(np.array(column.numpy()))) if name == "label" else None
            array = pa.FixedSizeListArray.from_arrays(array, type=kinds[axis], mask=missing)
        else:
            # A list for each entry of the axes before it.
            counts = np.repeat(column.shapes[:, axis], column.shapes[:, :axis].prod(1))
            offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
            array = pa.ListArray.from_arrays(pa.array(offsets), array, type=kinds[axis])
    return array
