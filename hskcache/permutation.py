"""Permutations that a seed gives everywhere: of raw bits, whose streams numpy promises, and of nothing else of it.

What ``numpy.random.Generator`` makes of the bits, ``permutation`` and ``shuffle`` included, may change with any version
of numpy [NEP 19]; the bits of Philox and the order of distinct integers may not.
"""

import numpy as np
from numpy.typing import NDArray

_BITS = 64
_WORD = (1 << _BITS) - 1


def permutation(num: int, seed: int, *purpose: int) -> NDArray[np.int64]:
    """The numbers 0 to ``num`` in an order that depends on the arguments alone, int64 [num].

    Each number has a random key above it in one word, and the words are sorted: no two are equal, so that every way of
    sorting gives the same. Of ten million numbers 40 bits are left for the keys, and a tie, which goes to the lower
    number, is one pair in a million. ``num``: how many; below 2**32, so that keys have as many bits at least. ``seed``:
    any integer, taken modulo 2**64. ``purpose``: up to three numbers from 0, such as an epoch, each of which has
    permutations of its own.
    """
    assert num < 1 << _BITS // 2
    assert len(purpose) <= 3
    # Philox counts in four words: the lowest one is for the numbers, the others say what they are for.
    counter = sum(word << _BITS * place for place, word in enumerate(purpose, start=1))
    words = np.random.Philox(key=seed & _WORD, counter=counter).random_raw(num)
    low = np.uint64(max(num - 1, 0).bit_length())
    words >>= low
    words <<= low
    words |= np.arange(num, dtype=np.uint64)
    words.sort()
    words &= (np.uint64(1) << low) - np.uint64(1)
    return words.view(np.int64)
