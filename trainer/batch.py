"""Batches of a training step, wherever their targets come from: a cache, or a teacher in the loop."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hskcache.output_head import OutputHead


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
class NextTokenTarget:
    """Knowledge of next tokens at some positions of a batch; a class for each form of it.

    Attributes:
        index_T: place of each position in the flattened batch, row * L + position, int64, row after row and of a row
            ascending, or the best first where some are kept; the token that is known of stands behind it.
        log_z_T: log sum exp of the teacher's logits, float32.
        gold_T: log probability of the token that stands there, float32.
    """

    index_T: Tensor
    log_z_T: Tensor
    gold_T: Tensor

    def __len__(self) -> int:
        return len(self.index_T)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} positions)"


@dataclass(frozen=True, eq=False, repr=False)
class TopTarget(NextTokenTarget):
    """The teacher's likeliest tokens.

    Attributes:
        ids_TK: int64, likeliest first.
        logp_TK: their log probabilities over the whole vocabulary, float32.
    """

    ids_TK: Tensor
    logp_TK: Tensor


@dataclass(frozen=True, eq=False, repr=False)
class DrawnTarget(NextTokenTarget):
    """Draws from the teacher's distribution; ``ids_TK``: int64, each as often as it was drawn."""

    ids_TK: Tensor


@dataclass(frozen=True, eq=False, repr=False)
class StatesTarget(NextTokenTarget):
    """Final states of the teacher, float32 [T, D], which its ``head`` makes the whole distribution of."""

    states_TD: Tensor
    head: OutputHead


@dataclass(frozen=True, eq=False, repr=False)
class Batch:
    """One process's slice of a global batch.

    Attributes:
        inputs: ``input_ids``, ``attention_mask`` and, where the teacher has them, ``token_type_ids``, each [B, L]
            int64.
        labels: class index [B] int64, score [B] float32, a value for each class [B, C] float32, or of rows of words a
            class index a word [P] int64; None where the data has none.
        targets: by kind of knowledge that is loaded, what losses compare with.
        num_rows: rows of the whole global batch; losses divide by it, so that slices add up to its mean.
        row_ids: row of the cache (or, with a live teacher, of the data) of each row, on the host.
        totals: by kind, what its losses divide by in place of the rows, of the whole global batch likewise.
        answered: places in the flattened batch, row * L + position, int64 [P], ascending, where the student's answers
            are compared: each word's first piece, or in rows of a language each token whose next one is to be
            predicted; None where a row is answered for as a whole.
        weight: 1; 0 where the global batch has fewer rows than slices and a row of another slice stands in, so that
            every process takes every step.
    """

    inputs: dict[str, Tensor]
    labels: Tensor | None
    targets: Mapping[str, Any]
    num_rows: int
    row_ids: tuple[int, ...]
    totals: Mapping[str, int] = field(default_factory=dict)
    weight: float = 1.0
    answered: Tensor | None = None

    @property
    def logits(self) -> Tensor | None:
        """The teacher's logits, [B, C] float32, or of words [P, C]; None where they are not loaded."""
        return self.targets.get("logits")

    @property
    def hidden(self) -> dict[int, HiddenTarget]:
        """Teacher layer -> kept states; empty where none are loaded."""
        return self.targets.get("hidden") or {}

    @property
    def attention(self) -> dict[int, AttentionTarget]:
        """Teacher layer, counted from 1 -> kept attention scores; empty where none are loaded."""
        return self.targets.get("attention") or {}

    @property
    def num_answers(self) -> int:
        """Answers of the whole global batch, by which losses on them divide: of its rows, words or next tokens."""
        return self.num_rows if self.answered is None else max(1, self.totals.get("inputs", 0))

    @property
    def num_positions(self) -> int:
        """Kept positions of the whole global batch."""
        return self.totals.get("hidden", 0)

    @property
    def num_pairs(self) -> int:
        """Pairs of a kept query and a kept key of the whole global batch."""
        return self.totals.get("attention", 0)

    def to(self, device: torch.device | str) -> "Batch":
        """The batch on a device; itself where it is there already."""
        return self if self.inputs["input_ids"].device == torch.device(device) else _moved(self, device)

    def __len__(self) -> int:
        """Rows B of this slice."""
        return len(self.row_ids)

    def __repr__(self) -> str:
        parts = [f"{len(self)} rows of at most {self.inputs['input_ids'].shape[1]} tokens", *sorted(self.inputs)]
        if self.labels is not None:
            parts.append("labels")
        for kind, target in self.targets.items():
            if isinstance(target, Mapping):
                parts += [f"layer {layer}: {one!r}" for layer, one in target.items()]
            elif is_dataclass(target):
                parts.append(repr(target))
            else:
                parts.append(f"{kind} of {target.shape[-1]} {'classes' if target is self.logits else 'values'}")
        return f"Batch({', '.join(parts)})"


def _moved(value: Any, device: torch.device | str) -> Any:
    """Tensors on a device, and whatever holds them."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: _moved(part, device) for key, part in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{one.name: _moved(getattr(value, one.name), device) for one in fields(value)})
    return value
