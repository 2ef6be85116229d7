"""Hidden states as vectors: one a kept position, an entry a column or a component."""

from typing import assert_never

import numpy as np
import torch
from numpy.typing import NDArray

from hskcache.decoded.abc import DecodedKind, Dense, LayerRows, Stored, Vectors, each, tensor_of
from hskcache.encoded import ENCODED
from hskcache.encoding import get_encoding
from hskcache.encoding.bitmask import unpack_columns
from hskcache.store.kinds.hidden import HiddenField


class DecodedHidden(DecodedKind[HiddenField]):
    """Decoded values, with the columns that they are of."""

    def vectors(self, field: HiddenField, part: LayerRows) -> Vectors:
        """A vector a kept position."""
        counts = np.diff(part.arrays["position_offsets"])
        encoding = get_encoding(field.encoding)
        stored = {name: tensor_of(part.arrays[name]) for name in ENCODED[field.encoding].of(field.num_columns)}
        values = encoding.decode(stored, field.num_columns)
        match field.columns:
            case "bitmask":
                entries = unpack_columns(tensor_of(part.arrays["bitmask"]), field.num_columns, field.width)
            case "indices":
                entries = tensor_of(part.arrays["columns"].astype(np.int64))
            case "shared":
                entries = tensor_of(part.constants["columns"].astype(np.int64)).expand(values.shape)
            case "all" | "pca":
                entries = each(values)
            case unknown:
                assert_never(unknown)
        rows = tensor_of(np.repeat(np.arange(len(counts)), counts))
        return Vectors(
            rows, torch.zeros_like(rows), tensor_of(part.arrays["positions"].astype(np.int64)), values, entries
        )

    def reconstructed(self, field: HiddenField, vectors: Vectors, part: LayerRows) -> Vectors:
        """Vectors whose coordinates along principal components have become columns again; others as they are."""
        if field.columns != "pca":
            return vectors
        mean, basis = (tensor_of(part.constants[name]) for name in ("mean", "basis"))
        states = vectors.values_VE @ basis + mean
        return vectors._replace(values_VE=states, entries_VE=each(states))

    def dense(self, field: HiddenField, part: LayerRows) -> Dense:
        """States [K, D] of each row; a column that is not kept is 0, as where a student learns from it."""
        vectors = self.reconstructed(field, self.vectors(field, part), part)
        values = vectors.values_VE
        if field.columns not in {"all", "pca"}:
            values = torch.zeros(len(values), field.width).scatter_(1, vectors.entries_VE, values)
        counts = np.diff(part.arrays["position_offsets"])
        return Dense(values.numpy().reshape(-1), np.stack([counts, np.full_like(counts, field.width)], 1))

    def num_values(self, field: HiddenField, arrays: Stored) -> NDArray[np.int64]:
        """D a kept position."""
        counts: NDArray[np.int64] = np.diff(arrays["position_offsets"])
        return counts * field.width
