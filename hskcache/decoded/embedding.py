"""Embeddings as vectors: one a row, an entry a column."""

import numpy as np
import torch
from numpy.typing import NDArray

from hskcache.decoded.abc import DecodedKind, LayerRows, Stored, Vectors, each, tensor_of
from hskcache.encoded import ENCODED
from hskcache.encoding import get_encoding
from hskcache.store.kinds.embedding import EmbeddingField


class DecodedEmbedding(DecodedKind[EmbeddingField]):
    """Decoded values."""

    def vectors(self, field: EmbeddingField, part: LayerRows) -> Vectors:
        """A vector a row."""
        stored = {name: tensor_of(part.arrays[name]) for name in ENCODED[field.encoding].of(field.num_dims)}
        values = get_encoding(field.encoding).decode(stored, field.num_dims)
        zeros = torch.zeros(len(values), dtype=torch.int64)
        return Vectors(torch.arange(len(values)), zeros, zeros, values, each(values))

    def num_values(self, field: EmbeddingField, arrays: Stored) -> NDArray[np.int64]:
        """W a row."""
        return np.full(len(arrays["values"]), field.num_dims)
