"""Charts of what was counted of a cache."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from hskcache import units
from hskcache.counted import counted
from hskcache.report.svg import Drawing, percent, plain
from hskcache.stats.model import (
    CacheStats,
    ClassAnswers,
    FlagAnswers,
    KeptPositions,
    LayerBytes,
    LayerValues,
    LengthCounts,
    ScoreAnswers,
)

NUM_COLOURS = 6
_WIDTH = 480
_MOST_BARS = 60
_MOST_CELLS = 48


def size_bar(sizes: Sequence[LayerBytes]) -> Markup:
    """One bar of all bytes, a part for each field and layer; fields have colours, layers shades."""
    total, fields = sum(part.num_bytes for part in sizes), list(dict.fromkeys(part.field for part in sizes))
    drawing = Drawing(960, 34, f"{units.human_bytes(total)} by field and layer", left=0, right=0, top=0, bottom=0)
    place = 0.0
    for part in sizes:
        width = 960 * part.num_bytes / max(total, 1)
        drawing.mark(
            "rect",
            title=f"{_name(part.field, part.layer)}: {units.human_bytes(part.num_bytes)}",
            class_=f"c{fields.index(part.field) % NUM_COLOURS}",
            x=round(place, 1),
            y=0,
            width=max(round(width - 1.5, 1), 0.5),
            height=34,
        )
        place += width
    return drawing.svg()


def lengths(found: LengthCounts) -> Markup:
    """Rows by their length."""
    shortest = next((length for length, num_rows in enumerate(found.counts) if num_rows), 0)
    title = (
        f"Rows by length: {shortest} to {found.longest} tokens, {found.mean:.1f} on average, half of the rows at most "
        f"{found.median}"
    )
    return bars(found.counts, title, ("tokens of a row", "rows"), line=found.mean)


def kept_counts(found: KeptPositions) -> Markup:
    """Rows by how many positions were kept of them."""
    title = f"Rows by number of positions kept in {_name(found.field, found.layer)}"
    return bars(found.by_count, title, ("positions kept of a row", "rows"))


def bars(counts: Sequence[int], title: str, words: tuple[str, str], line: float | None = None) -> Markup:
    """Counts of whole numbers; many of them are drawn some at a time.

    ``words``: on what is below and on the left; ``line``: a number that is marked.
    """
    first = next((number for number, num in enumerate(counts) if num), 0)
    step = max(1, -(-(len(counts) - first) // _MOST_BARS))
    grouped = [sum(counts[start : start + step]) for start in range(first, len(counts), step)]
    drawing = Drawing(_WIDTH, 230, title, top=26)
    across, up = drawing.across(first, max(len(counts), first + 1)), drawing.up(0, max(grouped, default=1) or 1)
    drawing.axis_left(up, words[1], plain, most=4)
    for place, num in enumerate(grouped):
        start = first + place * step
        left, right = across(start), across(min(start + step, len(counts)))
        number = f"{start}" if step == 1 else f"{start} to {start + step - 1}"
        drawing.mark(
            "rect",
            title=f"{number}: {num:,}",
            class_="bar",
            x=left,
            y=up(num),
            width=max(round(right - left - 1, 1), 0.6),
            height=round(up(0) - up(num), 1),
        )
    if line is not None:
        drawing.mark(
            "path", title=f"mean {line:.1f}", class_="ln dash", d=f"M{across(line + 0.5)} {up(0)}V{drawing.top}"
        )
    ticks = [tick for tick in across.ticks() if tick == int(tick) and tick < len(counts)]
    drawing.axis_below(across, words[0], plain, ticks)
    return drawing.svg()


def position_grid(found: CacheStats) -> Markup:
    """Share of the rows that keep a position, by layer, of those that are so long."""
    reached = np.cumsum(found.lengths.counts[::-1])[::-1][1:]
    step = max(1, -(-len(reached) // _MOST_CELLS))
    starts = range(0, len(reached), step)
    height = 26 * len(found.kept)
    drawing = Drawing(_WIDTH * 2, height + 50, "Positions that are kept, by layer", left=110, top=6)
    across = drawing.across(0, max(len(reached), 1))
    for row, layer in enumerate(found.kept):
        kept = np.zeros(len(reached))
        kept[: len(layer.by_position)] = layer.by_position[: len(reached)]
        name = _name(layer.field, layer.layer)
        drawing.text(drawing.left - 8, drawing.top + 26 * row + 16, name, "end")
        for start in starts:
            part = slice(start, start + step)
            share = float(kept[part].sum() / max(reached[part].sum(), 1))
            stop = min(start + step, len(reached))
            where = f"position {start}" if step == 1 else f"positions {start} to {stop - 1}"
            drawing.mark(
                "rect",
                title=f"{name}, {where}: kept in {share:.0%} of {counted(int(reached[start]), 'row')}",
                class_="cell",
                fill_opacity=round(0.06 + 0.94 * share, 2),
                x=across(start),
                y=drawing.top + 26 * row,
                width=round(across(stop) - across(start) - 1, 1),
                height=24,
            )
    drawing.axis_below(across, "position in the row", plain)
    return drawing.svg()


def probabilities(answers: ClassAnswers, names: Sequence[str], label: int) -> Markup:
    """Probabilities that the teacher gives to a label, over the rows that have it."""
    counts = answers.label_probabilities[label]
    title = f"Probability of {names[label]}, of the {sum(counts):,} rows with this label"
    drawing = Drawing(_WIDTH, 180, title, top=26)
    across, up = drawing.across(0, 1), drawing.up(0, max(counts) or 1)
    drawing.axis_left(up, "rows", plain, most=3)
    for place, num in enumerate(counts):
        start, stop = place / len(counts), (place + 1) / len(counts)
        drawing.mark(
            "rect",
            title=f"{start:.0%} to {stop:.0%}: {counted(num, 'row')}",
            class_="bar" if start >= 1 / 2 else "bar off",
            x=across(start),
            y=up(num),
            width=round(across(stop) - across(start) - 1, 1),
            height=round(up(0) - up(num), 1),
        )
    drawing.axis_below(across, f"probability of {names[label]}", percent)
    return drawing.svg()


def calibration(answers: ClassAnswers | FlagAnswers) -> Markup:
    """Share of right answers over how sure they are; dots are as large as their rows are many."""
    drawing = Drawing(
        _WIDTH,
        360,
        f"Calibration: expected error {answers.calibration_error:.3f}",
        "; ".join(f"sure by {one.confidence:.0%}, right in {one.accuracy:.0%}" for one in answers.bins),
        top=26,
    )
    low = min([0.5, *(one.start for one in answers.bins)])
    across, up = drawing.across(low, 1), drawing.up(0, 1)
    drawing.axis_left(up, "share of right answers", percent)
    drawing.mark("path", class_="ln dash", d=f"M{across(low)} {up(low)}L{across(1)} {up(1)}")
    most = max((one.num_rows for one in answers.bins), default=1)
    for one in answers.bins:
        drawing.mark("path", class_="gap", d=f"M{across(one.confidence)} {up(one.confidence)}V{up(one.accuracy)}")
    line = "L".join(f"{across(one.confidence)} {up(one.accuracy)}" for one in answers.bins)
    drawing.mark("path", class_="ln", d=f"M{line}")
    for one in answers.bins:
        drawing.mark(
            "circle",
            title=f"{counted(one.num_rows, 'row')}: sure by {one.confidence:.1%}, right in {one.accuracy:.1%}",
            class_="dot",
            cx=across(one.confidence),
            cy=up(one.accuracy),
            r=round(3 + 8 * (one.num_rows / most) ** 0.5, 1),
        )
    drawing.axis_below(across, "probability of the answer", percent)
    return drawing.svg()


def scores(answers: ScoreAnswers) -> Markup:
    """Scores of the teacher over the labels, of some rows."""
    sides = (answers.label_values, answers.answer_values)
    low, high = min(side.least for side in sides), max(side.most for side in sides)
    drawing = Drawing(_WIDTH, 360, f"Scores over labels: correlation {answers.correlation:.3f}", top=26)
    across, up = drawing.across(low, high), drawing.up(low, high)
    drawing.axis_left(up, "score of the teacher", plain)
    drawing.mark("path", class_="ln dash", d=f"M{across(low)} {up(low)}L{across(high)} {up(high)}")
    for label, answer in answers.points:
        drawing.mark("circle", class_="dot thin", cx=across(label), cy=up(answer), r=2.5)
    drawing.axis_below(across, "label", plain)
    return drawing.svg()


def column_line(layer: LayerValues) -> Markup:
    """Root mean square of every entry, in the order of the entries, outliers marked."""
    rms, outliers = np.array(layer.by_entry.rms), layer.outliers[:20]
    drawing = Drawing(
        320, 44, f"Root mean square of the {len(rms):,} {layer.entries}", left=1, right=1, top=3, bottom=1
    )
    if not len(rms):
        return drawing.svg()
    across, up = drawing.across(0, len(rms)), drawing.up(0, float(rms.max()) or 1.0)
    step = -(-len(rms) // 384)
    tops = [float(rms[start : start + step].max()) for start in range(0, len(rms), step)]
    path = "".join(f"V{up(top)}H{across(min((place + 1) * step, len(rms)))}" for place, top in enumerate(tops))
    drawing.mark("path", class_="area", d=f"M{across(0)} {up(0)}{path}V{up(0)}Z")
    for entry in outliers:
        title = f"{layer.entries} {entry}: {rms[entry]:.2f}"
        drawing.mark("circle", title=title, class_="dot off", cx=across(entry + 0.5), cy=up(rms[entry]), r=2.2)
    return drawing.svg()


def _name(field: str, layer: int | None) -> str:
    return field if layer is None else f"{field} {layer}"
