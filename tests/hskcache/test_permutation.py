"""Permutations: what a seed gave once it gives for ever, whatever the version of numpy."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hskcache.permutation import permutation


def test_what_a_seed_gives_never_changes() -> None:
    """Runs go on and students are made again by these numbers; they were also worked out without numpy."""
    assert permutation(10, 0).tolist() == [0, 2, 9, 1, 8, 5, 4, 3, 6, 7]
    assert permutation(12, 5, 1, 0, 7).tolist() == [3, 4, 7, 0, 8, 6, 9, 10, 2, 11, 5, 1]
    assert permutation(1_000_000, 1)[:6].tolist() == [293997, 912910, 960780, 185570, 259753, 660489]


@given(st.integers(0, 300), st.integers(-(2**70), 2**70), st.lists(st.integers(0, 2**64 - 1), max_size=3))
def test_every_number_stands_in_it_once(num: int, seed: int, purpose: list[int]) -> None:
    drawn = permutation(num, seed, *purpose)
    assert drawn.dtype == np.int64
    assert sorted(drawn.tolist()) == list(range(num))


def test_seeds_and_purposes_have_permutations_of_their_own() -> None:
    asked = [(0,), (1,), (0, 1), (0, 0, 1), (0, 0, 0, 1), (0, 1, 1)]
    drawn = [permutation(50, *one).tolist() for one in asked]
    assert len({str(one) for one in drawn}) == len(asked)
    assert permutation(50, 1 << 64, 0).tolist() == drawn[0], "seeds are taken modulo 2**64"


def test_all_orders_are_as_likely() -> None:
    """Of 4! = 24 orders each is drawn about 400 times of 9600."""
    drawn = [tuple(permutation(4, seed).tolist()) for seed in range(9600)]
    counts = [drawn.count(order) for order in set(drawn)]
    assert len(counts) == 24
    assert 300 < min(counts) <= max(counts) < 500
