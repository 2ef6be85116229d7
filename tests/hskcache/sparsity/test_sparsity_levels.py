"""Levels: exact counts, a global ranking with ties, the short form of --sparsity, and the bounds of a balance."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hskcache.errors import SpecError
from hskcache.sparsity.levels import Importance, check_balance, kept_at, level_name, num_removed, parse_levels

LEVELS = tuple(range(0, 100, 10))


def ranked(heads: object, neurons: object = ((0.0,),)) -> Importance:
    return Importance(np.asarray(heads, np.float64), np.asarray(neurons, np.float64))


def test_bert_base_loses_so_many_heads_and_neurons() -> None:
    assert [num_removed(12 * 12, level) for level in LEVELS] == [0, 14, 29, 43, 58, 72, 86, 101, 115, 130]
    neurons = [0, 3686, 7373, 11059, 14746, 18432, 22118, 25805, 29491, 33178]
    assert [num_removed(12 * 3072, level) for level in LEVELS] == neurons


def test_halves_are_rounded_to_even() -> None:
    assert [num_removed(10, percent) for percent in (5, 15, 25, 35, 45)] == [0, 2, 2, 4, 4]
    # 0.29 * 50 is 14.499999999999998 in floating point; exactly it is 14.5.
    assert num_removed(50, 29) == 14
    assert num_removed(50, 31) == 16


def test_the_lowest_of_all_layers_go_and_heads_and_neurons_apart() -> None:
    kept = kept_at(ranked([[0.9, 0.8], [0.1, 0.2]], [[5, 1, 2], [4, 3, 6]]), 50)
    assert kept.heads_LH.tolist() == [[True, True], [False, False]]
    assert kept.neurons_LF.tolist() == [[True, False, False], [True, False, True]]


def test_of_equals_the_first_stay() -> None:
    kept = kept_at(ranked(np.ones((2, 5)), [[1, 0, 1], [0, 0, 1]]), 30)
    assert kept.heads_LH.tolist() == [[True] * 5, [True, True, False, False, False]]
    # Two of six go: the last two of the three zeros.
    assert kept.neurons_LF.tolist() == [[True, True, True], [False, False, True]]


@given(
    arrays(
        np.float64, st.tuples(st.integers(1, 4), st.integers(1, 6)), elements=st.sampled_from([0.0, -0.0, 0.5, 1.0])
    ),
    st.integers(0, 99),
    st.integers(0, 99),
)
def test_levels_are_nested_and_of_the_exact_size(values: np.ndarray, one: int, other: int) -> None:
    low, high = (kept_at(ranked(values, values.T), percent) for percent in sorted((one, other)))
    for name in ("heads_LH", "neurons_LF"):
        assert not (getattr(high, name) & ~getattr(low, name)).any()
    assert (~low.heads_LH).sum() == (~low.neurons_LF).sum() == num_removed(values.size, min(one, other))
    removed, kept = values[~low.heads_LH], values[low.heads_LH]
    assert not removed.size or not kept.size or removed.max() <= kept.min()


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        ("0", (0,)),
        ("30", (30,)),
        ("0,10,30", (0, 10, 30)),
        ("0,10,...,90", LEVELS),
        ("5,...,9", None),
        ("0,99", (0, 99)),
        ("0,5,...,20,50", (0, 5, 10, 15, 20, 50)),
        ("0,10,...,20", (0, 10, 20)),
        ("0,1,...,3,10,20,...,40", (0, 1, 2, 3, 10, 20, 30, 40)),
        ("0,10,...,95", None),
        ("0,10,...,10", None),
        ("0,10,...", None),
        ("...,90", None),
        ("0,10,...,...,90", None),
        ("10,0,...,90", None),
        ("30,10", None),
        ("10,10", None),
        ("100", None),
        ("-1", None),
        ("1.5", None),
        ("", None),
        ("0,,1", None),
        ("0,10%", None),
        ("٣", None),
    ],
)
def test_the_short_form_of_levels(text: str, levels: tuple[int, ...] | None) -> None:
    if levels is not None:
        assert parse_levels(text) == levels
        return
    with pytest.raises(SpecError) as error:
        parse_levels(text)
    assert str(error.value).startswith(f"--sparsity {text!r}: ")
    assert "\n" not in str(error.value)


def test_a_level_has_the_name_of_a_field() -> None:
    assert [level_name(percent) for percent in (0, 30)] == ["s0", "s30"]


def test_a_balance_is_from_0_to_1() -> None:
    for balance in (0.0, -0.0, 5e-324, 0.5, 1.0):
        check_balance(balance)
    for balance in (-5e-324, np.nextafter(1.0, 2.0), float("nan"), float("inf"), -float("inf")):
        with pytest.raises(SpecError, match=r"^--lambda .* is not a number from 0 to 1; [^\n]*$"):
            check_balance(balance, "--lambda")


def test_ranking_needs_no_torch() -> None:
    script = "import sys; sys.modules['torch'] = sys.modules['transformers'] = None; import hskcache.sparsity.levels"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True).returncode == 0
