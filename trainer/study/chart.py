"""Charts of scores over something, as pictures: curves with bands, level lines, and a ring around the best."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from textwrap import fill
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hskcache.store.files import write_atomic
from hskcache.studied import shown_range


class Style(NamedTuple):
    """Look of a curve; by shape too, as curves must be told apart in grey."""

    marker: str
    line: str
    color: str
    width: float = 1.4


STYLES = (
    Style("o", "-", "tab:blue"),
    Style("s", "-", "tab:orange"),
    Style("^", "-", "tab:green"),
    Style("D", ":", "tab:purple"),
    Style("v", "--", "tab:brown"),
    Style("P", "-.", "tab:pink"),
    Style("X", ":", "tab:olive"),
    Style("*", "--", "tab:cyan"),
    Style("h", "-.", "navy"),
    Style("<", ":", "goldenrod"),
    Style(">", "--", "teal"),
    Style("d", "-", "crimson"),
)
"""Looks of curves that have none of their own, in order."""


_TITLE_LETTERS = 90
"""Letters of a title that a line has room for."""


@dataclass(frozen=True)
class Curve:
    """Scores over something.

    Attributes:
        label: of the legend.
        places: along the horizontal axis, ascending.
        scores: at these places.
        intervals: half their widths; None draws no band.
        is_apart: whether places have nothing between them: bars in place of a band.
    """

    label: str
    places: Sequence[float]
    scores: Sequence[float]
    style: Style
    intervals: Sequence[float] | None = None
    is_apart: bool = False


@dataclass(frozen=True)
class LevelLine:
    """A score that belongs to no place.

    Attributes:
        label: of the legend.
        half_width: of the band around it; None draws none.
        band: what the band is, for the legend; empty: nothing is said.
    """

    label: str
    score: float
    line: str = "--"
    color: str = "black"
    half_width: float | None = None
    band: str = ""


@dataclass(frozen=True)
class Chart:
    """A picture.

    Attributes:
        title: above it, small.
        labels: of the horizontal and the vertical axis.
        best: place, score and label of what is ringed; None: nothing.
        prepare: sets the horizontal axis up; None leaves it.
    """

    title: str
    labels: tuple[str, str]
    curves: Sequence[Curve]
    lines: Sequence[LevelLine] = ()
    best: tuple[float, float, str] | None = None
    prepare: Callable[[Axes], None] | None = None


def draw(chart: Chart, path: Path) -> None:
    """Draw a PNG; the file is whole or absent."""
    figure = Figure(figsize=(7, 4.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    for line in chart.lines:
        axes.axhline(line.score, color=line.color, linestyle=line.line, linewidth=1.2, label=line.label)
        if line.half_width is not None:
            # Without it the axis makes every difference look large.
            low, high = line.score - line.half_width, line.score + line.half_width
            axes.axhspan(low, high, color=line.color, alpha=0.07, linewidth=0, label=line.band or None)
    for order, curve in enumerate(chart.curves):
        _curve(axes, curve, 3 - order / 100)
    if chart.best is not None:
        place, score, label = chart.best
        axes.plot([place], [score], "o", color="tab:red", markersize=13, fillstyle="none", label=label, zorder=4)
    if chart.curves or chart.lines:
        axes.set_ylim(*_range(chart))
    axes.set_title(fill(chart.title, _TITLE_LETTERS), loc="left", fontsize=9)
    axes.set_xlabel(chart.labels[0])
    axes.set_ylabel(chart.labels[1])
    if chart.prepare is not None:
        chart.prepare(axes)
    tidy(axes)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    save(figure, path)


def _range(chart: Chart) -> tuple[float, float]:
    around = [(line.score, line.half_width or 0.0) for line in chart.lines]
    for curve in chart.curves:
        around += zip(curve.scores, curve.intervals or [0.0] * len(curve.scores), strict=True)
    return shown_range([score for score, _ in around], around)


def _curve(axes: Axes, curve: Curve, layer: float) -> None:
    marker, line, color, width = curve.style
    (drawn,) = axes.plot(curve.places, curve.scores, linestyle=line, color=color, marker=marker, markersize=5)
    # A curve without a name is alone, and what its points are stands below them.
    drawn.set(linewidth=width, zorder=layer, label=curve.label or "_")
    if curve.intervals is None:
        return
    if curve.is_apart or len(curve.places) == 1:
        # A band would have no width, or fill what lies between places.
        bars = axes.errorbar(curve.places, curve.scores, curve.intervals, fmt="none", ecolor=color, capsize=3)
        bars.lines[2][0].set_linewidth(1)
        return
    low = [score - half for score, half in zip(curve.scores, curve.intervals, strict=True)]
    high = [score + half for score, half in zip(curve.scores, curve.intervals, strict=True)]
    axes.fill_between(curve.places, low, high, color=color, alpha=0.12, linewidth=0, zorder=1)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, so that the file is whole or absent."""
    data = BytesIO()
    figure.savefig(data, format="png")
    write_atomic(path, data.getvalue())


def tidy(axes: Axes) -> None:
    """Few ticks, a pale grid behind what is drawn, no frame."""
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, min_n_ticks=3))
    axes.grid(axis="y", color="lightgrey", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
