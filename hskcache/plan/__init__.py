"""Choice of what to keep for a budget: by the scores of a study, or else tokens first, then columns, then layers."""

from collections.abc import Callable
from dataclasses import dataclass

from hskcache import units
from hskcache.build.job import Job
from hskcache.build.keeping import Keeping
from hskcache.build.memory import measure_memory
from hskcache.errors import SpecError
from hskcache.plan.frontier import candidates, frontier
from hskcache.plan.ladder import ladder, last_that_fits
from hskcache.plan.model import BudgetPlan, PlanChoice
from hskcache.plan.sizes import CandidateSizes, KeepChoice
from hskcache.resolved import layer_pairs
from hskcache.spec import Hidden, Keep
from hskcache.studied import StudyResults

__all__ = ["BudgetPlan", "ByteBudget", "PlanChoice", "plan"]

ENCODINGS = ("int8", "int4")
"""Encodings that are compared where none is given."""


@dataclass(frozen=True)
class ByteBudget:
    """Bytes that a cache may take, one of the two.

    Attributes:
        num_bytes: of the whole cache.
        bytes_per_row: of a row on average, of all fields.
    """

    num_bytes: int | None = None
    bytes_per_row: float | None = None

    def of(self, num_rows: int) -> int:
        """Bytes of the whole cache. Raises SpecError unless one of the two is given."""
        if (self.num_bytes is None) == (self.bytes_per_row is None):
            raise SpecError("give the budget as --budget 500MB for the whole cache, or as --bytes-per-row 200")
        return self.num_bytes if self.num_bytes is not None else int((self.bytes_per_row or 0) * num_rows)

    def told(self, num_bytes: int, num_rows: int) -> str:
        """The option that would ask for so many bytes."""
        if self.num_bytes is not None:
            return f"--budget {num_bytes}"
        return f"--bytes-per-row {-(-num_bytes // max(num_rows, 1))}"


def plan(
    job: Job,
    keeping: Keeping,
    budget: ByteBudget,
    study: StudyResults | None = None,
    advance: Callable[[], object] = lambda: None,
) -> BudgetPlan:
    """The choice for a budget, with the bytes that ``hskcache estimate`` gives for it.

    Args:
        job: rows and teacher, whatever it keeps.
        keeping: options that say all but how much is kept.
        budget: bytes.
        study: scores to go by; None goes by the order of tokens, columns and layers.
        advance: called after each choice that the teacher ran for.

    Raises:
        SpecError: the budget is below what is kept in any case, which the message tells.
    """
    num_rows = len(job.rows)
    sizes = CandidateSizes(job, keeping, budget.of(num_rows), advance)
    least = _least(sizes)
    if not (smallest := sizes.of(least)).fits:
        given = budget.told(sizes.budget_bytes, num_rows)
        raise SpecError(
            f"{given} is less than a cache of these rows takes at least, {units.human_bytes(smallest.num_bytes)} with "
            f"--keep {smallest.keep}; give {budget.told(smallest.num_bytes, num_rows)} or more"
        )
    planned = (None if study is None else _by_study(sizes, study)) or _by_order(sizes, least)
    return planned.model_copy(update={"memory": measure_memory(sizes.job_of(planned.chosen))})


def _least(sizes: CandidateSizes) -> KeepChoice:
    """The least that a cache of these rows can keep: logits, or of a corpus one token of one layer, or next one."""
    if _is_of_next(sizes):
        return _next_steps(sizes)[0]
    has_else = any(name != "hidden" for name in sizes.job.layout.fields)
    return KeepChoice(None, None) if has_else else KeepChoice(_steps(sizes)[0], _encodings(sizes)[-1])


def _is_of_next(sizes: CandidateSizes) -> bool:
    """True where positions of next tokens alone are proposed: of language models, unless states are asked for."""
    return sizes.job.spec.vocabulary is not None and not sizes.keeping.says_more_than_positions


def _next_steps(sizes: CandidateSizes) -> list[KeepChoice]:
    """Numbers of positions of next tokens, ranked by entropy if nothing is said, and all of them."""
    others = () if sizes.keeping.score is not None else (("score", "entropy"),)
    longest = int(sizes.job.layout.lengths_N.max())
    return [*(KeepChoice(Keep(None, count, 1.0), None, others) for count in range(1, longest)), KeepChoice(None, None)]


def _steps(sizes: CandidateSizes) -> list[Keep]:
    hidden = sizes.keeping.spec().hidden or Hidden()
    depth = hidden.depth.model_copy(update={"num_layers": None})
    pairs = layer_pairs(hidden.model_copy(update={"depth": depth}), sizes.job.teacher.info)
    return ladder(hidden, len(pairs), int(sizes.job.layout.lengths_N.max()))


def _encodings(sizes: CandidateSizes) -> tuple[str, ...]:
    given = sizes.keeping.encoding
    return ENCODINGS if given is None else (given,)


def _by_order(sizes: CandidateSizes, least: KeepChoice) -> BudgetPlan:
    found = list[PlanChoice]()
    if _is_of_next(sizes):
        ladders = [_next_steps(sizes)]
    else:
        steps = _steps(sizes)
        ladders = [[KeepChoice(step, encoding) for step in steps] for encoding in _encodings(sizes)]
    for rungs in ladders:
        place = last_that_fits(rungs, sizes.fits, sizes.is_likely)
        if place is not None:
            found.append(sizes.of(rungs[place]))
    choices = found or [sizes.of(least)]
    return BudgetPlan(
        budget_bytes=sizes.budget_bytes,
        num_rows=len(sizes.job.rows),
        by="order",
        chosen=choices[0],
        choices=choices,
    )


def _by_study(sizes: CandidateSizes, study: StudyResults) -> BudgetPlan | None:
    """The best of a study's points that fits; None where none does."""
    found, num_left_out = candidates(study)
    choices: list[PlanChoice] = []
    for one in frontier(found):
        size, mean, gain = sizes.of(one.kept), one.point.mean or 0.0, None
        if choices:
            more = size.bytes_per_row - choices[-1].bytes_per_row
            gain = 100 * (mean - (choices[-1].score or 0.0)) / more if more > 0 else None
        choices.append(size.model_copy(update={"score": mean, "interval": one.point.interval, "gain": gain}))
    fitting = [choice for choice in choices if choice.fits]
    if not fitting:
        return None
    return BudgetPlan(
        budget_bytes=sizes.budget_bytes,
        num_rows=len(sizes.job.rows),
        by="study",
        metric=study.metric,
        chosen=fitting[-1],
        choices=choices,
        num_left_out=num_left_out,
    )
