"""Score over bytes a row of a study, a line for each strategy."""

from collections.abc import Sequence

from markupsafe import Markup

from hskcache.report.charts import NUM_COLOURS
from hskcache.report.svg import Drawing, Scale, alike, plain
from hskcache.studied import StudyPoint, StudyResults, shown_range

_LEVELS = (("teacher", "the teacher"), ("labels", "labels alone"), ("majority", "the majority"))


def curves(study: StudyResults) -> Markup:
    """The lines with the bands of their intervals; teacher, labels alone and majority lie across."""
    lines = {name: drawn(points) for name, points in study.strategies.items()}
    lines = {name: points for name, points in lines.items() if points}
    points = [point for line in lines.values() for point in line]
    about = "; ".join(
        f"{name}: " + ", ".join(f"{one.mean:.4f} at {one.bytes_per_row:,.0f} bytes" for one in line)
        for name, line in lines.items()
    )
    drawing = Drawing(600, 380, f"{study.metric} over bytes a row, by strategy", about, left=52, top=30, right=84)
    if not points:
        return drawing.svg()
    sizes = [point.bytes_per_row for point in points]
    across = drawing.across(min(sizes) / 1.3, max(sizes) * 1.3, is_log=True)
    up = drawing.up(*_range(study, points))
    drawing.axis_left(up, study.metric, alike(up.ticks(6)), most=6)
    _levels(drawing, study, up)
    for place, (name, line) in enumerate(lines.items()):
        _line(drawing, (name, place), line, (across, up))
    drawing.axis_below(across, "encoded bytes a row, by factors", plain)
    return drawing.svg()


def colour(place: int) -> int:
    """Number of the colour of a line, of those of the page."""
    return (place + 2) % NUM_COLOURS


def again(place: int) -> str:
    """Class of a line whose colour another one has: it is dashed, and its dots are hollow."""
    return " again" if place >= NUM_COLOURS else ""


def drawn(points: Sequence[StudyPoint]) -> list[StudyPoint]:
    """Points that have a place: some score, and more than no bytes."""
    return [point for point in points if point.mean is not None and point.bytes_per_row > 0]


def levels(study: StudyResults) -> dict[str, float]:
    """Scores that belong to no size, by what they are of."""
    labels = None if study.labels is None else study.labels.mean
    known = {"teacher": study.teacher, "labels": labels, "majority": study.majority}
    return {words: value for key, words in _LEVELS if (value := known[key]) is not None}


def _range(study: StudyResults, points: Sequence[StudyPoint]) -> tuple[float, float]:
    """Scores from lowest to highest with what is near of their bands; the majority only where it is not far below."""
    across = [value for words, value in levels(study).items() if words != "the majority"]
    around = [(one.mean, one.interval or 0.0) for one in points if one.mean is not None]
    return shown_range([*across, *(mean for mean, _ in around)], around)


def _levels(drawing: Drawing, study: StudyResults, up: Scale) -> None:
    lowest = drawing.top - 20
    for words, value in sorted(levels(study).items(), key=lambda level: -level[1]):
        if up.low <= value <= up.high:
            end = drawing.width - drawing.right
            drawing.mark("path", title=f"{words}: {value:.4f}", class_="level", d=f"M{drawing.left} {up(value)}H{end}")
            lowest = max(up(value) + 4, lowest + 14)
            drawing.text(end + 6, lowest, words, "start")


def _line(drawing: Drawing, named: tuple[str, int], points: Sequence[StudyPoint], scales: tuple[Scale, Scale]) -> None:
    (name, place), (across, up) = named, scales
    number, twice = colour(place), again(place)
    places = [(across(one.bytes_per_row), one.mean, one.interval or 0.0, one) for one in points if one.mean is not None]

    def end(score: float) -> float:
        return up(min(max(score, up.low), up.high))

    if len(places) == 1 and places[0][2]:
        # A band of no width would not be seen.
        x, mean, interval, _ = places[0]
        drawing.mark("path", class_=f"bar s{number}", d=f"M{x} {end(mean - interval)}V{end(mean + interval)}")
    elif any(interval for _, _, interval, _ in places):
        upper = [f"{x} {end(mean + interval)}" for x, mean, interval, _ in places]
        lower = [f"{x} {end(mean - interval)}" for x, mean, interval, _ in reversed(places)]
        drawing.mark("path", class_=f"band c{number}", d=f"M{'L'.join(upper + lower)}Z")
    drawing.mark(
        "path", class_=f"line s{number}{twice}", d="M" + "L".join(f"{x} {up(mean)}" for x, mean, _, _ in places)
    )
    dot = f"dot s{number}{twice}" if twice else f"dot c{number}"
    for x, mean, interval, one in places:
        told = f"{name}, {one.keep}: {mean:.4f}" + (f" ± {interval:.4f}" if interval else "")
        title = f"{told}, {one.bytes_per_row:,.0f} bytes a row"
        drawing.mark("circle", title=title, class_=dot, cx=x, cy=up(mean), r=4.5)
