"""Attention scores as they are built: positions, heads, then the encoding [TinyBERT 3.1]."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hskcache.attention import scores_between
from hskcache.build.kinds.abc import BuiltKind, Encoded, FieldBasis, Size, kept_counts, num_nonfinite
from hskcache.build.positions import PaddedRows, Positions, positions_of
from hskcache.encoded import ENCODED
from hskcache.encoding import get_encoding
from hskcache.ragged import Integers, ragged_index
from hskcache.resolved import attention_field
from hskcache.spec import Spec
from hskcache.store.fields import entry_counts, layer_name
from hskcache.store.kinds.attention import AttentionField, AttentionScores
from hskcache.teacher.capture import Captured, Projected, Wanted
from hskcache.text import TokenizedRows

if TYPE_CHECKING:
    from hskcache.build.job import Job


@dataclass(frozen=True)
class KeptAttention:
    """Attention scores of one layer over a batch between the kept positions of each row, before mask and softmax.

    Attributes:
        positions_BK: kept positions, best first, int64; 0 beyond a row's own.
        valid_BK: which of them are a row's own, bool.
        scores_BHKK: float32, queries before keys; 0 where either is not a row's own.
    """

    positions_BK: Tensor
    valid_BK: Tensor
    scores_BHKK: Tensor


class AttentionSelector:
    """The kept positions and heads of one spec, and the encoding.

    Args:
        field: how it is stored.
        positions: the length dimension.
    """

    name = AttentionScores.name

    def __init__(self, field: AttentionField, positions: Positions) -> None:
        self.field = field
        self.positions = positions

    @property
    def wanted(self) -> Wanted:
        """Query and key of the stored layers, and the scores that choose positions."""
        return Wanted(attention=frozenset(self.field.layers)) | self.positions.wanted

    def select(self, captured: Captured, rows: PaddedRows) -> dict[int, KeptAttention]:
        """Kept scores of every stored layer."""
        chosen = self.positions.choose(captured, rows)
        counts = torch.from_numpy(rows.kept_B[self.name]).to(rows.input_ids_BL.device, non_blocking=True)
        by_layer = {}
        for layer in self.field.layers:
            positions_BK = chosen[layer]
            valid_BK = torch.arange(positions_BK.shape[1], device=counts.device) < counts.unsqueeze(-1)
            scores = self._scores(captured.attention[layer], positions_BK)
            pairs_BKK = valid_BK.unsqueeze(2) & valid_BK.unsqueeze(1)
            by_layer[layer] = KeptAttention(positions_BK, valid_BK, scores.masked_fill(~pairs_BKK.unsqueeze(1), 0.0))
        return by_layer

    def encode(self, kept: KeptAttention, rows: PaddedRows) -> Encoded:
        """Positions, values and scales of one layer, the padding of the batch taken out."""
        encoding = get_encoding(self.field.encoding)
        padded = encoding.encode(kept.scores_BHKK)
        kept_B, slots = rows.kept_B[self.name], kept.positions_BK.shape[1]
        device = kept.positions_BK.device
        place = ragged_index(np.arange(len(kept_B)) * slots, kept_B, device)
        arrays = {"positions": kept.positions_BK.reshape(-1).index_select(0, place).to(torch.int16)}
        for part in ENCODED[self.field.encoding].beside:
            begin, counts, _ = self._vectors(kept_B, slots)
            arrays[part] = padded[part].reshape(-1).index_select(0, ragged_index(begin, counts, device))
        arrays["values"] = self._flat(padded["values"], kept_B)
        return Encoded(arrays, num_nonfinite(encoding.decode(padded, slots).flatten(1)))

    def _scores(self, projected: Projected, positions_BK: Tensor) -> Tensor:
        """Scores [B, H, K, K] of the kept heads, float32."""
        query, key, scaling = projected.query_BHLd.float(), projected.key_BHLd.float(), projected.scaling
        length = self.positions.length
        every = positions_BK if not length.is_whole or not length.specials or length.targets else None
        if self.field.heads == "mean":
            # The mean of the heads' products is one product of all heads side by side.
            scaling = scaling / query.shape[1]
            query, key = (side.transpose(1, 2).flatten(2).unsqueeze(1) for side in (query, key))
        elif len(self.field.heads) < query.shape[1] or self.field.heads != sorted(self.field.heads):
            heads = torch.tensor(self.field.heads, device=query.device)
            query, key = query.index_select(1, heads), key.index_select(1, heads)
        return scores_between(query, key, every, scaling)

    def _vectors(self, kept_B: Integers, slots: int) -> tuple[Integers, Integers, Integers]:
        """Runs of neighbouring vectors of a [B, H, slots] table that are kept: (begin, count), and their row."""
        row = np.repeat(np.arange(len(kept_B)), self.field.num_heads)
        return np.arange(len(row)) * slots, kept_B[row], row

    def _flat(self, values_BHKE: Tensor, kept_B: Integers) -> Tensor:
        """Encoded vectors one after the other, each as long as its row has keys."""
        entries, slots = values_BHKE.shape[-1], values_BHKE.shape[2]
        begin, counts, row = self._vectors(kept_B, slots)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        vectors = np.repeat(begin, counts) + within
        sizes = ENCODED[self.field.encoding].entries(kept_B[np.repeat(row, counts)])
        flat = values_BHKE.reshape(-1)
        if len(sizes) * entries == len(flat) and int(sizes.min()) == entries:
            return flat
        return flat.index_select(0, ragged_index(vectors * entries, sizes, flat.device))


class BuiltAttention(BuiltKind[AttentionField]):
    """Building of the layers, positions and heads that the spec names."""

    def field(self, asked: FieldBasis) -> AttentionField | None:
        """Field of the layers and heads that the spec names."""
        return None if asked.spec.attention is None else attention_field(asked.spec.attention, asked.teacher)

    def size(self, field: AttentionField, spec: Spec, rows: TokenizedRows) -> Size:
        """Size of the scores of all pairs of positions, head by head and layer by layer."""
        assert spec.attention is not None
        kept_N = kept_counts(spec.attention.length, rows)
        return Size(attention_bytes(field, kept_N) + 8, 1 + 4 * len(field.layers), kept_N)

    def wanted(self, field: AttentionField, asked: FieldBasis) -> Wanted:
        """Query and key of the stored layers, and the scores that choose positions."""
        assert asked.spec.attention is not None
        positions = positions_of(asked.spec.attention, field.layers, asked.teacher.num_layers, frozenset())
        return Wanted(attention=frozenset(field.layers)) | positions.wanted

    def selector(self, job: "Job", field: AttentionField, constants: Mapping[str, NDArray[Any]]) -> AttentionSelector:
        """Positions and heads of the spec."""
        attention = job.spec.attention
        assert attention is not None
        positions = positions_of(attention, field.layers, job.teacher.info.num_layers, job.rows.special_ids)
        return AttentionSelector(field, positions)


def attention_bytes(field: AttentionField, kept_N: Integers) -> Integers:
    """Bytes of each row before compression, all layers together: positions, scales and scores."""
    sizes = 2 * kept_N
    for name, part in ENCODED[field.encoding].of(1).items():
        array = f"{layer_name(field.layers[0])}/{name}"
        sizes = sizes + np.dtype(part.dtype).itemsize * entry_counts(field, array, kept_N)
    return len(field.layers) * sizes
