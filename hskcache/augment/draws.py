"""Random numbers that depend on what they are for alone, so that neither batches nor interruptions change a file."""

import numpy as np
from numpy.typing import NDArray

_BITS = 64
_MODULUS = 1 << _BITS


def draws(seed: int, row: int, column: int, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Two uniform numbers for every copy and word of one text: whether to replace the word, and by what.

    Philox counts: the row and the text's column are the upper words of its counter and the lower one counts copies,
    then words. More copies leave the draws of those before as they are. ``seed``: of the whole file; any integer, taken
    modulo 2**64. ``row``: of the text in its source, counted from 0. ``column``: 0 for the text, 1 for the second text
    of a pair. ``shape``: numbers of copies and of words. Returns float64 in [0, 1), [copies, words, 2].
    """
    generator = np.random.Philox(key=seed % _MODULUS, counter=(column << 2 * _BITS) | (row << _BITS))
    raw = generator.random_raw(2 * shape[0] * shape[1])
    # The upper 53 bits, as many as a float64 holds.
    uniform = (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return uniform.reshape(*shape, 2)
