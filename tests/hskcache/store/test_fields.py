"""A record that does not hold what its field stores, or not for all of its rows, is told apart from one that does."""

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from hskcache.errors import DamageError
from hskcache.store.fields import (
    AttentionField,
    Field,
    HiddenField,
    InputsField,
    LogitsField,
    check_offsets,
    check_positions,
    check_record,
    entry_counts,
    layer_name,
    row_offsets,
)
from hskcache.store.record import CONSTANTS, ArrayInfo, Record, describe

INPUTS = InputsField(id_dtype="uint16", has_token_types=True, has_labels=True)
HIDDEN = HiddenField(width=16, num_columns=3, columns="bitmask", encoding="int8", layers=[2, 4], max_tokens=2)


ATTENTION = AttentionField(
    num_heads=3, heads=[0, 1, 2], teacher_heads=3, encoding="int4", layers=[2, 4], max_tokens=None
)


def record(shard: int = 0, num_rows: int = 2, **arrays: Any) -> Record:
    infos = {
        name.replace("__", "/"): ArrayInfo(shape=list(shape), dtype=dtype) for name, (shape, dtype) in arrays.items()
    }
    return Record(field="f", shard=shard, start=10, stop=10 + num_rows, num_bytes=1, sha256="0" * 64, arrays=infos)


def inputs(**changes: Any) -> Record:
    arrays = {
        "input_ids": ((7,), "uint16"),
        "token_type_ids": ((7,), "uint8"),
        "row_offsets": ((3,), "int64"),
        "row_ids": ((2,), "int64"),
        "labels": ((2,), "float32"),
    } | changes
    return record(**{name: info for name, info in arrays.items() if info})


def hidden(**changes: Any) -> Record:
    arrays: dict[str, Any] = {"position_offsets": ((3,), "int64")}
    for layer in ("layer_02", "layer_04"):
        arrays[f"{layer}__positions"] = ((4,), "uint16")
        arrays[f"{layer}__values"] = ((4, 3), "int8")
        arrays[f"{layer}__scales"] = ((4,), "float32")
        arrays[f"{layer}__bitmask"] = ((4, 2), "uint8")
    return record(**{name: info for name, info in (arrays | changes).items() if info})


def attention(**changes: Any) -> Record:
    """Two rows of 1 and 3 positions: 3 + 9 vectors, of 1 and 2 bytes."""
    arrays: dict[str, Any] = {"position_offsets": ((3,), "int64")}
    for layer in ("layer_02", "layer_04"):
        arrays[f"{layer}__positions"] = ((4,), "uint16")
        arrays[f"{layer}__values"] = ((21,), "uint8")
        arrays[f"{layer}__scales"] = ((12,), "float32")
    return record(**{name: info for name, info in (arrays | changes).items() if info})


def test_layer_names_sort_as_layers_do() -> None:
    assert [layer_name(layer) for layer in (2, 12)] == ["layer_02", "layer_12"]


@pytest.mark.parametrize(
    ("field", "good"),
    [
        (INPUTS, inputs()),
        (INPUTS, inputs(labels=((2,), "int64"))),
        (INPUTS.model_copy(update={"has_labels": False}), inputs(labels=None)),
        (INPUTS.model_copy(update={"has_token_types": False}), inputs(token_type_ids=None)),
        (LogitsField(num_labels=3), record(logits=((2, 3), "float32"))),
        (HIDDEN, hidden()),
        (HIDDEN.model_copy(update={"columns": "all"}), hidden(layer_02__bitmask=None, layer_04__bitmask=None)),
        (
            HIDDEN.model_copy(update={"columns": "indices", "layers": [2], "encoding": "float16"}),
            record(
                position_offsets=((3,), "int64"),
                layer_02__positions=((0,), "uint16"),
                layer_02__values=((0, 3), "float16"),
                layer_02__columns=((0, 3), "uint16"),
            ),
        ),
    ],
)
def test_record_of_its_field_is_accepted(field: Field, good: Record) -> None:
    check_record(field, good)


@pytest.mark.parametrize(
    ("field", "bad", "message"),
    [
        (ATTENTION, attention(layer_04__values=((20,), "uint8")), "layer_04/values"),
        (ATTENTION, attention(layer_02__scales=None, layer_04__scales=None), "lacks array layer_02/scales"),
        (ATTENTION, attention(layer_02__values=((21,), "int8")), "layer_02/values"),
        (ATTENTION, attention(layer_02__positions=((5,), "uint16")), "positions"),
        (ATTENTION, attention(layer_04__scales=((12, 1), "float32")), "layer_04/scales"),
        (INPUTS, inputs(labels=None), "lacks array labels"),
        (INPUTS, inputs(extra=((1,), "int8")), "unknown array extra"),
        (INPUTS, inputs(input_ids=None), "lacks array input_ids"),
        (INPUTS, inputs(input_ids=((7,), "int32")), r"input_ids is int32 \[7\]"),
        (INPUTS, inputs(row_offsets=((4,), "int64")), "row_offsets .* for 2 rows"),
        (INPUTS, inputs(row_ids=((1,), "int64")), "row_ids .* for 2 rows"),
        (INPUTS, inputs(token_type_ids=((6,), "uint8")), "token_type_ids"),
        (INPUTS, inputs(labels=((2, 1), "int64")), "labels"),
        (LogitsField(num_labels=3), record(logits=((2, 2), "float32")), "logits"),
        (LogitsField(num_labels=3), record(num_rows=3, logits=((2, 3), "float32")), "logits .* for 3 rows"),
        (HIDDEN, hidden(layer_04__positions=((3,), "uint16")), "layer_04/positions"),
        (HIDDEN, hidden(layer_04__values=((5, 3), "int8")), "layer_04/values"),
        (HIDDEN, hidden(layer_04__values=None), "lacks array layer_04/values"),
        (HIDDEN, hidden(layer_02__scales=None), "lacks array layer_02/scales"),
        (HIDDEN, hidden(layer_02__bitmask=((4, 3), "uint8")), "layer_02/bitmask"),
        (HIDDEN, hidden(layer_03__values=((4, 3), "int8")), "unknown array layer_03/values"),
        (HIDDEN, hidden(position_offsets=((2,), "int64")), "position_offsets"),
    ],
)
def test_record_of_another_field_or_too_few_rows_is_refused(field: Field, bad: Record, message: str) -> None:
    with pytest.raises(DamageError, match=message):
        check_record(field, bad)


@pytest.mark.parametrize(
    ("columns", "arrays"),
    [
        ("shared", {"layer_02/columns": ([3], "uint16")}),
        ("pca", {"layer_02/mean": ([16], "float32"), "layer_02/basis": ([3, 16], "float32")}),
    ],
)
def test_constants_are_those_of_the_scheme(columns: str, arrays: dict[str, tuple[list[int], str]]) -> None:
    field = HIDDEN.model_copy(update={"columns": columns, "layers": [2]})
    infos = {name: ArrayInfo(shape=shape, dtype=dtype) for name, (shape, dtype) in arrays.items()}
    shared = record(shard=CONSTANTS).model_copy(update={"arrays": infos})
    check_record(field, shared)
    for name in infos:
        without = shared.model_copy(update={"arrays": {key: infos[key] for key in infos if key != name}})
        with pytest.raises(DamageError, match=f"f constants lacks array {name}"):
            check_record(field, without)


@pytest.mark.parametrize("offsets", [[0, 4, 6], [0, 8, 7], [1, 4, 7], [0, 9, 7], [0, -1, 7]])
@pytest.mark.parametrize("names", [["input_ids", "row_offsets"], ["row_offsets"]])
def test_offsets_that_do_not_divide_the_tokens_are_refused(offsets: list[int], names: list[str]) -> None:
    """Whether or not what they divide is decoded along with them."""
    arrays = {"input_ids": np.zeros(7, np.uint16), "row_offsets": np.array(offsets)}
    shard = inputs().model_copy(update={"arrays": describe(arrays)})
    check_offsets(INPUTS, shard, {"row_offsets": np.array([0, 0, 7])})
    with pytest.raises(DamageError, match="row_offsets does not divide input_ids into rows"):
        check_offsets(INPUTS, shard, {name: arrays[name] for name in names})


def test_attention_is_divided_into_rows_by_positions_vectors_and_values() -> None:
    offsets = {"position_offsets": np.array([0, 1, 4])}
    check_record(ATTENTION, attention())
    check_offsets(ATTENTION, attention(), offsets)
    parts = {part: row_offsets(ATTENTION, f"layer_02/{part}", offsets) for part in ("positions", "scales", "values")}
    assert {part: array.tolist() for part, array in parts.items() if array is not None} == {
        "positions": [0, 1, 4],
        "scales": [0, 3, 12],
        "values": [0, 3, 21],
    }
    assert row_offsets(ATTENTION, "position_offsets", offsets) is None
    assert entry_counts(HIDDEN, "layer_02/values", np.array([1, 3])).tolist() == [1, 3]


@pytest.mark.parametrize("offsets", [[0, 2, 4], [0, 0, 4], [1, 1, 4], [0, 5, 4]])
def test_offsets_that_do_not_divide_the_scores_are_refused(offsets: list[int]) -> None:
    """Though they divide the positions: other rows would have other numbers of scores."""
    with pytest.raises(DamageError, match="position_offsets does not divide layer_02/"):
        check_offsets(ATTENTION, attention(), {"position_offsets": np.array(offsets)})


@pytest.mark.parametrize(
    "changes",
    [
        {"num_heads": 2**70},
        {"num_heads": 2},
        {"heads": [0, 1, 1]},
        {"heads": [0, 1, 3]},
        {"heads": [0, 1, -1]},
        {"heads": "mean"},
        {"teacher_heads": 2**40},
        {"layers": [4, 2]},
        {"layers": [2, 2]},
        {"layers": [0, 2]},
    ],
    ids=str,
)
def test_attention_that_no_teacher_could_have_given_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AttentionField.model_validate(ATTENTION.model_dump() | changes)
    AttentionField.model_validate(ATTENTION.model_dump() | {"heads": "mean", "num_heads": 1})


def test_positions_beyond_a_row_are_refused() -> None:
    arrays = {"position_offsets": np.array([0, 2, 3]), "layer_02/positions": np.array([3, 0, 1], np.uint16)}
    check_positions(arrays, np.array([4, 2]))
    for lengths in ([3, 2], [4, 1]):
        with pytest.raises(DamageError, match="layer_02/positions points beyond the end of its row"):
            check_positions(arrays, np.array(lengths))
