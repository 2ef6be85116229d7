"""What can be audited at all, and which rows are drawn for it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twins import make

from hskcache.audit.audit import Question, compute_dtype, draw_rows, origins, prepare_audit
from hskcache.build.addition import add_field, prepare_addition
from hskcache.cache import Cache, open_cache
from hskcache.errors import MismatchError, SpecError
from hskcache.teacher.load import Teacher, load_teacher


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        (("x",), MismatchError, "has no field x; it has logits, hidden"),
        (("inputs",), SpecError, "no knowledge of a teacher to audit in the inputs"),
        (("hidden", "inputs"), SpecError, "no knowledge of a teacher to audit in the inputs"),
    ],
)
def test_fields_that_cannot_be_audited_are_refused(whole: Path, fields: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        origins(open_cache(whole), fields)


def test_a_field_that_no_request_asked_for_is_refused() -> None:
    golden = open_cache(Path(__file__).resolve().parents[2] / "golden" / "tiny.hsk")
    assert [dict(origin.names) for origin in origins(golden)] == [{"logits": "logits", "hidden": "hidden"}]
    with pytest.raises(MismatchError, match="tells what the field hidden_uniform was made from"):
        origins(golden, ["hidden_uniform"])


def test_teachers_of_different_types_are_audited_one_by_one(
    cache: Cache, tiny_teacher_dir: Path, teacher: Teacher
) -> None:
    add_field(prepare_addition(load_teacher(str(tiny_teacher_dir), "cpu", "bfloat16"), cache, "logits", "b16"))
    grown = open_cache(cache.root)
    assert compute_dtype(grown, ["b16"]) == "bfloat16"
    with pytest.raises(SpecError, match="computed in different types; audit them one by one"):
        prepare_audit(teacher, grown, Question(("logits", "b16")))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("num_hidden_layers", 2, "has num_layers 2 and the teacher of .* had 4"),
        ("num_attention_heads", 2, "has num_heads 2 and the teacher of .* had 4"),
        ("id2label", {0: "a", 1: "b", 2: "c"}, "has 3 outputs and .* holds 2 logits a row"),
    ],
)
def test_a_teacher_of_another_shape_cannot_be_compared(
    whole: Path, tiny_teacher_dir: Path, tmp_path: Path, key: str, value: Any, words: str
) -> None:
    def change(config: dict[str, Any]) -> None:
        config[key] = value
        if key == "id2label":
            config["label2id"] = {name: number for number, name in value.items()}

    with pytest.raises(MismatchError, match=words):
        prepare_audit(make(change, tiny_teacher_dir, tmp_path / "t"), open_cache(whole))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 300), st.integers(1, 400), st.integers())
def test_rows_are_drawn_once_each_and_the_same_for_a_seed(num_rows: int, limit: int, seed: int) -> None:
    rows = np.arange(0, 2 * num_rows, 2)
    drawn = draw_rows(rows, limit, seed)
    assert len(drawn) == min(limit, num_rows)
    assert set(drawn.tolist()) <= set(rows.tolist())
    assert bool((np.diff(drawn) > 0).all())
    assert drawn.tolist() == draw_rows(rows, limit, seed).tolist()


def test_other_seeds_draw_other_rows() -> None:
    rows = np.arange(1000)
    assert len({tuple(draw_rows(rows, 5, seed)) for seed in range(10)}) == 10
