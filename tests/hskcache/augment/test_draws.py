"""Draws depend on seed, row, column, copy and word alone."""

import numpy as np

from hskcache.augment.draws import draws


def test_draws_are_uniform_and_the_two_of_a_word_are_independent() -> None:
    pairs = np.concatenate([draws(3, row, 0, (20, 10)).reshape(-1, 2) for row in range(200)])
    assert pairs.min() >= 0
    assert pairs.max() < 1
    for column in pairs.T:
        assert np.abs(np.histogram(column, 10, (0, 1))[0] / len(pairs) - 0.1).max() < 0.01
    assert abs(np.corrcoef(pairs.T)[0, 1]) < 0.02


def test_each_coordinate_changes_all_draws() -> None:
    base = draws(0, 5, 0, (4, 6))
    others = [draws(1, 5, 0, (4, 6)), draws(0, 6, 0, (4, 6)), draws(0, 5, 1, (4, 6)), draws(0, 5 << 32, 0, (4, 6))]
    assert all(not np.intersect1d(base, other).size for other in others)
    assert len(np.unique(base)) == base.size


def test_more_copies_leave_those_before_as_they_are() -> None:
    assert np.array_equal(draws(0, 5, 1, (30, 7))[:10], draws(0, 5, 1, (10, 7)))


def philox(counter: list[int], key: int) -> list[int]:
    """Philox4x64-10 as Salmon et al. (SC 2011) define it, in Python's integers."""
    keys, mask = [key, 0], (1 << 64) - 1
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * counter[0], 0xCA5A826395121157 * counter[2]
        counter = [
            (second >> 64) ^ counter[1] ^ keys[0],
            second & mask,
            (first >> 64) ^ counter[3] ^ keys[1],
            first & mask,
        ]
        keys = [(keys[0] + 0x9E3779B97F4A7C15) & mask, (keys[1] + 0xBB67AE8584CAA73B) & mask]
    return counter


def test_the_numbers_are_those_of_the_published_generator() -> None:
    """So a file that is gone on with under another numpy stays one file; the first block has the counter 1."""
    assert philox([0, 0, 0, 0], 0)[0] == 0x16554D9ECA36314C
    for seed, row, column in ((0, 0, 0), (-1, 2, 1), (7, 1 << 40, 0)):
        raw = philox([1, row, column, 0], seed % (1 << 64)) + philox([2, row, column, 0], seed % (1 << 64))
        expected = [(number >> 11) / 2**53 for number in raw]
        assert draws(seed, row, column, (2, 2)).reshape(-1).tolist() == expected


def test_a_text_without_words_has_no_draws() -> None:
    assert draws(0, 0, 0, (3, 0)).shape == (3, 0, 2)
