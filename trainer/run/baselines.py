"""Scores that a student's are read beside: its teacher's on the same rows, and that of knowing nothing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from hskcache.evaluation import check_labels
from hskcache.metrics import Metric, with_names
from hskcache.text import Examples
from trainer import chance
from trainer.source.knowledge import Knowledge


@dataclass(frozen=True)
class Baselines:
    """Scores of others on the rows that score a student.

    Attributes:
        majority: metrics of always giving the most frequent class, or the mean score; empty where there is no task.
        teacher: metrics of the teacher; empty where they are not known.
        agreement: the teacher's agreement with the labels of the rows that are learned from, in words; empty where the
            teacher's metrics are known, or nothing is.
    """

    majority: Mapping[str, float] = field(default_factory=dict)
    teacher: Mapping[str, float] = field(default_factory=dict)
    agreement: str = ""

    def beside(self, metric: str) -> list[str]:
        """The values of a metric, each in words."""
        known = {"teacher": self.teacher, "majority": self.majority}
        values = [f"{name} {scores[metric]:.4f}" for name, scores in known.items() if metric in scores]
        return [", ".join(values)] if values else []

    def record(self) -> dict[str, dict[str, dict[str, float]]]:
        """The same for metrics.json, as far as anything is known."""
        known = {"teacher": self.teacher, "majority": self.majority}
        return {"baselines": plain} if (plain := {name: dict(one) for name, one in known.items() if one}) else {}


def baselines_of(
    knowledge: Knowledge,
    examples: Examples,
    metrics: Mapping[str, Metric],
    live: Callable[[], Mapping[str, float]] | None,
) -> Baselines:
    """Scores of others on evaluation rows.

    ``live``: scores a teacher in the loop on them; of a cache its manifest tells, if the build was given these rows.
    """
    majority = chance.majority(check_labels(examples), with_names(metrics, examples.label_names))
    if live is not None:
        return Baselines(majority, live())
    length = knowledge.request.spec.max_length
    known = next((one.metrics for one in knowledge.evaluations if one.is_of(examples.fingerprint, length)), None)
    if known is not None:
        return Baselines(majority, {name: value for name, value in known.items() if name in metrics})
    if knowledge.agreement is None or not knowledge.agreement.num_rows:
        return Baselines(majority)
    return Baselines(
        majority,
        agreement=(
            f"the teacher's score on {examples.source} is not known (the cache's hskcache build takes it with "
            f"--eval-data {examples.source}); of the rows of the cache it {knowledge.agreement.summary()}"
        ),
    )
