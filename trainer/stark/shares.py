"""Results of the shares of a pilot study: means over seeds, the table and the picture of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hskcache.counted import counted
from trainer.stark.results import error_by_rows
from trainer.study.aligned import aligned
from trainer.study.chart import save, tidy

CONFIDENCE = {"variance": "variance", "negative_entropy": "-entropy"}
"""The measures of confidence, and what they are called where room is short."""

_WIDTH = len("-0.1234 ± 0.1234")


@dataclass(frozen=True)
class Spread:
    """Mean over seeds, and its standard error, which one seed alone does not tell."""

    mean: float
    standard_error: float | None


@dataclass(frozen=True)
class Share:
    """Results of a share of weights.

    ``percent``: of them removed; ``weights_removed``: how many these are; ``num_seeds``: draws; ``measures``: metrics
    by name, then ``variance`` and ``negative_entropy`` where the answers are a distribution.
    """

    percent: int
    weights_removed: int
    num_seeds: int
    measures: dict[str, Spread]


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard error of some draws."""
    return Spread(mean(values), stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None)


def table(shares: Sequence[Share]) -> str:
    """Table for people: a line a share, means over seeds and their standard errors."""
    names = list(dict.fromkeys(name for share in shares for name in share.measures))
    # To the left of their columns, which are wider than they.
    lines = [["weights removed", *(f"{CONFIDENCE.get(name, name):<{_WIDTH}}" for name in names)]]
    for share in shares:
        cells = (_told(share.measures[name]) if name in share.measures else "" for name in names)
        lines.append([f"{share.percent} %", *cells])
    return aligned(lines, num_words=0)


def _told(spread: Spread) -> str:
    error = "" if spread.standard_error is None else f" ± {spread.standard_error:.4f}"
    # As wide without an error, so that the means stand below each other.
    return f"{f'{spread.mean:.4f}{error}':<{_WIDTH}}"


def plot(shares: Sequence[Share], evaluation: tuple[str, int], path: Path) -> None:
    """Draw a PNG: a panel a measure, the first metric and the confidence; means over seeds with one standard error.

    Args:
        shares: what to draw, the first without anything removed.
        evaluation: what to call the rows that the teacher was scored on, and how many there are; where the metric is an
            accuracy, one standard error of the whole teacher's by the choice of these rows is shaded.
        path: where to write it; the file is whole or absent.
    """
    measures, num_rows = [share.measures for share in shares], evaluation[1]
    names = [next(iter(measures[0])), *(name for name in CONFIDENCE if all(name in one for one in measures))]
    # One panel alone is not as wide as what stands above it.
    figure = Figure(figsize=(max(3.4 * len(names), 5.0), 3.2), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    percents = [share.percent for share in shares]
    for name, axes, color in zip(names, panels, ("tab:blue", "tab:orange", "tab:green"), strict=False):
        _panel(axes, percents, [one[name] for one in measures], color)
        axes.set_title(name.replace("_", " "), loc="left", fontsize=10)
    num_seeds = max(share.num_seeds for share in shares)
    told = f"{counted(num_rows, 'row')} of {evaluation[0]}; standard errors of {counted(num_seeds, 'seed')}"
    whole = measures[0][names[0]].mean
    if (error := error_by_rows(names[0], whole, num_rows)) is not None:
        # Without it the axis makes every difference look large.
        panels[0].axhspan(whole - error, whole + error, color="black", alpha=0.07, linewidth=0)
        told += "; shaded: by choice of rows"
    figure.suptitle(f"teacher scored on {told}", fontsize=9)
    save(figure, path)


def _panel(axes: Axes, percents: list[int], spreads: list[Spread], color: str) -> None:
    means, errors = [spread.mean for spread in spreads], [spread.standard_error or 0.0 for spread in spreads]
    axes.errorbar(percents, means, errors, color=color, marker="o", markersize=4, linewidth=1.6, capsize=3)
    axes.set_xticks(percents, [str(percent) for percent in percents], fontsize=8)
    axes.set_xlabel("random weights removed, %", fontsize=9)
    axes.tick_params(axis="y", labelsize=8)
    tidy(axes)
