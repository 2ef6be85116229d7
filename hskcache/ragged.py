"""Flat arrays whose rows have different numbers of entries, indexed on the device without asking it anything."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Integers = NDArray[np.int64]


def starts_of(counts: Integers) -> Integers:
    """Offsets [n + 1] of rows that have ``counts`` [n] entries each."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def ragged_places(begin: Integers, counts: Integers) -> Integers:
    """Places of the entries of some rows in a flat array, on the host: ``begin[i] ... begin[i] + counts[i]``."""
    return np.repeat(begin - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())


def ragged_index(begin: Integers, counts: Integers, device: "torch.device") -> "Tensor":
    """Places of the entries of some rows in a flat array: ``begin[i] ... begin[i] + counts[i]``, row after row."""
    # Texts are read without torch, and count their words here, too.
    import torch

    total = int(counts.sum())
    shift = begin - (np.cumsum(counts) - counts)
    table = torch.from_numpy(np.stack([counts, shift])).to(device, non_blocking=True)
    # The size is known on the host; without it the device would have to be asked.
    return torch.repeat_interleave(table[1], table[0], output_size=total) + torch.arange(total, device=device)
