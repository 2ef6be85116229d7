"""Comparison of what a cache stores of some rows with what the teacher gives for them now, by layer of a field.

A stored value may be off by the bound of its encoding and, because floats add up otherwise on another machine or in
another batch, by a tolerance more: a share of the largest magnitude of the teacher's vector that the value is of. A
position or column that the teacher would not choose now may stand in the place of one that it would, or a position
before a better one, if its score is no further below than that share of the largest score: ties and last bits decide
between two such.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hskcache.build.attention import AttentionSelector
from hskcache.build.knowledge import HiddenSelector
from hskcache.build.positions import Positions, Rows
from hskcache.cache import AttentionField, Field, HiddenField, LogitsField, check_positions
from hskcache.decoded import Distance, Same, Vectors, decode, layers_of
from hskcache.encoding import get_encoding
from hskcache.ragged import starts_of
from hskcache.selection.width import magnitude_columns
from hskcache.spec import Length
from hskcache.store.fields import layer_name
from hskcache.teacher.capture import Captured

Arrays = Mapping[str, NDArray[Any]]
Selectors = HiddenSelector | AttentionSelector


@dataclass
class Measured:
    """One layer of a field, gathered batch by batch.

    Attributes:
        distance: of the stored values from the teacher's.
        bound: the largest finite error that the encoding alone allows one of the values.
        excess: the largest error as a share of what is allowed there, tolerance included; more than 1 is too much.
        positions, columns: how much of the choice was made again.
        num_wrong: rows with a position or a column that is not among the best, or with positions not best first.
        rows: by row that is not as it should be, in its choice or its values, its largest excess.
    """

    distance: Distance = field(default_factory=Distance)
    bound: float = 0.0
    excess: float = 0.0
    positions: Same = field(default_factory=Same)
    columns: Same = field(default_factory=Same)
    num_wrong: int = 0
    rows: dict[int, float] = field(default_factory=dict)


class CapturedBatch(NamedTuple):
    """Rows that the teacher has run over.

    Attributes:
        captured: what the forward pass left behind.
        rows: as the selection sees them.
        numbers_B: of the rows in the cache.
        lengths_B: tokens of each row.
    """

    captured: Captured
    rows: Rows
    numbers_B: NDArray[np.int64]
    lengths_B: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Audited:
    """A field that is compared.

    Attributes:
        kept: what it stores.
        constants: what its rows share.
        selector: what would be kept now; None for logits.
        tolerance: share of the largest magnitude.
        layers: what was found.
    """

    kept: Field
    constants: Arrays
    selector: Selectors | None
    tolerance: float
    layers: dict[int | None, Measured] = field(default_factory=dict)

    def add(self, batch: CapturedBatch, arrays: Arrays) -> None:
        """Compare the stored arrays of the rows of a batch, in its order.

        Raises:
            DamageError: a stored position lies beyond its row.
        """
        fresh = _Fresh(self, batch)
        if self.selector is not None:
            check_positions(arrays, batch.lengths_B)
        for layer in layers_of(self.kept):
            measured = self.layers.setdefault(layer, Measured())
            vectors = decode(self.kept, arrays, layer, self.constants)
            table = fresh.table(layer, vectors)
            excess_B = self._compare(measured, vectors, table, len(batch.numbers_B))
            wrong_B = torch.zeros(len(excess_B), dtype=torch.bool)
            if layer is not None:
                wrong_B = fresh.wrong_positions(measured, layer, arrays) | fresh.wrong_columns(measured, vectors, table)
            measured.num_wrong += int(wrong_B.sum())
            for place in ((excess_B > 1.0) | wrong_B).nonzero()[:, 0].tolist():
                measured.rows[int(batch.numbers_B[place])] = float(excess_B[place])

    def _compare(self, measured: Measured, vectors: Vectors, table: "_TeacherVectors", num_rows: int) -> Tensor:
        """Compare the values; the largest excess of each row, float64 [B]."""
        valid_VE = vectors.entries_VE >= 0
        fresh_VE = table.values_VE.gather(1, vectors.entries_VE.clamp(min=0)).masked_fill(~valid_VE, 0.0)
        encoding = get_encoding(getattr(self.kept, "encoding", "float32"))
        bound_VE = encoding.bound(fresh_VE).double().masked_fill(~valid_VE, 0.0)
        error_VE = (vectors.values_VE.double() - fresh_VE.double()).abs()
        excess_VE = error_VE / (bound_VE + self.tolerance * table.scale_V.double().unsqueeze(-1))
        # Zero of zero is no excess; what is not finite is, whatever an encoding promises of it.
        excess_VE = excess_VE.masked_fill(error_VE == 0, 0.0).masked_fill(~valid_VE, 0.0)
        excess_VE = excess_VE.nan_to_num(nan=torch.inf, posinf=torch.inf)
        are_scores = isinstance(self.kept, AttentionField) or (
            isinstance(self.kept, LogitsField) and self.kept.num_labels > 1
        )
        measured.distance.add(vectors.values_VE, fresh_VE, valid_VE, are_scores)
        if not excess_VE.numel():
            return torch.zeros(num_rows, dtype=torch.float64)
        measured.bound = max(measured.bound, float(bound_VE.masked_fill(bound_VE.isinf(), 0.0).max()))
        measured.excess = max(measured.excess, float(excess_VE.max()))
        return _by_row(vectors.rows_V, excess_VE.amax(-1), num_rows)


class _TeacherVectors(NamedTuple):
    """Values of the teacher for vectors: everything that could have been stored of each.

    Attributes:
        values_VE: float32, at the places that entries name.
        scale_V: the largest magnitude of what each vector is computed with.
        states_VD: the hidden states behind the values, with all columns; None where there are none.
    """

    values_VE: Tensor
    scale_V: Tensor
    states_VD: Tensor | None = None


@dataclass(frozen=True, eq=False)
class _Fresh:
    """Values of the teacher for the rows of a batch, on the host."""

    audited: Audited
    batch: CapturedBatch

    def table(self, layer: int | None, vectors: Vectors) -> _TeacherVectors:
        """Values of the teacher for the vectors of a layer."""
        captured, field = self.batch.captured, self.audited.kept
        if layer is None:
            assert captured.logits is not None
            logits_VC = captured.logits.cpu()[vectors.rows_V]
            return _TeacherVectors(logits_VC, _scale_of_scores(logits_VC))
        if isinstance(field, AttentionField):
            scores_BHLL = self._scores(field, layer)
            scale_BH = _scale_of_scores(scores_BHLL.flatten(2))
            rows, heads = vectors.rows_V, vectors.heads_V
            return _TeacherVectors(scores_BHLL[rows, heads, vectors.positions_V], scale_BH[rows, heads])
        states_PD = captured.hidden[layer][self.batch.rows.valid_BL].float().cpu()
        states_VD = states_PD[torch.from_numpy(starts_of(self.batch.lengths_B))[vectors.rows_V] + vectors.positions_V]
        scale_V, values = states_VD.abs().amax(-1), states_VD
        if isinstance(field, HiddenField) and field.columns == "pca":
            mean, basis = (
                torch.from_numpy(self.audited.constants[f"{layer_name(layer)}/{part}"]) for part in ("mean", "basis")
            )
            values = (states_VD - mean) @ basis.T
        return _TeacherVectors(values, scale_V, states_VD)

    def wrong_positions(self, measured: Measured, layer: int, arrays: Arrays) -> Tensor:
        """Rows whose positions are not the best, or not best first, bool [B]."""
        counts = torch.from_numpy(np.diff(arrays["position_offsets"]))
        rows_P = torch.repeat_interleave(torch.arange(len(counts)), counts)
        positions_P = torch.from_numpy(arrays[f"{layer_name(layer)}/positions"].astype(np.int64))
        now_BL = self._now[layer].isfinite()
        then_BL = torch.zeros_like(now_BL)
        then_BL[rows_P, positions_P] = True
        measured.positions.add(then_BL, now_BL)
        score_BL, scale_B = self._ranking(layer)
        slack_B = self.audited.tolerance * scale_B
        is_repeated_B = then_BL.sum(-1) != counts
        is_shuffled_B = _rises(score_BL, rows_P, positions_P, slack_B)
        return is_repeated_B | is_shuffled_B | _is_worse(then_BL, now_BL, score_BL, slack_B)

    def wrong_columns(self, measured: Measured, vectors: Vectors, table: _TeacherVectors) -> Tensor:
        """Rows with a state whose columns are not those of largest magnitude, bool [B]."""
        field, num_rows = self.audited.kept, len(self.batch.numbers_B)
        if not isinstance(field, HiddenField) or field.columns not in {"indices", "bitmask"}:
            return torch.zeros(num_rows, dtype=torch.bool)
        assert table.states_VD is not None
        now = magnitude_columns(table.states_VD, field.num_columns)
        nothing = torch.zeros(table.states_VD.shape, dtype=torch.bool)
        then_VD, now_VD = (nothing.scatter(1, columns, True) for columns in (vectors.entries_VE, now))
        measured.columns.add(then_VD, now_VD)
        slack_V = self.audited.tolerance * table.scale_V
        wrong_V = _is_worse(then_VD, now_VD, table.states_VD.abs(), slack_V)
        return _by_row(vectors.rows_V, wrong_V.double(), num_rows) > 0

    @cached_property
    def _now(self) -> dict[int, Tensor]:
        """Positions that would be kept now, by layer, see :func:`_order`."""
        assert self.audited.selector is not None
        selector, rows = self.audited.selector, self.batch.rows
        chosen = selector.positions.choose(self.batch.captured, rows)
        return {layer: _order(positions, rows.kept_B[selector.name], rows) for layer, positions in chosen.items()}

    @cached_property
    def _eligible_BL(self) -> Tensor:
        """The positions that may be kept."""
        assert self.audited.selector is not None
        positions = self._positions(self.audited.selector.positions.length.model_copy(update={"tokens": None}), 1)
        rows = self.batch.rows
        (chosen,) = positions.choose(self.batch.captured, rows).values()
        in_turn = chosen[:, 1:] > chosen[:, :-1]
        # In the order of the row; zeros stand beyond a row's own.
        return _order(chosen, 1 + in_turn.sum(-1).cpu().numpy(), rows).isfinite()

    def _ranking(self, layer: int) -> tuple[Tensor, Tensor]:
        """The score [B, L] by which positions were chosen now, and its largest magnitude [B]."""
        assert self.audited.selector is not None
        positions = self.audited.selector.positions
        score_BL = self.batch.captured.scores.get((positions.length.score, positions.sources[layer]))
        if score_BL is None or positions.length.tokens is None:
            # Where all are kept they stand as in the row, and scores that no teacher gives are the same everywhere.
            return self._now[layer], torch.zeros(len(self.batch.numbers_B))
        score_BL = score_BL.float().cpu()
        scale_B = score_BL.abs().masked_fill(~self._eligible_BL, 0.0).amax(-1)
        return score_BL.masked_fill(~self._eligible_BL, -torch.inf), scale_B

    def _scores(self, field: AttentionField, layer: int) -> Tensor:
        """Attention scores [B, H, L, L] of the stored heads between all positions."""
        selector = AttentionSelector(
            field.model_copy(update={"layers": [layer]}), self._positions(Length(score="all"), layer)
        )
        rows = self.batch.rows
        rows = Rows(rows.input_ids_BL, rows.valid_BL, rows.row_ids_B, {selector.name: self.batch.lengths_B})
        scores: Tensor = selector.select(self.batch.captured, rows)[layer].scores_BHKK.cpu()
        return scores

    def _positions(self, length: Length, layer: int) -> Positions:
        assert self.audited.selector is not None
        special_ids = frozenset(self.audited.selector.positions.special_ids.tolist())
        return Positions(length, [layer], layer, special_ids)


def _order(chosen_BK: Tensor, kept_B: NDArray[np.int64], rows: Rows) -> Tensor:
    """The first positions of each row as float32 [B, L] on the host: 0, -1, -2 ... in their order, else -infinity."""
    order_BL = torch.full(rows.valid_BL.shape, -torch.inf)
    chosen = chosen_BK.cpu()
    place, slot = (torch.arange(chosen.shape[1]) < torch.from_numpy(kept_B)[:, None]).nonzero(as_tuple=True)
    order_BL[place, chosen[place, slot]] = -slot.float()
    return order_BL


def _rises(score_BL: Tensor, rows_P: Tensor, positions_P: Tensor, slack_B: Tensor) -> Tensor:
    """Rows with a position that scores higher than the one that stands before it, by more than a slack, bool [B]."""
    score_P = score_BL[rows_P, positions_P]
    rises = (score_P[1:] - score_P[:-1] > slack_B[rows_P[1:]]) & (rows_P[1:] == rows_P[:-1])
    return torch.zeros(len(slack_B), dtype=torch.bool).index_fill(0, rows_P[1:][rises], True)


def _is_worse(then: Tensor, now: Tensor, score: Tensor, slack: Tensor) -> Tensor:
    """True if a choice is of another size, or lacks something that scores higher than what it has instead.

    Args:
        then: what was chosen, bool [n, m].
        now: the best, bool [n, m].
        score: float [n, m]; minus infinity of what may not be chosen.
        slack: how much higher, float [n].
    """
    missed = score.masked_fill(~now | then, -torch.inf).amax(-1)
    taken = score.masked_fill(~then | now, torch.inf).amin(-1)
    return (then.sum(-1) != now.sum(-1)) | (missed - taken > slack)


def _scale_of_scores(scores: Tensor) -> Tensor:
    """The largest magnitude along the last axis, and at least 1: a softmax sees no smaller differences as large."""
    return scores.abs().amax(-1).clamp(min=1.0)


def _by_row(rows_V: Tensor, values_V: Tensor, num_rows: int) -> Tensor:
    """The largest value of each row, float64 [B]; 0 where a row has none."""
    return torch.zeros(num_rows, dtype=torch.float64).scatter_reduce(0, rows_V, values_V, "amax")
