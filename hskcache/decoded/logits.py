"""Logits as vectors: one a row, or one a word, an entry a class."""

import numpy as np
import torch
from numpy.typing import NDArray

from hskcache.decoded.abc import DecodedKind, Dense, LayerRows, Stored, Vectors, each, tensor_of
from hskcache.ragged import ragged_places
from hskcache.store.kinds.logits import LogitsField


class DecodedLogits(DecodedKind[LogitsField]):
    """Stored as they are."""

    def vectors(self, field: LogitsField, part: LayerRows) -> Vectors:
        """A vector a row; of words the position is the number of the word among those of its row."""
        logits = tensor_of(part.arrays[field.array])
        zeros = torch.zeros(len(logits), dtype=torch.int64)
        if not field.of_words:
            return Vectors(torch.arange(len(logits)), zeros, zeros, logits, each(logits))
        counts = np.diff(part.arrays["position_offsets"])
        rows = torch.from_numpy(np.repeat(np.arange(len(counts)), counts))
        words = torch.from_numpy(ragged_places(np.zeros_like(counts), counts))
        return Vectors(rows, zeros, words, logits, each(logits))

    def dense(self, field: LogitsField, part: LayerRows) -> Dense:
        """Values of each row; of words a table, a word a line."""
        dense = super().dense(field, part)
        if not field.of_words:
            return dense
        counts = np.diff(part.arrays["position_offsets"])
        return Dense(dense.values, np.stack([counts, np.full_like(counts, field.num_labels)], 1))

    def are_scores(self, field: LogitsField, width: int) -> bool:
        """True of several classes; one is a score of its own."""
        return width > 1

    def num_values(self, field: LogitsField, arrays: Stored) -> NDArray[np.int64]:
        """C a row, or a word."""
        if field.of_words:
            return np.diff(arrays["position_offsets"]) * field.num_labels
        return np.full(len(arrays["logits"]), field.num_labels)
