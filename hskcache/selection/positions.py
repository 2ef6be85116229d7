"""Number of positions that are kept of rows; which they are, is in ``length``."""

import numpy as np
from numpy.typing import NDArray

from hskcache.spec import Length


def num_positions(length: Length, eligible_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """K of the positions of each row that may be kept, int64 [N].

    A share is rounded, halves to even, and at least 1; of a row of which no position may be kept none is.
    """
    if length.is_whole:
        return eligible_N
    if length.tokens is not None:
        # A number that no integer of 64 bits holds is as good as any that no row reaches.
        return np.minimum(eligible_N, min(length.tokens, np.iinfo(np.int64).max))
    assert length.share is not None
    rounded: NDArray[np.int64] = np.rint(length.share * eligible_N).astype(np.int64)
    return np.minimum(np.maximum(rounded, 1), eligible_N)
