"""Attention scores as vectors: one a head and query, an entry a key, known by its position."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hskcache.decoded.abc import DecodedKind, Dense, LayerRows, Stored, Vectors, tensor_of
from hskcache.encoded import ENCODED
from hskcache.encoding import get_encoding
from hskcache.store.kinds.attention import MAX_HEADS, AttentionField


class DecodedAttention(DecodedKind[AttentionField]):
    """Decoded scores, padded to the row with the most keys."""

    def vectors(self, field: AttentionField, part: LayerRows) -> Vectors:
        """H vectors a kept position."""
        counts = np.diff(part.arrays["position_offsets"])
        encoding, most = get_encoding(field.encoding), max(1, int(counts.max(initial=0)))
        num_vectors = field.num_heads * counts
        rows = np.repeat(np.arange(len(counts)), num_vectors)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(num_vectors) - num_vectors, num_vectors)
        heads, queries = np.divmod(within, counts[rows])
        # One more position, for slots beyond a row's own to point to.
        positions = np.append(part.arrays["positions"].astype(np.int64), -1)
        begin = (np.cumsum(counts) - counts)[rows]
        keys = _slots(begin, counts[rows], most, len(positions) - 1)
        sizes = np.asarray(ENCODED[field.encoding].entries(counts[rows]))
        stored = np.append(part.arrays["values"], np.zeros(1, part.arrays["values"].dtype))
        place = _slots(np.cumsum(sizes) - sizes, sizes, int(ENCODED[field.encoding].entries(most)), len(stored) - 1)
        encoded = {"values": tensor_of(stored[place])}
        encoded |= {name: tensor_of(part.arrays[name]) for name in ENCODED[field.encoding].beside}
        entries = tensor_of(positions[keys])
        values = encoding.decode(encoded, most).masked_fill(entries < 0, 0.0)
        return Vectors(tensor_of(rows), tensor_of(heads), tensor_of(positions[begin + queries]), values, entries)

    def dense(self, field: AttentionField, part: LayerRows) -> Dense:
        """Scores [H, K, K] of each row, queries and keys in the order of its positions."""
        vectors, counts = self.vectors(field, part), np.diff(part.arrays["position_offsets"])
        values = vectors.values_VE[vectors.entries_VE >= 0].numpy()
        return Dense(values, np.stack([np.full_like(counts, field.num_heads), counts, counts], 1))

    def heads(self, field: AttentionField, vectors: Vectors) -> Tensor:
        """The teacher's heads; of a mean a number that none of them has."""
        of_teacher = [MAX_HEADS] if isinstance(field.heads, str) else field.heads
        return torch.tensor(of_teacher)[vectors.heads_V]

    def are_scores(self, field: AttentionField, width: int) -> bool:
        """True: they are what the softmax is taken of."""
        return True

    def num_values(self, field: AttentionField, arrays: Stored) -> NDArray[np.int64]:
        """An entry for every key up to the last position that is kept."""
        counts: NDArray[np.int64] = np.diff(arrays["position_offsets"])
        longest = max(
            (int(array.max(initial=0)) for name, array in arrays.items() if name.endswith("positions")), default=0
        )
        return counts * field.num_heads * (longest + 1)


def _slots(begin: NDArray[np.int64], counts: NDArray[np.int64], num_slots: int, beyond: int) -> NDArray[np.int64]:
    """Places [V, num_slots] of vectors' entries in a flat array; ``beyond`` where a vector is shorter."""
    slots = np.arange(num_slots)
    return np.where(slots < counts[:, None], begin[:, None] + slots, beyond)
