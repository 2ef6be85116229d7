"""An audit finds what no digest can: content that the teacher does not give, in the rows that have it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from audited import building, changed, layer_of, report_of

from hskcache.audit.audit import Question
from hskcache.cache import Cache, open_cache
from hskcache.errors import DamageError
from hskcache.rows import take
from hskcache.store.ledger import Ledger
from hskcache.teacher.load import Teacher
from hskcache.text import Examples


@pytest.fixture(scope="module")
def built(job_of: Any, examples: Examples, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Cache]:
    return building(job_of, examples, tmp_path_factory)


def test_a_single_value_that_is_off_is_found_in_its_row_alone(built: Any, teacher: Teacher) -> None:
    def change(arrays: dict[str, Any]) -> None:
        arrays["layer_04/values"][arrays["position_offsets"][2] + 3, 5] += 0.01

    cache = changed(built("2l_4t_0.25h"), "hidden", 3, change)
    report = report_of(teacher, cache, Question(num_rows=40))
    found = layer_of(report, "hidden", 4)
    assert (found.bad_rows, found.num_bad_rows, found.num_wrong) == ([14], 1, 0)
    assert found.max_abs == pytest.approx(0.01, rel=1e-3)
    assert [one.num_bad_rows for one in report.layers if one is not found] == [0, 0]
    assert report_of(teacher, cache, Question(num_rows=40, tolerance=0.5)).ok


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_of_a_value_that_is_not_finite_no_finite_excess_is_told(built: Any, teacher: Teacher, value: float) -> None:
    def spoil(arrays: dict[str, Any]) -> None:
        arrays["logits"][1, 0] = value

    cache = changed(built("none"), "logits", 0, spoil)
    found = layer_of(report_of(teacher, cache, Question(num_rows=40)), "logits")
    assert (found.num_nonfinite, found.bad_rows, found.excess) == (1, [1], None)


@pytest.mark.parametrize("field", ["logits", "hidden", "attention"])
def test_rows_in_another_order_are_found(built: Any, teacher: Teacher, field: str) -> None:
    cache = built("1l_3t_0.25h", {"tokens": 3, "score": "left"}, length__score="left")
    cache = changed(cache, field, 2, lambda arrays: take(cache.fields[field], arrays, np.array([1, 0, 2, 3])))
    report = report_of(teacher, cache, Question(num_rows=40))
    bad = {row for one in report.layers if one.field == field for row in one.bad_rows}
    assert bad == {8, 9}
    assert not any(one.num_bad_rows for one in report.layers if one.field != field)


@pytest.mark.parametrize("field", ["hidden", "attention"])
def test_another_layer_is_found(built: Any, teacher: Teacher, field: str) -> None:
    def swap(arrays: dict[str, Any]) -> dict[str, Any]:
        names = {"layer_02": "layer_04", "layer_04": "layer_02"}
        return {
            "/".join([names.get(name.split("/")[0], name.split("/")[0]), *name.split("/")[1:]]): array
            for name, array in arrays.items()
        }

    cache = changed(built("2l_4t", {"tokens": 4, "score": "left"}, encoding="int8"), field, 0, swap)
    report = report_of(teacher, cache, Question(num_rows=40))
    for layer in (2, 4):
        assert set(layer_of(report, field, layer).bad_rows) == {0, 1, 2, 3}


@pytest.mark.parametrize("encoding", ["int8", "int4"])
@pytest.mark.parametrize("field", ["hidden", "attention"])
def test_another_scale_of_one_vector_is_found(built: Any, teacher: Teacher, field: str, encoding: str) -> None:
    def stretch(arrays: dict[str, Any]) -> None:
        arrays["layer_04/scales"][0] *= 1.5

    cache = changed(built("1l_4t", {"tokens": 4}, encoding=encoding), field, 5, stretch)
    report = report_of(teacher, cache, Question(num_rows=40))
    assert layer_of(report, field, 4).bad_rows == [20]


def test_values_that_are_not_finite_are_counted_and_fail(built: Any, teacher: Teacher) -> None:
    def spoil(arrays: dict[str, Any]) -> None:
        arrays["logits"][1] = np.nan, np.inf

    cache = changed(built("none"), "logits", 0, spoil)
    found = layer_of(report_of(teacher, cache, Question(num_rows=40)), "logits")
    assert (found.num_nonfinite, found.bad_rows, found.excess) == (2, [1], None)
    assert found.max_abs < 1e-4


def test_positions_chosen_by_another_score_are_found_though_their_values_are_right(
    built: Any, teacher: Teacher
) -> None:
    cache, left = built("1l_4t"), built("1l_4t", length__score="left")
    for shard in range(10):
        cache = changed(cache, "hidden", shard, lambda _arrays, number=shard: left.read("hidden", number))
    found = layer_of(report_of(teacher, cache), "hidden", 4)
    assert found.excess is not None
    assert found.excess <= 1
    assert found.num_wrong == found.num_bad_rows > 6
    assert found.same_positions is not None
    assert found.same_positions < 0.9


def test_columns_that_are_not_the_largest_are_found_though_their_values_are_right(built: Any, teacher: Teacher) -> None:
    cache, every = built("1l_4t_0.25h"), built("1l_4t")

    def first_columns(arrays: dict[str, Any]) -> None:
        arrays["layer_04/values"] = every.read("hidden", 1)["layer_04/values"][:, :8].copy()
        arrays["layer_04/bitmask"] = np.full_like(arrays["layer_04/bitmask"], 0) + np.array([255, 0, 0, 0], np.uint8)

    cache = changed(cache, "hidden", 1, first_columns)
    found = layer_of(report_of(teacher, cache, Question(num_rows=40)), "hidden", 4)
    assert sorted(found.bad_rows) == [4, 5, 6, 7]
    assert (found.num_wrong, found.same_positions) == (4, 1)
    assert found.excess is not None
    assert found.excess <= 1
    assert found.same_columns is not None
    assert found.same_columns < 1


def test_a_position_kept_twice_is_found(built: Any, teacher: Teacher) -> None:
    def repeat(arrays: dict[str, Any]) -> None:
        for part in ("positions", "values"):
            arrays[f"layer_04/{part}"][1] = arrays[f"layer_04/{part}"][0]

    cache = changed(built("1l_4t"), "hidden", 0, repeat)
    assert layer_of(report_of(teacher, cache, Question(num_rows=40)), "hidden", 4).bad_rows == [0]


def test_a_position_kept_once_more_is_found(built: Any, teacher: Teacher) -> None:
    def repeat(arrays: dict[str, Any]) -> dict[str, Any]:
        longer = {
            f"layer_04/{part}": np.insert(arrays[f"layer_04/{part}"], 4, arrays[f"layer_04/{part}"][0], 0)
            for part in ("positions", "values")
        }
        return longer | {"position_offsets": arrays["position_offsets"] + np.array([0, 1, 1, 1, 1])}

    cache = changed(built("1l_4t"), "hidden", 0, repeat)
    assert layer_of(report_of(teacher, cache, Question(num_rows=40)), "hidden", 4).bad_rows == [0]


@pytest.mark.parametrize("score", ["attention", "left", "random"])
@pytest.mark.parametrize("field", ["hidden", "attention"])
def test_positions_that_are_not_best_first_are_found_though_they_are_the_best(
    built: Any, teacher: Teacher, field: str, score: str
) -> None:
    """Whoever learns from the first of them alone would learn from others."""

    def reverse(arrays: dict[str, Any]) -> None:
        begin, end = arrays["position_offsets"][2:4]
        arrays["layer_04/positions"][begin:end] = arrays["layer_04/positions"][begin:end][::-1]
        if field == "hidden":
            arrays["layer_04/values"][begin:end] = arrays["layer_04/values"][begin:end][::-1]
        else:
            scores = arrays["layer_04/values"].reshape(4, 4, 3, 3)
            scores[2] = scores[2, :, ::-1, ::-1].copy()

    cache = built("1l_3t", {"tokens": 3, "score": score}, length__score=score)
    found = layer_of(report_of(teacher, changed(cache, field, 1, reverse), Question(num_rows=40)), field, 4)
    assert (found.bad_rows, found.num_wrong, found.same_positions) == ([6], 1, 1)
    assert found.excess is not None
    assert found.excess <= 1


def test_special_tokens_that_were_not_to_be_kept_are_found(built: Any, teacher: Teacher) -> None:
    cache, free = built("1l_4t", length__specials=False), built("1l_4t")
    for shard in range(10):
        cache = changed(cache, "hidden", shard, lambda _arrays, number=shard: free.read("hidden", number))
    last = {
        row
        for row in range(40)
        if len(free.row(row)["input_ids"]) - 1 in free.row(row)["hidden"][4]["positions"].tolist()
    }
    assert 0 < len(last) < 40
    found = layer_of(report_of(teacher, cache, Question(num_rows=40)), "hidden", 4)
    assert (found.num_wrong, found.num_bad_rows) == (len(last), len(last))
    assert set(found.bad_rows) <= last


def test_positions_beyond_their_row_are_damage(built: Any, teacher: Teacher) -> None:
    cache = built("1l_4t")
    arrays = cache.read("hidden", 0)
    arrays["layer_04/positions"][2] = 40
    Ledger(cache.root).commit("hidden", 0, cache.shards[0], arrays)
    Ledger(cache.root).finish(cache.manifest.request, cache.fields, {})
    with pytest.raises(DamageError, match="layer_04/positions points beyond the end of its row"):
        report_of(teacher, open_cache(cache.root), Question(num_rows=40))
