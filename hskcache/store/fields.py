"""The arrays that a shard of a field holds, whatever its kind: their shapes, and where its rows begin in each."""

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Discriminator, PlainValidator, SerializeAsAny, TypeAdapter

from hskcache.counted import counted
from hskcache.errors import DamageError
from hskcache.store.kinds import INPUTS, KINDS, LOGITS, kind_of, knowledge
from hskcache.store.kinds.abc import (
    AXES,
    OFFSETS,
    ROW,
    Array,
    Kind,
    StoredField,
    check_positions,
    check_words,
    layer_name,
)
from hskcache.store.kinds.attention import MAX_HEADS, AttentionField
from hskcache.store.kinds.embedding import EmbeddingField
from hskcache.store.kinds.hidden import Columns, HiddenField
from hskcache.store.kinds.inputs import InputsField
from hskcache.store.kinds.logits import LogitsField
from hskcache.store.kinds.vocabulary import VocabularyField
from hskcache.store.record import CONSTANTS, ArrayInfo, Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "AXES",
    "INPUTS",
    "KINDS",
    "LOGITS",
    "MAX_HEADS",
    "OFFSETS",
    "ROW",
    "AttentionField",
    "Columns",
    "EmbeddingField",
    "Field",
    "HiddenField",
    "InputsField",
    "Kind",
    "LogitsField",
    "StoredField",
    "VocabularyField",
    "check_offsets",
    "check_positions",
    "check_record",
    "check_words",
    "entry_counts",
    "kind_of",
    "knowledge",
    "layer_name",
    "row_offsets",
]


@cache
def _adapter(models: tuple[type[StoredField], ...]) -> TypeAdapter[StoredField]:
    union: Any = models[0]
    for model in models[1:]:
        union |= model
    return TypeAdapter(Annotated[union, Discriminator("kind")])


def _validated(value: Any) -> StoredField:
    """A field of any kind that stands in the table when it is read."""
    return _adapter(tuple(kind.field for kind in KINDS.values())).validate_python(value)


Field = Annotated[StoredField, PlainValidator(_validated), SerializeAsAny()]
"""A field of any kind, in a model."""


def entry_counts(field: StoredField, name: str, counts: "NDArray[np.int64]") -> "NDArray[np.int64]":
    """Entries of each row in an array that offsets divide, int64 [n], from its tokens or kept positions, int64 [n]."""
    kind = kind_of(field)
    return kind.entries(field, kind.axis(name), counts)


def row_offsets(field: StoredField, name: str, arrays: "Mapping[str, NDArray[Any]]") -> "NDArray[np.int64] | None":
    """Beginning of each row in the array ``name``, int64 [n + 1]; None where row i is simply entry i.

    Args:
        field: that holds the array.
        name: of the array within the shard.
        arrays: of the shard; the stored offsets at least.
    """
    base = AXES[kind_of(field).axis(name)]
    if base is None:
        return None
    stored = arrays[base]
    counts = stored[1:] - stored[:-1]
    entries = entry_counts(field, name, counts)
    if entries is counts:
        return stored
    import numpy as np

    return np.concatenate([stored[:1], np.cumsum(entries, dtype=np.int64)])


def check_record(field: StoredField, record: Record) -> None:
    """Compare the arrays of a record with what its field stores; this also proves that every row is there.

    Raises:
        DamageError: an array is missing, unknown, or of another shape or type; the message names it.
    """
    kind = kind_of(field)
    is_constant = record.shard == CONSTANTS
    expected: Mapping[str, Any] = kind.constants(field) if is_constant else kind.arrays(field)
    if odd := expected.keys() ^ record.arrays.keys():
        name = min(odd)
        raise DamageError(f"{_where(record)} {'lacks' if name in expected else 'has an unknown'} array {name}")
    sizes: dict[str, int | None] = {ROW: record.num_rows}
    for name in expected:
        # Arrays of one axis have as many entries as the first of them; that these are those of the rows, offsets tell.
        shape = record.arrays[name].shape
        sizes.setdefault(kind.axis(name), shape[0] if shape else None)
    for name, info in record.arrays.items():
        size = None if is_constant else sizes[kind.axis(name)] if name not in OFFSETS else record.num_rows + 1
        if not _fits(info, expected[name], size):
            rows = "" if is_constant else f" for {counted(record.num_rows, 'row')}"
            raise DamageError(
                f"{_where(record)}: {name} is {info.dtype} {info.shape}, which does not belong to this field{rows}"
            )


def _fits(info: ArrayInfo, array: Array, size: int | None) -> bool:
    """True if an array is of one of the types and of the shape, behind ``size`` entries where there are such."""
    shape = array.shape if size is None else (size, *array.shape)
    return tuple(info.shape) == shape and info.dtype in array.dtypes


def check_offsets(field: StoredField, record: Record, arrays: "Mapping[str, NDArray[Any]]") -> None:
    """Raise unless offsets begin at 0, never fall and end at the length of what they divide.

    Args:
        field: that the shard belongs to.
        record: of the shard.
        arrays: decoded arrays of the shard, all or some; nothing is checked that the offsets for are not among them.

    Raises:
        DamageError: they do not, so rows would be taken from elsewhere.
    """
    kind = kind_of(field)
    for name, info in record.arrays.items():
        base = AXES[kind.axis(name)]
        if base is None or base not in arrays:
            continue
        stored, offsets = arrays[base], row_offsets(field, name, arrays)
        assert offsets is not None
        if stored[0] != 0 or bool((stored[1:] < stored[:-1]).any()) or offsets[-1] != info.shape[0]:
            raise DamageError(f"{base} does not divide {name} into rows")


def _where(record: Record) -> str:
    return f"{record.field} " + ("constants" if record.shard == CONSTANTS else f"shard {record.shard}")
