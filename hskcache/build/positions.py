"""Positions of each row of a captured batch that are kept: the length dimension, for whatever is kept of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

import numpy as np
import torch
from torch import Tensor

from hskcache.ragged import Integers
from hskcache.selection.depth import top_layer
from hskcache.selection.length import cls_eligible, eligible_BL, top_positions
from hskcache.selection.positions import num_positions
from hskcache.selection.scores import SCORED, AttentionScore, NextScore, Scored
from hskcache.spec import SCORES, Kept, Length, ScoreLayer
from hskcache.teacher.capture import Captured, Wanted


@dataclass(frozen=True)
class PaddedRows:
    """A padded batch as the selection sees it, on the teacher's device.

    Attributes:
        input_ids_BL: token ids, int64.
        valid_BL: True where a token is real, False on padding.
        row_ids_B: row of the data set, int64.
        kept_B: by field, positions kept of each row, on the host: shapes are known without asking the device.
        first_pieces_P: places of the words' first pieces in the flattened batch, int64; None where rows are texts.
        next_P: places in the flattened batch of the tokens whose next one is a target, int64; None where no kind asks.
    """

    input_ids_BL: Tensor
    valid_BL: Tensor
    row_ids_B: Tensor
    kept_B: dict[str, Integers]
    first_pieces_P: Tensor | None = None
    next_P: Tensor | None = None


def score_layer(layer: int, last: int, which: ScoreLayer) -> int:
    """Attention layer (0-based) that scores the positions of a hidden layer [MUD 3.2].

    ``producing`` is the attention inside the layer that produced the states; the embedding output, which no
    attention produced, takes that of the first layer. ``last`` and ``mapped`` are the attention inside one layer for
    all: the teacher's last, or the last that the map leads to.
    """
    match which:
        case "last" | "mapped":
            return last - 1
        case "producing":
            return max(layer - 1, 0)
        case _:
            assert_never(which)


class Positions:
    """The length dimension of one field.

    Args:
        length: how positions are chosen.
        layers: teacher layers of the field; None alone of a kind without layers.
        last: the layer, counted from 1, whose attention scores the positions of all where ``length`` asks for one.
        special_ids: ids of the tokens that mark structure.
    """

    def __init__(self, length: Length, layers: Sequence[int | None], last: int, special_ids: frozenset[int]) -> None:
        self.length = length
        self._scored = SCORED["left" if length.is_whole else length.score]
        is_of_layers = isinstance(self._scored, AttentionScore)
        self.sources = {
            layer: score_layer(layer or 0, last, length.score_layer) if is_of_layers else None for layer in layers
        }
        self.special_ids = torch.tensor(sorted(special_ids), dtype=torch.int64)

    @property
    def wanted(self) -> Wanted:
        """Scores that must be captured, by name: those of attention layers, and those by the next token."""
        score = self.length.score
        return Wanted(
            scores=frozenset((score, source) for source in self.sources.values() if source is not None),
            final=self.length.targets,
            next=frozenset({score} if isinstance(self._scored, NextScore) else ()),
        )

    def choose(self, captured: Captured, rows: PaddedRows) -> dict[int | None, Tensor]:
        """Kept positions of every layer, best first, int64 [B, K]; whatever stands beyond a row's own says nothing."""
        eligible, most = self.eligible(rows), None
        if not self.length.is_whole:
            most = int(num_positions(self.length, np.array(rows.input_ids_BL.shape[1:])).max())
        by_source = {
            source: top_positions(self._scores(captured, source, rows), eligible, most)[0]
            for source in set(self.sources.values())
        }
        return {layer: by_source[source] for layer, source in self.sources.items()}

    def eligible(self, rows: PaddedRows) -> Tensor:
        """Positions that may be kept, bool [B, L]."""
        if SCORES[self.length.score].first_alone:
            return cls_eligible(rows.valid_BL)
        special, valid = None, rows.valid_BL
        if not self.length.specials:
            special = torch.isin(rows.input_ids_BL, self.special_ids.to(rows.input_ids_BL.device))
        if self.length.targets:
            assert rows.next_P is not None
            valid = torch.zeros_like(valid).flatten().index_fill_(0, rows.next_P, True).view(valid.shape)
        return eligible_BL(valid, special)

    def _scores(self, captured: Captured, source: int | None, rows: PaddedRows) -> Tensor:
        scored = self._scored
        if isinstance(scored, AttentionScore | NextScore):
            return captured.scores[self.length.score, source]
        return scored.of(Scored(rows.input_ids_BL, rows.row_ids_B, self.length.seed))


def owners(counts: Integers, device: torch.device) -> Tensor:
    """The row that each entry belongs to, int64 [sum of counts]."""
    return torch.from_numpy(np.repeat(np.arange(len(counts)), counts)).to(device, non_blocking=True)


def positions_of(kept: Kept, layers: list[int], num_layers: int, special_ids: frozenset[int]) -> Positions:
    """The length dimension of what a spec keeps of a kind.

    Args:
        kept: what it says of the kind.
        layers: teacher layers that are stored.
        num_layers: of the teacher.
        special_ids: ids of the tokens that mark structure.
    """
    last = top_layer(kept.depth, num_layers) if kept.length.score_layer == "mapped" else num_layers
    return Positions(kept.length, layers, last, special_ids)
