"""The score over the sparsity of the teacher, as a picture."""

from io import BytesIO
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from hskcache.store.files import write_atomic
from trainer.stark.results import Results
from trainer.stark.settings import KNOWLEDGE, OTHERS

# By shape too: the curves must be told apart in grey.
_STYLES = {
    KNOWLEDGE: ("o", "-", "tab:blue"),
    "plain": ("s", "-", "tab:orange"),
    "magnitude": ("^", "-", "tab:green"),
    "random": ("D", ":", "tab:purple"),
}
assert _STYLES.keys() == {KNOWLEDGE, *OTHERS}


def plot(results: Results, evaluation: str, path: Path) -> None:
    """Draw a PNG: a line a method, the student of the dense teacher as a level line with one standard error around it.

    The best level is ringed. ``evaluation``: what to call the rows that the students were scored on. ``path``: where to
    write it; the file is whole or absent.
    """
    save(_figure(results, evaluation), path)


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


def _figure(results: Results, evaluation: str) -> Figure:
    figure = Figure(figsize=(7, 4.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    dense = results.score(results.dense)
    axes.axhline(dense, color="black", linestyle="--", linewidth=1, label=f"of the dense teacher: {dense:.4f}")
    if (error := results.standard_error) is not None:
        # Without it the axis makes every difference look large.
        label = "one standard error of level 0"
        axes.axhspan(dense - error, dense + error, color="black", alpha=0.07, linewidth=0, label=label)
    for method, (marker, line, color) in _STYLES.items():
        rows = [row for row in results.rows if row.method == method and row.percent > 0]
        if rows:
            # Level 0 belongs to every method.
            points = [results.dense, *rows]
            scores = [results.score(row) for row in points]
            percents = [row.percent for row in points]
            width, layer = (2.0, 3) if method == KNOWLEDGE else (1.2, 2)
            (curve,) = axes.plot(percents, scores, line, color=color, marker=marker, markersize=5, label=method)
            curve.set(linewidth=width, zorder=layer)
    best = results.best
    score = results.score(best)
    label = f"best: {best.percent} %, {score:.4f}"
    axes.plot([best.percent], [score], "o", color="tab:red", markersize=13, fillstyle="none", label=label, zorder=4)
    axes.set_title(f"students scored on {evaluation}", loc="left", fontsize=9)
    axes.set_xlabel("heads and neurons removed from the teacher")
    axes.set_ylabel(f"{results.metric} of the student")
    percents = sorted({row.percent for row in results.rows})
    axes.set_xticks(percents if len(percents) <= 12 else range(0, percents[-1] + 1, 10))
    axes.xaxis.set_major_formatter(PercentFormatter(decimals=0, symbol=" %"))
    tidy(axes)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    return figure
