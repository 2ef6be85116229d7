"""Plans for a budget as they are told to programs; see :mod:`hskcache.plan` for how they are made."""

from typing import Literal

from hskcache.build.memory import Memory
from hskcache.strict import Strict


class PlanChoice(Strict):
    """One choice of what to keep of hidden states, and what a build of it takes.

    Attributes:
        keep: as ``--keep`` takes it.
        encoding: as ``--encoding`` takes it; None where no hidden states are kept.
        options: these and, where a study varied more, all others of hidden states, as ``hskcache build`` takes them.
        num_bytes: of the whole cache, as ``hskcache estimate`` tells it.
        bytes_per_row: the same by the rows.
        by_field: the same by field.
        fits: whether that is within the budget.
        score: mean of the study's students; None where there is no study.
        interval: half the width of its 95 % interval; None where it is not known.
        gain: score that a further 100 bytes a row bring, over the choice before it; None of the first.
    """

    keep: str
    encoding: str | None
    options: list[str]
    num_bytes: int
    bytes_per_row: float
    by_field: dict[str, int]
    fits: bool
    score: float | None = None
    interval: float | None = None
    gain: float | None = None


class BudgetPlan(Strict):
    """A plan for a budget.

    Attributes:
        budget_bytes: of the whole cache.
        num_rows: that it is for.
        by: what it follows: scores of a ``study``, or the ``order`` tokens, columns, layers.
        metric: of the scores; None without a study.
        chosen: the choice that is proposed.
        choices: all that were looked at: of a study in the order of bytes, else one for each encoding.
        num_left_out: points of the study that options of hidden states alone do not say.
        memory: that a build of the proposed choice takes; None where its device does not tell.
    """

    budget_bytes: int
    num_rows: int
    by: Literal["study", "order"]
    metric: str | None = None
    chosen: PlanChoice
    choices: list[PlanChoice]
    num_left_out: int = 0
    memory: Memory | None = None
