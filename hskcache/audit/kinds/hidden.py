"""Hidden states as they are audited."""

import torch

from hskcache.audit.kinds.abc import AuditedKind, ColumnChoice, Fresh, TeacherVectors
from hskcache.decoded import Vectors
from hskcache.ragged import starts_of
from hskcache.selection.width import magnitude_columns
from hskcache.store.fields import layer_name
from hskcache.store.kinds.hidden import HiddenField


class AuditedHidden(AuditedKind[HiddenField]):
    """Position by position, and column by column where each position has its own."""

    def table(self, field: HiddenField, fresh: Fresh, layer: int | None, vectors: Vectors) -> TeacherVectors:
        """All columns of the states, or their coordinates along the components."""
        assert layer is not None
        batch = fresh.batch
        states_PD = batch.captured.hidden[layer][batch.rows.valid_BL].float().cpu()
        states_VD = states_PD[torch.from_numpy(starts_of(batch.lengths_B))[vectors.rows_V] + vectors.positions_V]
        scale_V, values = states_VD.abs().amax(-1), states_VD
        if field.columns == "pca":
            mean, basis = (
                torch.from_numpy(fresh.constants[f"{layer_name(layer)}/{part}"]) for part in ("mean", "basis")
            )
            values = (states_VD - mean) @ basis.T
        return TeacherVectors(values, scale_V, states_VD)

    def chooses(self, field: HiddenField) -> bool:
        """True where columns are stored beside the values."""
        return field.columns in {"indices", "bitmask"}

    def columns(self, field: HiddenField, vectors: Vectors, table: TeacherVectors) -> ColumnChoice:
        """Columns of largest magnitude."""
        assert table.states_VD is not None
        now = magnitude_columns(table.states_VD, field.num_columns)
        nothing = torch.zeros(table.states_VD.shape, dtype=torch.bool)
        then_VD, now_VD = (nothing.scatter(1, columns, True) for columns in (vectors.entries_VE, now))
        return ColumnChoice(then_VD, now_VD, table.states_VD.abs())
