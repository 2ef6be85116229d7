"""Intervals of scores: over seeds, over draws of the rows, and of differences that are taken seed by seed."""

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import fmean, stdev
from typing import Literal, NamedTuple

from hskcache.studied import PairedDifference

_TWO_SIDED = 0.975
_NORMAL = 1.96


class Interval(NamedTuple):
    """Half the width of a 95 % interval, and what it is over."""

    half_width: float
    by: Literal["seeds", "rows"]


def over_seeds(scores: Sequence[float]) -> float | None:
    """Half the width of the 95 % interval of a mean by Student's t; None of fewer than two scores."""
    if len(scores) < 2:
        return None
    from scipy.stats import t

    return float(t.ppf(_TWO_SIDED, len(scores) - 1)) * stdev(scores) / sqrt(len(scores))


def interval_of(scores: Sequence[float], standard_error: float | None) -> Interval | None:
    """The interval over seeds; of one score that over draws of so many evaluation rows, where its error is known.

    ``standard_error``: of the first score by the choice of the rows, as :meth:`hskcache.evaluation.Scores.uncertainty`
    has it: binomial of an accuracy, else bootstrapped. None: not known.
    """
    if (half_width := over_seeds(scores)) is not None:
        return Interval(half_width, "seeds")
    if not scores or standard_error is None:
        return None
    return Interval(_NORMAL * standard_error, "rows")


def paired(scores: Mapping[int, float], baseline: Mapping[int, float]) -> PairedDifference | None:
    """Difference to a baseline by the seeds that both have; None where they share none.

    ``scores``, ``baseline``: score by seed.
    """
    differences = [score - baseline[seed] for seed, score in scores.items() if seed in baseline]
    if not differences:
        return None
    return PairedDifference(mean=fmean(differences), interval=over_seeds(differences), num_seeds=len(differences))
