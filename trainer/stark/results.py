"""Results of every level, the best of them, and the table that says so."""

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from hskcache.sparsity.levels import num_removed
from trainer.stark.confidence import Confidence
from trainer.stark.settings import KNOWLEDGE, OTHERS, Level
from trainer.study.aligned import aligned

_ORDER = (KNOWLEDGE, *OTHERS)


@dataclass(frozen=True)
class Row:
    """A level.

    Attributes:
        method: what heads and neurons were ranked by.
        percent: of them removed.
        field: of the cache, that the student learned from.
        heads_removed, neurons_removed: over all layers.
        metrics: of the student on the evaluation rows.
        at_chance: whether they know no more than the most frequent class.
        confidence: of the teacher on the training rows; None of a regression, or where its logits cannot be read.
    """

    method: str
    percent: int
    field: str
    heads_removed: int
    neurons_removed: int
    metrics: dict[str, float]
    at_chance: bool = False
    confidence: Confidence | None = None


@dataclass(frozen=True)
class Results:
    """Every level that is trained.

    Attributes:
        metric: the one that picks.
        heads, neurons: of the dense teacher, over all layers.
        num_evaluated: evaluation rows that every student was scored on.
        rows: by method, then by sparsity; the first is the dense teacher's.
    """

    metric: str
    heads: int
    neurons: int
    num_evaluated: int
    rows: tuple[Row, ...]

    @property
    def standard_error(self) -> float | None:
        """Standard error of the accuracy of level 0, as :func:`error_by_rows` says; None of another metric."""
        return error_by_rows(self.metric, self.score(self.dense), self.num_evaluated)

    @property
    def dense(self) -> Row:
        """Level 0, of every method."""
        return self.rows[0]

    @property
    def best(self) -> Row:
        """The best level of the method alone, whatever the others reach; of equals the one that removes least."""
        own = [row for row in self.rows if row.method == KNOWLEDGE]
        return max(own, key=lambda row: (self.score(row), -row.percent))

    def score(self, row: Row) -> float:
        """The metric that picks."""
        return row.metrics[self.metric]

    def with_confidences(self, by_field: Mapping[str, Confidence | None]) -> "Results":
        """The same with the confidence of every row's teacher, by field of the cache."""
        return replace(self, rows=tuple(replace(row, confidence=by_field.get(row.field)) for row in self.rows))

    def to_json(self) -> dict[str, Any]:
        """Plain values of the results."""
        best = {"method": self.best.method, "percent": self.best.percent, "field": self.best.field}
        plain = asdict(self)
        plain["rows"] = list(plain["rows"])
        return plain | {"best": best, "standard_error": self.standard_error}


def results_of(
    metric: str,
    sizes: tuple[int, int],
    num_evaluated: int,
    scores: Mapping[Level, Mapping[str, float]],
    at_chance: Collection[Level] = (),
) -> Results:
    """Put levels together.

    Args:
        metric: the one that picks.
        sizes: heads and neurons of the dense teacher, over all layers.
        num_evaluated: evaluation rows.
        scores: metrics of every level's student, that of the dense teacher among them.
        at_chance: levels whose students know no more than the most frequent class.
    """
    heads, neurons = sizes
    ordered = sorted(scores, key=lambda level: (_ORDER.index(level.method), level.percent))
    rows = tuple(
        Row(
            method=level.method,
            percent=level.percent,
            field=level.field,
            heads_removed=num_removed(heads, level.percent),
            neurons_removed=num_removed(neurons, level.percent),
            metrics=dict(scores[level]),
            at_chance=level in at_chance,
        )
        for level in ordered
    )
    return Results(metric, heads, neurons, num_evaluated, rows)


def error_by_rows(metric: str, score: float, num_rows: int) -> float | None:
    """The standard error of an accuracy by the choice of the evaluation rows; None of another metric.

    That of a share p of n rows: sqrt(p (1 - p) / n). Of all rows or none it would be 0, which tells nothing: None.
    """
    if metric != "accuracy" or not 0 < score < 1:
        return None
    return math.sqrt(score * (1 - score) / num_rows)


def table(results: Results) -> str:
    """Table for people: a line a level, its teacher's units and confidence, its student's metrics and the distance."""
    names = list(results.dense.metrics)
    several = any(row.method != KNOWLEDGE for row in results.rows)
    sure = ["variance", "-entropy"] if any(row.confidence is not None for row in results.rows) else []
    head = ["sparsity", "heads kept", "neurons kept", *sure, *names, "to level 0", ""]
    lines = [[*(["ranked by"] if several else []), *head]]
    for row in results.rows:
        distance = "" if row is results.dense else f"{results.score(row) - results.score(results.dense):+.4f}"
        method = ["" if row is results.dense else row.method] if several else []
        marks = {"best": row is results.best, "chance": row.at_chance}
        kept = (results.heads - row.heads_removed, results.neurons - row.neurons_removed)
        lines.append(
            [
                *method,
                f"{row.percent} %",
                *(f"{count:,}" for count in kept),
                *(_confidence(row) if sure else ()),
                *(f"{row.metrics[name]:.4f}" for name in names),
                distance,
                ", ".join(mark for mark, is_so in marks.items() if is_so),
            ]
        )
    return aligned(lines, num_words=len(lines[0]) - len(head))


def _confidence(row: Row) -> tuple[str, str]:
    if (sure := row.confidence) is None:
        return "", ""
    return f"{sure.variance:.4f}", f"{sure.negative_entropy:.4f}"
