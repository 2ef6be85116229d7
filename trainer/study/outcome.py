"""Outcome of a study as far as it is done: scores of cells put together into results."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from hskcache.locks import locked
from hskcache.spec import format_keep
from hskcache.store.files import write_atomic
from hskcache.studied import RESULTS, SeedScore, StudyPoint, StudyResults
from trainer.chance import is_at_chance
from trainer.study.aligned import aligned
from trainer.study.cells import StudyCell
from trainer.study.intervals import interval_of, paired
from trainer.study.points import Point
from trainer.study.size import KnowledgeSizes

TABLE = "results.csv"
WRITING = "results.lock"
"""Lock file of whoever writes the results."""


@dataclass(frozen=True)
class Study:
    """A study that a cache can serve.

    Attributes:
        name: of the study.
        metric: that is compared.
        cells: by point, one a seed.
        labels: point of gold labels alone; None without.
        baseline: name of the point that differences are taken to.
        seeds: of every point.
        num_eval_rows: that every cell is scored on.
        sizes: of what points learn from.
    """

    name: str
    metric: str
    cells: Mapping[str, Sequence[StudyCell]]
    labels: Point | None
    baseline: str
    seeds: Sequence[int]
    num_eval_rows: int
    sizes: KnowledgeSizes

    @property
    def in_order(self) -> list[StudyCell]:
        """All cells, seeds outermost: one that is cut off has all points of some seeds."""
        return [cells[place] for place in range(len(self.seeds)) for cells in self.cells.values()]


def results_of(study: Study) -> StudyResults:
    """Results of the cells that are done. Raises DamageError if a cell's result cannot be read."""
    done = {name: _done(cells) for name, cells in study.cells.items()}
    scores = {
        name: {seed: float(result["scores"][study.metric]) for seed, result in some.items()}
        for name, some in done.items()
    }
    baseline = scores[study.baseline]
    points = {
        name: _point(study, study.cells[name], done[name], paired(own, baseline) if name != study.baseline else None)
        for name, own in scores.items()
    }
    labels = points.pop(study.labels.name) if study.labels else None
    finished = [result for some in done.values() for result in some.values()]
    beside: dict[str, dict[str, float]] = finished[0].get("baselines", {}) if finished else {}
    cache = study.sizes.cache
    return StudyResults(
        name=study.name,
        cache=cache.id,
        cache_keep=format_keep(cache.manifest.request.spec.hidden),
        num_rows=max((cells[0].point.num_rows or cache.num_rows for cells in study.cells.values()), default=0),
        metric=study.metric,
        num_eval_rows=study.num_eval_rows,
        teacher=beside.get("teacher", {}).get(study.metric),
        majority=beside.get("majority", {}).get(study.metric),
        labels=labels,
        baseline=study.baseline,
        seeds=list(study.seeds),
        points=list(points.values()),
    )


def _done(cells: Sequence[StudyCell]) -> dict[int, dict[str, Any]]:
    """Results of cells by seed, of those that are done."""
    found = ((cell.seed, cell.result()) for cell in cells)
    return {seed: result for seed, result in found if result is not None}


def _point(study: Study, cells: Sequence[StudyCell], done: Mapping[int, dict[str, Any]], difference: Any) -> StudyPoint:
    point, metric = cells[0].point, study.metric
    runs = [
        SeedScore(
            seed=cell.seed,
            score=float(done[cell.seed]["scores"][metric]),
            cell=cell.digest,
            at_chance=is_at_chance(done[cell.seed]),
        )
        for cell in cells
        if cell.seed in done
    ]
    scores = [run.score for run in runs]
    first = next(iter(done.values()), {})
    interval = interval_of(scores, (first.get("standard_errors") or {}).get(metric))
    return StudyPoint(
        name=point.name,
        axes=dict(point.axes),
        strategy=point.strategy,
        keep=point.keep,
        encoding=study.sizes.encoding(point),
        bytes_per_row=round(study.sizes.bytes_per_row(point), 3),
        scores=runs,
        mean=fmean(scores) if scores else None,
        interval=None if interval is None else interval.half_width,
        interval_by=None if interval is None else interval.by,
        difference=difference,
    )


def write(study: Study, out: Path) -> StudyResults:
    """Write results.json and results.csv of what is done by now, whichever process did it."""
    out.mkdir(parents=True, exist_ok=True)
    with locked(out / WRITING, remove=True):
        results = results_of(study)
        write_atomic(out / RESULTS, (results.model_dump_json(indent=2) + "\n").encode())
        write_atomic(out / TABLE, _csv(results).encode())
    return results


def everything(results: StudyResults) -> list[StudyPoint]:
    """All points, labels alone before the others."""
    return [*([results.labels] if results.labels else []), *results.points]


def _csv(results: StudyResults) -> str:
    """A line a run, with the interval and difference of its point."""
    axes = list(dict.fromkeys(axis for point in results.points for axis in point.axes))
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    told = ("mean", "interval", "interval_by", "difference", "difference_interval")
    lines.writerow(
        ("point", "strategy", *axes, "keep", "encoding", "bytes_per_row", "seed", results.metric, "cell", *told)
    )
    for point in everything(results):
        difference = (None, None) if point.difference is None else (point.difference.mean, point.difference.interval)
        of_point = (point.mean, point.interval, point.interval_by, *difference)
        place = (point.name, point.strategy, *(point.axes.get(axis) for axis in axes))
        size = (point.keep, point.encoding, point.bytes_per_row)
        for run in point.scores:
            lines.writerow((*place, *size, run.seed, run.score, run.cell, *of_point))
    return text.getvalue()


def table(results: StudyResults) -> str:
    """Table for people: a line a point, with the interval of its mean and its difference to the baseline."""
    header = ["point", "bytes a row", "seeds", results.metric, f"to {results.baseline}", ""]
    lines = [header]
    for name, value in (("teacher", results.teacher), ("majority", results.majority)):
        if value is not None:
            lines.append([f"({name})", "", "", f"{value:.4f}", "", ""])
    for point in everything(results):
        marks = ["baseline"] if point.name == results.baseline else []
        if any(run.at_chance for run in point.scores):
            marks.append("chance")
        size = f"{point.bytes_per_row:,.1f}" if point.bytes_per_row else ""
        lines.append([point.name, size, str(len(point.scores)), _score(point), _difference(point), ", ".join(marks)])
    return aligned(lines, num_words=1)


def _score(point: StudyPoint) -> str:
    if point.mean is None:
        return "not run yet"
    return f"{point.mean:.4f}" + ("" if point.interval is None else f" ± {point.interval:.4f}")


def _difference(point: StudyPoint) -> str:
    if (difference := point.difference) is None:
        return ""
    return f"{difference.mean:+.4f}" + ("" if difference.interval is None else f" ± {difference.interval:.4f}")


def legend(results: StudyResults) -> str:
    """Sentence on what the intervals are over, and what is left to do."""
    by = {point.interval_by for point in everything(results)}
    rows = f"over draws of {results.num_eval_rows:,} evaluation rows"
    told = {
        (True, False): ["± is the 95 % interval over seeds by Student's t"],
        (False, True): [f"± is the 95 % interval {rows}, of one seed"],
        (True, True): [f"± is the 95 % interval over seeds by Student's t, of points with one seed {rows}"],
        (False, False): [],
    }["seeds" in by, "rows" in by]
    if any(point.difference is not None for point in results.points):
        told.append("differences are taken seed by seed")
    if results.num_left:
        told.append(f"{results.num_left} runs are not done yet")
    return "; ".join(told)
