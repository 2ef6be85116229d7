"""The score over the sparsity of the teacher, as a picture."""

from functools import partial
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from trainer.stark.results import Results
from trainer.stark.settings import KNOWLEDGE, OTHERS
from trainer.study.chart import STYLES, Chart, Curve, LevelLine, Style, draw

_STYLES = dict(zip((KNOWLEDGE, *OTHERS), STYLES, strict=False))
_STYLES[KNOWLEDGE] = _STYLES[KNOWLEDGE]._replace(width=2.0)


def plot(results: Results, evaluation: str, path: Path) -> None:
    """Draw a PNG: a line a method, the student of the dense teacher as a level line with one standard error around it.

    The best level is ringed. ``evaluation``: what to call the rows that the students were scored on. ``path``: where to
    write it; the file is whole or absent.
    """
    dense, best = results.score(results.dense), results.best
    line = LevelLine(
        f"of the dense teacher: {dense:.4f}",
        dense,
        half_width=results.standard_error,
        band="one standard error of level 0",
    )
    curves = [curve for method, style in _STYLES.items() if (curve := _curve(results, method, style)) is not None]
    ringed = (best.percent, results.score(best), f"best: {best.percent} %, {results.score(best):.4f}")
    percents = sorted({row.percent for row in results.rows})
    chart = Chart(
        f"students scored on {evaluation}",
        ("heads and neurons removed from the teacher", f"{results.metric} of the student"),
        curves,
        [line],
        ringed,
        partial(_percent_axis, percents=percents),
    )
    draw(chart, path)


def _curve(results: Results, method: str, style: Style) -> Curve | None:
    """The levels of a method, and level 0, which belongs to every one; None without any."""
    rows = [row for row in results.rows if row.method == method and row.percent > 0]
    if not rows:
        return None
    points = [results.dense, *rows]
    return Curve(method, [row.percent for row in points], [results.score(row) for row in points], style)


def _percent_axis(axes: Axes, percents: list[int]) -> None:
    axes.set_xticks(percents if len(percents) <= 12 else range(0, percents[-1] + 1, 10))
    axes.xaxis.set_major_formatter(PercentFormatter(decimals=0, symbol=" %"))
