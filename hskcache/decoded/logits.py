"""Logits as vectors: one a row, an entry a class."""

import numpy as np
import torch
from numpy.typing import NDArray

from hskcache.decoded.abc import DecodedKind, LayerRows, Stored, Vectors, each, tensor_of
from hskcache.store.kinds.logits import LogitsField


class DecodedLogits(DecodedKind[LogitsField]):
    """Stored as they are."""

    def vectors(self, field: LogitsField, part: LayerRows) -> Vectors:
        """A vector a row."""
        logits = tensor_of(part.arrays["logits"])
        zeros = torch.zeros(len(logits), dtype=torch.int64)
        return Vectors(torch.arange(len(logits)), zeros, zeros, logits, each(logits))

    def are_scores(self, width: int) -> bool:
        """True of several classes; one is a score of its own."""
        return width > 1

    def num_values(self, field: LogitsField, arrays: Stored) -> NDArray[np.int64]:
        """C a row."""
        return np.full(len(arrays["logits"]), field.num_labels)
