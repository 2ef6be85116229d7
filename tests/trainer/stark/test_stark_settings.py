"""What a run over levels of sparsity is asked for with."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import recipe_of

from hskcache.errors import SpecError
from trainer.recipe import load_recipe
from trainer.stark.settings import (
    DENSE,
    KNOWLEDGE,
    OTHERS,
    Level,
    level_of,
    levels_of,
    parse_methods,
    parse_percents,
    soft_temperature,
)

SOFT: dict[str, Any] = {"epochs": 1, "losses": {"soft": {"temperature": 3.0}}}


def test_level_0_is_always_one() -> None:
    assert parse_percents("10,20,...,40") == (0, 10, 20, 30, 40)
    assert parse_percents("0,10") == (0, 10)


def test_levels_above_0_are_trained_method_by_method_and_the_dense_one_once() -> None:
    found = levels_of((0, 10, 30), ("random", "plain"))
    assert [level.folder for level in found] == ["s10", "s30", "random-s10", "random-s30", "plain-s10", "plain-s30"]
    assert [level.field for level in found] == [level.folder for level in found]
    assert (DENSE.folder, DENSE.field) == ("s0", "logits")
    assert levels_of((0,), ("random",)) == ()


@given(st.sampled_from((KNOWLEDGE, *OTHERS)), st.integers(0, 99))
def test_a_folder_tells_its_level(method: str, percent: int) -> None:
    level = Level(method, percent)
    assert level_of(level.folder) == level


@pytest.mark.parametrize("name", ["s", "s100", "s1.tmp", "chance-s10", "plain-", "students", "-s10"])
def test_other_folders_are_no_level(name: str) -> None:
    assert level_of(name) is None


def test_methods_are_read_in_order() -> None:
    assert parse_methods("random,plain") == ("random", "plain")
    assert parse_methods("") == ()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("chance", "'chance' is no way to rank"), ("plain,plain", "plain twice"), ("plain,", "'' is no way"), (",", "''")],
)
def test_methods_that_are_none_are_refused(text: str, complaint: str) -> None:
    with pytest.raises(SpecError, match=complaint):
        parse_methods(text)


def test_the_temperature_is_that_of_the_last_stage_with_logits() -> None:
    assert soft_temperature(load_recipe("stark")) == 2.0
    assert soft_temperature(load_recipe("logits")) == 1.0
    labels = {"epochs": 1, "losses": {"label": {}}}
    first = {"epochs": 1, "losses": {"soft": {"temperature": 5.0}, "label": {}}}
    assert soft_temperature(recipe_of(first=first, second=SOFT, third=labels)) == 3.0


@pytest.mark.parametrize(
    ("losses", "complaint"),
    [
        ({"hidden": {}}, "learns from hidden states"),
        ({"soft": {}, "embedding": {}}, "learns from hidden states"),
        ({"soft": {}, "attention": {}}, "learns from attention"),
        ({"label": {}}, "every teacher would give the same student"),
    ],
)
def test_a_recipe_of_anything_but_logits_and_labels_is_refused(losses: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SpecError, match=complaint):
        soft_temperature(recipe_of(only={"epochs": 1, "losses": losses}))
