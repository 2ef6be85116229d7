"""Requests for sparse teachers. Needs no torch."""

from dataclasses import dataclass
from pathlib import Path

from hskcache.sparsity.levels import Method, Scope
from hskcache.text.layout import Layout


@dataclass(frozen=True)
class SparsifyRequest:
    """Sparse teachers to write, as the options say it that are called alike.

    Attributes:
        teacher: the dense one, folder or hub id.
        sparsity: percents of heads and neurons, or of weights, to remove.
        balance: share of expressive scores, for the method ``knowledge``.
        scope: of single weights that are compared; None: global.
        scores: of an earlier pass; None: a pass over rows, to which the rest belongs.
        data: labelled rows to score on.
        trial_student: distilled from the teacher; not needed for balance 1.
        rows: to score on, drawn by ``seed``; None: all.
        batch_size: rows of one gradient.
        temperature: of the distillation loss.
        max_length: tokens of a row; None: those of earlier scores, of the teacher's rows, the task's or 128.
    """

    teacher: str
    layout: Layout
    sparsity: str
    method: Method
    balance: float
    unstructured: bool
    scope: Scope | None
    scores: Path | None
    data: str | None
    trial_student: str | None
    rows: int | None
    seed: int
    batch_size: int
    temperature: float
    max_length: int | None
    device: str
