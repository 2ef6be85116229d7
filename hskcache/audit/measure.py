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
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hskcache.audit.kinds import AUDITED
from hskcache.audit.kinds.abc import CapturedBatch, Fresh, TeacherVectors
from hskcache.build.kinds.abc import Selector
from hskcache.build.positions import PaddedRows, Positions
from hskcache.cache import check_positions
from hskcache.decoded import DECODED, Distance, Same, Vectors, decode, layers_of
from hskcache.encoding import get_encoding
from hskcache.store.fields import StoredField, layer_name

Arrays = Mapping[str, NDArray[Any]]


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
        first: how often the likeliest token is the stored one; of next tokens.
        log_z_error: largest error of the stored log Z; None where there is none.
    """

    distance: Distance = field(default_factory=Distance)
    bound: float = 0.0
    excess: float = 0.0
    positions: Same = field(default_factory=Same)
    columns: Same = field(default_factory=Same)
    num_wrong: int = 0
    rows: dict[int, float] = field(default_factory=dict)
    first: Same = field(default_factory=Same)
    log_z_error: float | None = None

    def note(self, table: TeacherVectors) -> None:
        """Take what is told of next tokens alone."""
        if table.same_first_V is not None:
            self.first.add(torch.ones_like(table.same_first_V), table.same_first_V)
        if table.log_z_error_V is not None and table.log_z_error_V.numel():
            self.log_z_error = max(self.log_z_error or 0.0, float(table.log_z_error_V.max()))
        if table.kl_V is not None:
            self.distance.add_divergences(table.kl_V)


@dataclass(frozen=True, eq=False)
class Audited:
    """A field that is compared.

    ``kept``: what it stores; ``constants``: what its rows share; ``selector``: what would be kept now; ``tolerance``:
    share of the largest magnitude.
    """

    kept: StoredField
    constants: Arrays
    selector: Selector
    tolerance: float
    layers: dict[int | None, Measured] = field(default_factory=dict)

    def add(self, batch: CapturedBatch, arrays: Arrays) -> None:
        """Compare the stored arrays of a batch. Raises DamageError if a position lies beyond its row."""
        choice, kind = _Choice(self, batch), AUDITED[self.kept.kind]
        fresh = Fresh(batch, self.selector, self.constants, arrays)
        check_positions(arrays, batch.lengths_B)
        for layer in layers_of(self.kept):
            measured = self.layers.setdefault(layer, Measured())
            vectors = decode(self.kept, arrays, layer, self.constants)
            table = kind.table(self.kept, fresh, layer, vectors)
            excess_B = self._compare(measured, vectors, table, len(batch.numbers_B))
            wrong_B = torch.zeros(len(excess_B), dtype=torch.bool)
            if isinstance(choice.positions, Positions):
                wrong_B = choice.wrong_positions(measured, layer, arrays)
            if kind.chooses(self.kept):
                wrong_B = wrong_B | choice.wrong_columns(measured, vectors, table)
            measured.num_wrong += int(wrong_B.sum())
            for place in ((excess_B > 1.0) | wrong_B).nonzero()[:, 0].tolist():
                measured.rows[int(batch.numbers_B[place])] = float(excess_B[place])

    def _compare(self, measured: Measured, vectors: Vectors, table: TeacherVectors, num_rows: int) -> Tensor:
        """Compare the values; the largest excess of each row, float64 [B]."""
        valid_VE = vectors.entries_VE >= 0
        fresh_VE = table.values_VE
        if not table.is_gathered:
            fresh_VE = fresh_VE.gather(1, vectors.entries_VE.clamp(min=0))
        fresh_VE = fresh_VE.masked_fill(~valid_VE, 0.0)
        encoding = get_encoding(getattr(self.kept, "encoding", None) or "float32")
        allowed_VE = encoding.bound(fresh_VE) if table.bound_VE is None else table.bound_VE
        bound_VE = allowed_VE.double().masked_fill(~valid_VE, 0.0)
        error_VE = (vectors.values_VE.double() - fresh_VE.double()).abs()
        excess_VE = error_VE / (bound_VE + self.tolerance * table.scale_V.double().unsqueeze(-1))
        # Zero of zero is no excess; what is not finite is, whatever an encoding promises of it.
        excess_VE = excess_VE.masked_fill(error_VE == 0, 0.0).masked_fill(~valid_VE, 0.0)
        excess_VE = excess_VE.nan_to_num(nan=torch.inf, posinf=torch.inf)
        are_scores = DECODED[self.kept.kind].are_scores(self.kept, fresh_VE.shape[-1])
        measured.note(table)
        measured.distance.add(vectors.values_VE, fresh_VE, valid_VE, are_scores)
        if not excess_VE.numel():
            return torch.zeros(num_rows, dtype=torch.float64)
        measured.bound = max(measured.bound, float(bound_VE.masked_fill(bound_VE.isinf(), 0.0).max()))
        measured.excess = max(measured.excess, float(excess_VE.max()))
        return _by_row(vectors.rows_V, excess_VE.amax(-1), num_rows)


@dataclass(frozen=True, eq=False)
class _Choice:
    """Choices that would be made now for the rows of a batch, on the host, beside what is stored."""

    audited: Audited
    batch: CapturedBatch

    @property
    def positions(self) -> Positions | None:
        """The length dimension of what is kept; None of a kind without positions."""
        return getattr(self.audited.selector, "positions", None)

    def wrong_positions(self, measured: Measured, layer: int | None, arrays: Arrays) -> Tensor:
        """Rows whose positions are not the best, or not best first, bool [B]."""
        counts = torch.from_numpy(np.diff(arrays["position_offsets"]))
        rows_P = torch.repeat_interleave(torch.arange(len(counts)), counts)
        name = "positions" if layer is None else f"{layer_name(layer)}/positions"
        positions_P = torch.from_numpy(arrays[name].astype(np.int64))
        now_BL = self._now[layer].isfinite()
        then_BL = torch.zeros_like(now_BL)
        then_BL[rows_P, positions_P] = True
        measured.positions.add(then_BL, now_BL)
        score_BL, scale_B = self._ranking(layer)
        slack_B = self.audited.tolerance * scale_B
        is_repeated_B = then_BL.sum(-1) != counts
        is_shuffled_B = _rises(score_BL, rows_P, positions_P, slack_B)
        return is_repeated_B | is_shuffled_B | _is_worse(then_BL, now_BL, score_BL, slack_B)

    def wrong_columns(self, measured: Measured, vectors: Vectors, table: TeacherVectors) -> Tensor:
        """Rows with a vector whose columns are not those that would be chosen now, bool [B]."""
        kept = self.audited.kept
        columns = AUDITED[kept.kind].columns(kept, vectors, table)
        measured.columns.add(columns.then_VD, columns.now_VD)
        slack_V = self.audited.tolerance * table.scale_V
        wrong_V = _is_worse(columns.then_VD, columns.now_VD, columns.score_VD, slack_V)
        return _by_row(vectors.rows_V, wrong_V.double(), len(self.batch.numbers_B)) > 0

    @cached_property
    def _now(self) -> dict[int | None, Tensor]:
        """Positions that would be kept now, by layer, see :func:`_order`."""
        assert self.positions is not None
        selector, rows = self.audited.selector, self.batch.rows
        chosen = self.positions.choose(self.batch.captured, rows)
        return {layer: _order(positions, rows.kept_B[selector.name], rows) for layer, positions in chosen.items()}

    @cached_property
    def _eligible_BL(self) -> Tensor:
        """The positions that may be kept."""
        assert self.positions is not None
        return self.positions.eligible(self.batch.rows).cpu()

    def _ranking(self, layer: int | None) -> tuple[Tensor, Tensor]:
        """The score [B, L] by which positions were chosen now, and its largest magnitude [B]."""
        assert self.positions is not None
        positions = self.positions
        score_BL = self.batch.captured.scores.get((positions.length.score, positions.sources[layer]))
        if score_BL is None or positions.length.is_whole:
            # Where all are kept they stand as in the row, and scores that no teacher gives are the same everywhere.
            return self._now[layer], torch.zeros(len(self.batch.numbers_B))
        score_BL = score_BL.float().cpu()
        scale_B = score_BL.abs().masked_fill(~self._eligible_BL, 0.0).amax(-1)
        return score_BL.masked_fill(~self._eligible_BL, -torch.inf), scale_B


def _order(chosen_BK: Tensor, kept_B: NDArray[np.int64], rows: PaddedRows) -> Tensor:
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

    ``then``: what was chosen, bool [n, m]. ``now``: the best, bool [n, m]. ``score``: float [n, m]; minus infinity of
    what may not be chosen. ``slack``: how much higher, float [n].
    """
    missed = score.masked_fill(~now | then, -torch.inf).amax(-1)
    taken = score.masked_fill(~then | now, torch.inf).amin(-1)
    return (then.sum(-1) != now.sum(-1)) | (missed - taken > slack)


def _by_row(rows_V: Tensor, values_V: Tensor, num_rows: int) -> Tensor:
    """The largest value of each row, float64 [B]; 0 where a row has none."""
    return torch.zeros(num_rows, dtype=torch.float64).scatter_reduce(0, rows_V, values_V, "amax")
