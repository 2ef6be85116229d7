"""Batches of a training step, wherever their targets come from: a cache, or a teacher in the loop."""

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, eq=False, repr=False)
class HiddenTarget:
    """Kept states of one teacher layer over a batch, without padding.

    Attributes:
        index_P: place of each kept position in the flattened batch, row * L + position, int64.
        values_PW: kept values, float32; with ``basis_WD`` the coordinates along its rows.
        columns: kept columns, int64, [P, W] each position its own, [W] shared by all, or None where all D are kept.
        width: hidden width D of the teacher.
        mean_D, basis_WD: principal components, where the cache keeps coordinates along them.
    """

    index_P: Tensor
    values_PW: Tensor
    columns: Tensor | None
    width: int
    mean_D: Tensor | None = None
    basis_WD: Tensor | None = None

    def __repr__(self) -> str:
        positions, columns = self.values_PW.shape
        return f"HiddenTarget({positions} positions x {columns} of {self.width} columns)"


@dataclass(frozen=True, eq=False, repr=False)
class AttentionTarget:
    """Attention scores of one teacher layer between the kept positions of each row, before mask and softmax.

    Attributes:
        positions_BK: kept positions of each row, best first, int64; 0 beyond a row's own.
        valid_BK: which of them are a row's own, bool.
        scores_BHKK: float32, queries before keys; what stands beyond a row's own positions says nothing.
    """

    positions_BK: Tensor
    valid_BK: Tensor
    scores_BHKK: Tensor

    def __repr__(self) -> str:
        _, heads, kept, _ = self.scores_BHKK.shape
        return f"AttentionTarget({heads} heads, at most {kept} positions)"


@dataclass(frozen=True, eq=False, repr=False)
class Batch:
    """One process's slice of a global batch.

    Attributes:
        inputs: ``input_ids``, ``attention_mask`` and, where the teacher has them, ``token_type_ids``, each [B, L]
            int64.
        labels: class index [B] int64 or score [B] float32; None where the data has none.
        logits: the teacher's [B, C] float32; None where they are not loaded.
        hidden: teacher layer -> kept states.
        attention: teacher layer, counted from 1 -> kept attention scores.
        num_rows: rows of the whole global batch; losses divide by it, so that slices add up to its mean.
        num_positions: kept positions of the whole global batch, likewise.
        num_pairs: pairs of a kept query and a kept key of the whole global batch, likewise.
        row_ids: row of the cache (or, with a live teacher, of the data) of each row, on the host.
        weight: 1; 0 where the global batch has fewer rows than slices and a row of another slice stands in, so that
            every process takes every step.
    """

    inputs: dict[str, Tensor]
    labels: Tensor | None
    logits: Tensor | None
    hidden: dict[int, HiddenTarget]
    num_rows: int
    num_positions: int
    row_ids: tuple[int, ...]
    weight: float = 1.0
    attention: dict[int, AttentionTarget] = field(default_factory=dict)
    num_pairs: int = 0

    def __len__(self) -> int:
        """Rows B of this slice."""
        return len(self.row_ids)

    def __repr__(self) -> str:
        parts = [f"{len(self)} rows of at most {self.inputs['input_ids'].shape[1]} tokens", *sorted(self.inputs)]
        if self.labels is not None:
            parts.append("labels")
        if self.logits is not None:
            parts.append(f"logits of {self.logits.shape[1]} classes")
        parts += [f"layer {layer}: {target!r}" for layer, target in (*self.hidden.items(), *self.attention.items())]
        return f"Batch({', '.join(parts)})"
