"""The picture of a study: scores over the bytes of a row that are kept, a curve a strategy."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import cycle
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from hskcache.studied import StudyPoint, StudyResults
from trainer.study.chart import STYLES, Chart, Curve, LevelLine, Style, draw

PLOT = "study.png"
_MOST_LETTERS = 60
_FEW_POWERS = 100
Prepare = Callable[[Axes], None]


def plot(results: StudyResults, about: str, path: Path) -> None:
    """Draw a PNG of a study as far as it is done: means with 95 % bands over bytes a row, on a log axis.

    Points that all keep as much, such as fields of several teachers, stand side by side by their names. The teacher and
    gold labels alone are level lines.

    Args:
        results: of the study.
        about: one sentence on it, for the title; may be empty.
        path: where to write it; the file is whole or absent.
    """
    rows = f"{results.num_rows:,} rows learned from, scored on {results.num_eval_rows:,}"
    title = ". ".join(filter(None, [about.rstrip("."), rows]))
    done = [point for point in results.points if point.mean is not None]
    curves, axis, prepare = _by_name(done) if len({point.bytes_per_row for point in done}) == 1 else _by_size(results)
    labels = (axis, f"{results.metric} of the student")
    draw(Chart(title, labels, curves, _lines(results), prepare=prepare), path)


def _by_size(results: StudyResults) -> tuple[list[Curve], str, Prepare]:
    """A curve a strategy over bytes a row."""
    styles, curves = cycle(STYLES), []
    for (strategy, points), style in zip(results.strategies.items(), styles, strict=False):
        if done := [point for point in points if point.mean is not None]:
            curves.append(_curve(strategy, [point.bytes_per_row for point in done], done, style))
    return curves, "bytes a row of knowledge, before compression", _log


def _by_name(points: list[StudyPoint]) -> tuple[list[Curve], str, Prepare]:
    """All points side by side, each with its interval."""
    names = [point.name for point in points]
    curve = _curve("", range(len(points)), points, STYLES[0]._replace(line="none"))
    return [replace(curve, is_apart=True)], "", partial(_named, names=names)


def _curve(strategy: str, places: Sequence[float], points: list[StudyPoint], style: Style) -> Curve:
    scores = [point.mean for point in points if point.mean is not None]
    known = [point.interval for point in points if point.interval is not None]
    return Curve(strategy, places, scores, style, known if len(known) == len(points) else None)


def _lines(results: StudyResults) -> list[LevelLine]:
    lines = []
    if results.teacher is not None:
        lines.append(LevelLine(f"teacher: {results.teacher:.4f}", results.teacher))
    if results.labels is not None and (mean := results.labels.mean) is not None:
        label = f"{results.labels.name}: {mean:.4f}"
        lines.append(LevelLine(label, mean, ":", "tab:gray", results.labels.interval))
    return lines


def _log(axes: Axes) -> None:
    """Bytes on a log axis; between powers of ten some are named where there are few of these."""
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.xaxis.set_major_formatter(EngFormatter("B"))
    axes.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    axes.xaxis.set_minor_formatter(EngFormatter("B") if high < _FEW_POWERS * low else NullFormatter())
    axes.tick_params(axis="x", which="minor", labelsize=8)
    axes.grid(axis="x", which="major", color="lightgrey", linewidth=0.4)


def _named(axes: Axes, names: list[str]) -> None:
    """Name every place, slanted where there are many."""
    axes.set_xticks(range(len(names)), names, fontsize=8)
    if sum(map(len, names)) > _MOST_LETTERS:
        for label in axes.get_xticklabels():
            label.set(rotation=30, ha="right")
    axes.margins(x=0.1)
