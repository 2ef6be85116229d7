"""The kinds of field a cache can hold, and the arrays that format version 1 stores for each."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, model_validator
from pydantic import Field as Key

from hskcache.errors import DamageError
from hskcache.spec import EncodingName
from hskcache.store.record import CONSTANTS, ArrayInfo, Record
from hskcache.strict import Strict

Columns = Literal["all", "shared", "indices", "bitmask", "pca"]


MAX_HEADS = 1 << 12
"""More than any teacher has; the number of scores of a row stays far from the limits of its integers."""


def ascending(layers: list[int]) -> list[int]:
    """The layers, if they rise.

    Raises:
        ValueError: they do not.
    """
    if any(low >= high for low, high in pairwise(layers)):
        raise ValueError("layers do not rise")
    return layers


class InputsField(Strict):
    """The tokenized rows.

    ``has_unlabelled`` is whether some of the labels stand for none, where rows were kept that have no gold label:
    NO_CLASS in place of a class, NaN in place of a score.
    """

    kind: Literal["inputs"] = "inputs"
    id_dtype: Literal["uint16", "int32"]
    has_token_types: bool
    has_labels: bool
    has_unlabelled: bool = False


class LogitsField(Strict):
    """The teacher's logits, float32 [n, C]."""

    kind: Literal["logits"] = "logits"
    num_labels: int = Key(ge=1)


class HiddenField(Strict):
    """Hidden states of some teacher layers at the kept positions of each row.

    Attributes:
        width: D, the teacher's hidden width.
        num_columns: W, values stored of each position.
        columns: which they are: ``all``; ``shared`` by all positions (constants); per position as ``indices`` or
            ``bitmask``; or ``pca``, coordinates along components (constants).
        encoding: how the values are stored.
        layers: teacher layers, ascending.
        max_tokens: K, or None where every position is kept.
    """

    kind: Literal["hidden"] = "hidden"
    width: int = Key(ge=1)
    num_columns: int = Key(ge=1)
    columns: Columns
    encoding: EncodingName
    layers: Annotated[list[Annotated[int, Key(ge=0)]], Key(min_length=1), AfterValidator(ascending)]
    max_tokens: int | None = Key(default=None, ge=1)


class AttentionField(Strict):
    """Attention scores before mask and softmax, of some teacher layers, between the kept positions of each row.

    A row with K positions has, for every layer, K positions (best first), and H x K vectors of K scores: head by
    head, query by query, one score for each kept key in the order of the positions. Each vector is encoded alone.

    Attributes:
        num_heads: H, maps stored of each layer; 1 where the heads are averaged.
        heads: the teacher's heads they come from, counted from 0 and in the order stored, or ``mean``.
        teacher_heads: heads of the teacher.
        encoding: how the scores are stored.
        layers: teacher layers, ascending, counted from 1.
        max_tokens: K, or None where every position is kept.
    """

    kind: Literal["attention"] = "attention"
    num_heads: int = Key(ge=1)
    heads: Literal["mean"] | list[int]
    teacher_heads: int = Key(ge=1, le=MAX_HEADS)
    encoding: EncodingName
    layers: Annotated[list[Annotated[int, Key(ge=1)]], Key(min_length=1), AfterValidator(ascending)]
    max_tokens: int | None = Key(default=None, ge=1)

    @model_validator(mode="after")
    def _check_heads(self) -> "AttentionField":
        if isinstance(self.heads, str):
            if self.num_heads != 1:
                raise ValueError("the mean of the heads is one map a layer")
        elif len(self.heads) != self.num_heads or len(set(self.heads)) < self.num_heads:
            raise ValueError("heads are not as many as num_heads, each once")
        elif min(self.heads) < 0 or max(self.heads) >= self.teacher_heads:
            raise ValueError("heads are not among those of the teacher")
        return self


Field = Annotated[InputsField | LogitsField | HiddenField | AttentionField, Key(discriminator="kind")]


OFFSETS = frozenset({"row_offsets", "position_offsets"})
"""Arrays that divide others into rows."""

_VALUE_DTYPES: dict[str, str] = {
    "float32": "float32",
    "float16": "float16",
    "bfloat16": "int16",
    "int8": "int8",
    "int4": "uint8",
}


class _Expected(NamedTuple):
    """An array's sizes and the types that it may have."""

    shape: tuple[int, ...]
    dtypes: tuple[str, ...]

    def fits(self, info: ArrayInfo) -> bool:
        return tuple(info.shape) == self.shape and info.dtype in self.dtypes


def layer_name(layer: int) -> str:
    """Group of a teacher layer's arrays: ``layer_06``."""
    return f"layer_{layer:02d}"


def vector_entries(encoding: EncodingName, width: int | NDArray[np.int64]) -> Any:
    """Stored entries of a vector of ``width`` scores: int4 packs two to a byte."""
    return (width + 1) // 2 if encoding == "int4" else width


def _base_offsets(name: str) -> str | None:
    """The stored array that says where each row begins in the array ``name``, directly or by way of its positions."""
    if name in {"input_ids", "token_type_ids"}:
        return "row_offsets"
    return "position_offsets" if "/" in name else None


def entry_counts(field: Field, name: str, num_positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """Entries of each row in the array ``name`` of a layer, int64 [n], from its kept positions, int64 [n]."""
    part = name.rpartition("/")[2]
    if not isinstance(field, AttentionField) or part == "positions":
        return num_positions
    vectors = field.num_heads * num_positions
    counts: NDArray[np.int64] = vectors * vector_entries(field.encoding, num_positions) if part == "values" else vectors
    return counts


def row_offsets(field: Field, name: str, arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.int64] | None:
    """Where each row begins in the array ``name``, int64 [n + 1]; None where row i is simply entry i.

    Args:
        field: that holds the array.
        name: of the array within the shard.
        arrays: of the shard; the stored offsets at least.
    """
    base = _base_offsets(name)
    if base is None:
        return None
    if not isinstance(field, AttentionField):
        return arrays[base]
    counts = entry_counts(field, name, np.diff(arrays[base]))
    return np.concatenate([arrays[base][:1], np.cumsum(counts, dtype=np.int64)])


def check_record(field: Field, record: Record) -> None:
    """Compare the arrays of a record with what its field stores; this also proves that every row is there.

    Raises:
        DamageError: an array is missing, unknown, or of another shape or type; the message names it.
    """
    expected = _constants(field) if record.shard == CONSTANTS else _arrays(field, record)
    if odd := expected.keys() ^ record.arrays.keys():
        name = min(odd)
        raise DamageError(f"{_where(record)} {'lacks' if name in expected else 'has an unknown'} array {name}")
    for name, info in record.arrays.items():
        if not expected[name].fits(info):
            rows = f" for {record.num_rows} rows" if record.shard != CONSTANTS else ""
            raise DamageError(
                f"{_where(record)}: {name} is {info.dtype} {info.shape}, which does not belong to this field{rows}"
            )


def check_offsets(field: Field, record: Record, arrays: Mapping[str, NDArray[Any]]) -> None:
    """See that offsets begin at 0, never fall and end at the length of what they divide.

    Args:
        field: that the shard belongs to.
        record: of the shard.
        arrays: decoded arrays of the shard, all or some; nothing is checked that the offsets for are not among them.

    Raises:
        DamageError: they do not, so rows would be taken from elsewhere.
    """
    for name, info in record.arrays.items():
        base = _base_offsets(name)
        if base is None or base not in arrays:
            continue
        stored, offsets = arrays[base], row_offsets(field, name, arrays)
        assert offsets is not None
        if stored[0] != 0 or bool(np.any(stored[1:] < stored[:-1])) or offsets[-1] != info.shape[0]:
            raise DamageError(f"{base} does not divide {name} into rows")


def check_positions(arrays: Mapping[str, NDArray[Any]], lengths: NDArray[np.int64]) -> None:
    """See that every kept position lies within its row.

    Args:
        arrays: of a shard, ``position_offsets`` and the positions of any layers among them.
        lengths: tokens of each of its rows, int64 [n].

    Raises:
        DamageError: one does not, so states would be compared that are not of the row.
    """
    for name, positions in arrays.items():
        if name.endswith("/positions"):
            limits = np.repeat(lengths, np.diff(arrays["position_offsets"]))
            if bool(np.any(positions >= limits)):
                raise DamageError(f"{name} points beyond the end of its row")


def _where(record: Record) -> str:
    return f"{record.field} " + ("constants" if record.shard == CONSTANTS else f"shard {record.shard}")


def _arrays(field: Field, record: Record) -> dict[str, _Expected]:
    rows = (record.num_rows,)
    offsets = _Expected((record.num_rows + 1,), ("int64",))
    if isinstance(field, LogitsField):
        return {"logits": _Expected((*rows, field.num_labels), ("float32",))}
    if isinstance(field, InputsField):
        tokens = _first_size(record, "input_ids")
        expected = {
            "input_ids": _Expected(tokens, (field.id_dtype,)),
            "row_ids": _Expected(rows, ("int64",)),
            "row_offsets": offsets,
        }
        if field.has_token_types:
            expected["token_type_ids"] = _Expected(tokens, ("uint8",))
        if field.has_labels:
            expected["labels"] = _Expected(rows, ("int64", "float32"))
        return expected
    if isinstance(field, AttentionField):
        return {"position_offsets": offsets} | _attention_arrays(field, record)
    expected = {"position_offsets": offsets}
    entries, dtype = int(vector_entries(field.encoding, field.num_columns)), _VALUE_DTYPES[field.encoding]
    for layer in map(layer_name, field.layers):
        positions = _first_size(record, f"{layer_name(field.layers[0])}/positions")
        expected[f"{layer}/positions"] = _Expected(positions, ("uint16",))
        expected[f"{layer}/values"] = _Expected((*positions, entries), (dtype,))
        if field.encoding in {"int8", "int4"}:
            expected[f"{layer}/scales"] = _Expected(positions, ("float32",))
        if field.columns == "indices":
            expected[f"{layer}/columns"] = _Expected((*positions, field.num_columns), ("uint16",))
        if field.columns == "bitmask":
            expected[f"{layer}/bitmask"] = _Expected((*positions, -(-field.width // 8)), ("uint8",))
    return expected


def _attention_arrays(field: AttentionField, record: Record) -> dict[str, _Expected]:
    """How many scores belong to how many positions only the offsets tell: :func:`check_offsets` sees to that."""
    expected = {}
    first = layer_name(field.layers[0])
    positions, values, scales = (_first_size(record, f"{first}/{part}") for part in ("positions", "values", "scales"))
    for layer in map(layer_name, field.layers):
        expected[f"{layer}/positions"] = _Expected(positions, ("uint16",))
        expected[f"{layer}/values"] = _Expected(values, (_VALUE_DTYPES[field.encoding],))
        if field.encoding in {"int8", "int4"}:
            expected[f"{layer}/scales"] = _Expected(scales, ("float32",))
    return expected


def _constants(field: Field) -> dict[str, _Expected]:
    expected: dict[str, _Expected] = {}
    if not isinstance(field, HiddenField):
        return expected
    for layer in map(layer_name, field.layers):
        if field.columns == "shared":
            expected[f"{layer}/columns"] = _Expected((field.num_columns,), ("uint16",))
        if field.columns == "pca":
            expected[f"{layer}/mean"] = _Expected((field.width,), ("float32",))
            expected[f"{layer}/basis"] = _Expected((field.num_columns, field.width), ("float32",))
    return expected


def _first_size(record: Record, name: str) -> tuple[int, ...]:
    info = record.arrays.get(name)
    return tuple(info.shape[:1]) if info is not None else ()
