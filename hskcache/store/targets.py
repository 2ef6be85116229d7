"""Tokens of the rows of a language model that are to be predicted."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def places_of_targets(targets: NDArray[Any] | None, offsets: NDArray[Any]) -> NDArray[np.int64]:
    """Places among all tokens of rows of those that are to be predicted, ascending: int64 [T].

    ``targets``: 1 of each token that is to be predicted; None: all but the first of each row are. ``offsets``: where
    the tokens of each row begin, [N + 1].
    """
    is_target = np.ones(int(offsets[-1]), np.bool_) if targets is None else targets.astype(np.bool_)
    is_target[offsets[:-1][np.diff(offsets) > 0]] = False
    return np.flatnonzero(is_target).astype(np.int64)
