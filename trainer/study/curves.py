"""The picture of a study: scores over the bytes of a row that are kept, a curve a strategy."""

from itertools import cycle
from pathlib import Path

from matplotlib.axes import Axes

from hskcache.studied import StudyPoint, StudyResults
from trainer.study.chart import STYLES, Chart, Curve, LevelLine, Style, draw

PLOT = "study.png"


def plot(results: StudyResults, about: str, path: Path) -> None:
    """Draw a PNG of a study as far as it is done: means with 95 % bands over bytes a row, on a log axis.

    The teacher, gold labels alone and always answering the most frequent class are level lines.

    Args:
        results: of the study.
        about: one sentence on it, for the title; may be empty.
        path: where to write it; the file is whole or absent.
    """
    styles = cycle(STYLES)
    done = {name: [one for one in some if one.mean is not None] for name, some in results.strategies.items()}
    curves = [_curve(name, some, next(styles)) for name, some in done.items() if some]
    rows = f"{results.num_rows:,} rows learned from, scored on {results.num_eval_rows:,}"
    title = ". ".join(filter(None, [about.rstrip("."), rows]))
    axis = "bytes a row of knowledge, before compression"
    draw(Chart(title, (axis, f"{results.metric} of the student"), curves, _lines(results), prepare=_log), path)


def _curve(strategy: str, points: list[StudyPoint], style: Style) -> Curve:
    scores = [point.mean for point in points if point.mean is not None]
    halves = [point.interval for point in points]
    known = [half for half in halves if half is not None]
    return Curve(
        strategy, [point.bytes_per_row for point in points], scores, style, known if len(known) == len(points) else None
    )


def _lines(results: StudyResults) -> list[LevelLine]:
    lines = []
    if results.teacher is not None:
        lines.append(LevelLine(f"teacher: {results.teacher:.4f}", results.teacher))
    if results.labels is not None and (mean := results.labels.mean) is not None:
        label = f"{results.labels.name}: {mean:.4f}"
        lines.append(LevelLine(label, mean, ":", "tab:gray", results.labels.interval))
    return lines


def _log(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.grid(axis="x", which="major", color="lightgrey", linewidth=0.4)
