"""Time ways of doing one thing side by side, so that a machine's moods fall on all of them alike.

Every repetition runs each side once, beginning with another side each time. What is compared are medians of the same
run; a number from another run, another hour or another machine never enters a ratio.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median, quantiles
from time import perf_counter
from typing import Any

Work = Callable[[], Any]


@dataclass(frozen=True)
class Times:
    """Seconds of every repetition of every side, in the order in which they ran."""

    seconds: Mapping[str, list[float]]

    @property
    def repetitions(self) -> int:
        """Number of times that each side ran."""
        return len(next(iter(self.seconds.values())))

    def median(self, side: str) -> float:
        """Median seconds of a side."""
        return median(self.seconds[side])

    def ratio(self, side: str, reference: str) -> float:
        """Median of ``side`` over the median of ``reference``."""
        return self.median(side) / self.median(reference)

    def spread(self, side: str, reference: str) -> tuple[float, float]:
        """Lower and upper quartile of the ratio within a repetition: how far to believe :meth:`ratio`."""
        pairs = zip(self.seconds[side], self.seconds[reference], strict=True)
        ratios = [mine / theirs for mine, theirs in pairs]
        if len(ratios) < 2:
            return ratios[0], ratios[0]
        lower, _, upper = quantiles(ratios, n=4, method="inclusive")
        return lower, upper

    def facts(self) -> dict[str, Any]:
        """Everything, for ``--json``."""
        return {
            "repetitions": self.repetitions,
            "median_s": {side: self.median(side) for side in self.seconds},
            "seconds": {side: list(values) for side, values in self.seconds.items()},
        }


def alternate(
    sides: Mapping[str, Work],
    repetitions: int,
    warmup: int = 1,
    on_done: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = perf_counter,
) -> Times:
    """Run all sides ``warmup`` times untimed, then ``repetitions`` times timed.

    ``sides``: by name; a side must have finished its work, on the device too, when it returns. ``repetitions``: of each
    side. ``warmup``: of each side. ``on_done``: called after each run, the untimed ones included.
    ``clock``: seconds; ``process_time`` counts those of all threads, and not those that other programs take.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    for repetition in range(-warmup, repetitions):
        first = repetition % len(names)
        for name in names[first:] + names[:first]:
            start = clock()
            sides[name]()
            elapsed = clock() - start
            if repetition >= 0:
                seconds[name].append(elapsed)
            on_done()
    return Times(seconds)
