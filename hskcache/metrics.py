"""Metrics of answers against labels, and which of them a problem has.

Dimension letters as in hskcache.spec: N rows, C classes.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from hskcache.classes import has_gold, of_words, several_classes
from hskcache.entities import entity_counts
from hskcache.errors import SpecError
from hskcache.nearest import meant

if TYPE_CHECKING:
    from numpy.typing import NDArray

BITS_PER_BYTE, PERPLEXITY = "bits_per_byte", "perplexity"
_LOWER_IS_BETTER = frozenset({BITS_PER_BYTE, PERPLEXITY})

Metric: TypeAlias = Callable[["NDArray[Any]", "NDArray[Any]"], float]


def accuracy(predictions: "NDArray[Any]", labels: "NDArray[Any]") -> float:
    """Share of the rows, or of their words, with a gold label whose predicted class it is; 0 where there are none."""
    classes = of_words(labels)
    is_gold = has_gold(classes)
    return float(np.mean(of_words(predictions)[is_gold] == classes[is_gold])) if is_gold.any() else 0.0


def f1(predictions: "NDArray[Any]", labels: "NDArray[Any]") -> float:
    """F1 of class 1 against all others; 0 where it is neither predicted nor present."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predictions, labels=[1], average="macro", zero_division=0.0))


def f1_macro(predictions: "NDArray[Any]", labels: "NDArray[Any]") -> float:
    """Plain mean of the F1 of every class that is predicted or present; of any number of classes a row, of every one.

    Of the latter ``predictions`` are logits [N, C], and a class without rows that is not predicted counts as 0.
    """
    from sklearn.metrics import f1_score

    if predictions.ndim == 2:
        predictions, labels = _flags(predictions, labels)
    return float(f1_score(labels, predictions, average="macro", zero_division=0.0))


def f1_micro(logits_NC: "NDArray[Any]", labels_NC: "NDArray[Any]") -> float:
    """F1 of all pairs of a row and a class together, at a probability of 0.5; 0 where none is predicted or present."""
    from sklearn.metrics import f1_score

    predictions, labels = _flags(logits_NC, labels_NC)
    return float(f1_score(labels, predictions, average="micro", zero_division=0.0))


def subset_accuracy(logits_NC: "NDArray[Any]", labels_NC: "NDArray[Any]") -> float:
    """Share of rows whose classes are predicted, all of them and no other, at a probability of 0.5."""
    predictions, labels = _flags(logits_NC, labels_NC)
    return float(np.mean((predictions == labels).all(axis=1)))


def mean_average_precision(logits_NC: "NDArray[Any]", labels_NC: "NDArray[Any]") -> float:
    """Plain mean over the classes that some row has of the average precision; 0 where no row has any."""
    from sklearn.metrics import average_precision_score

    labels = several_classes(labels_NC)
    present = labels.any(axis=0)
    # A row without an answer comes last.
    scores = np.where(np.isfinite(logits_NC).all(axis=1, keepdims=True), logits_NC, np.finfo(np.float32).min)
    return float(average_precision_score(labels[:, present], scores[:, present])) if present.any() else 0.0


def _flags(logits_NC: "NDArray[Any]", labels_NC: "NDArray[Any]") -> "tuple[NDArray[np.int64], NDArray[np.int64]]":
    """Flags of the classes that are predicted and present; of a row without an answer all is predicted wrongly."""
    labels = several_classes(labels_NC)
    is_answered = np.isfinite(logits_NC).all(axis=1, keepdims=True)
    return np.where(is_answered, logits_NC > 0, ~labels).astype(np.int64), labels.astype(np.int64)


def matthews(predictions: "NDArray[Any]", labels: "NDArray[Any]") -> float:
    """Matthews correlation coefficient; 0 where either side is constant."""
    from sklearn.metrics import matthews_corrcoef

    with warnings.catch_warnings():
        # A single class on both sides: the coefficient is undefined and sklearn's 0 is what we promise.
        warnings.simplefilter("ignore")
        return float(matthews_corrcoef(labels, predictions))


def pearson(predictions: "NDArray[Any]", labels: "NDArray[Any]") -> float:
    """Pearson correlation; 0 where either side is constant."""
    from scipy.stats import pearsonr

    return _correlation(pearsonr, predictions, labels)


def spearman(predictions: "NDArray[Any]", labels: "NDArray[Any]") -> float:
    """Spearman rank correlation; 0 where either side is constant."""
    from scipy.stats import spearmanr

    return _correlation(spearmanr, predictions, labels)


def _correlation(statistic: Callable[..., Any], predictions: "NDArray[Any]", labels: "NDArray[Any]") -> float:
    if len(labels) < 2 or not np.isfinite(predictions).all() or np.ptp(predictions) == 0 or np.ptp(labels) == 0:
        return 0.0
    with warnings.catch_warnings():
        # Nearly constant predictions: a warning of scipy helps nobody who reads a table of metrics.
        warnings.simplefilter("ignore")
        value = float(statistic(predictions.astype(np.float64), labels.astype(np.float64)).statistic)
    return value if np.isfinite(value) else 0.0


def accuracy_f1(predictions: "NDArray[Any]", labels: "NDArray[Any]") -> float:
    """Mean of accuracy and F1: the one number that GLUE gives MRPC and QQP."""
    return (accuracy(predictions, labels) + f1(predictions, labels)) / 2


def pearson_spearman(predictions: "NDArray[Any]", labels: "NDArray[Any]") -> float:
    """Mean of both correlations: the one number that GLUE gives STS-B."""
    return (pearson(predictions, labels) + spearman(predictions, labels)) / 2


def auc(scores: "NDArray[Any]", labels: "NDArray[Any]") -> float:
    """Share of the pairs of a row of class 1 and one of class 0 whose scores stand so, equal ones counted half.

    The area under the ROC curve; 0.5 where all rows are of one class, or a score is not finite.
    """
    from sklearn.metrics import roc_auc_score

    if np.ptp(labels) == 0 or not np.isfinite(scores).all():
        return 0.5
    return float(roc_auc_score(labels, scores))


def average_precision(scores: "NDArray[Any]", labels: "NDArray[Any]") -> float:
    """Precision at every row of class 1, the rows in the order of their scores, averaged; 0 where there is none."""
    from sklearn.metrics import average_precision_score

    if not labels.any() or not np.isfinite(scores).all():
        return 0.0
    return float(average_precision_score(labels, scores))


@dataclass(frozen=True)
class EntityMetric:
    """A measure of the entities that tags spell, see :mod:`hskcache.entities`.

    Attributes:
        measure: ``f1``, ``precision`` or ``recall`` of all entities together.
        names: the tags in the order of their classes.
    """

    measure: str
    names: tuple[str, ...] = ()

    def __call__(self, predictions: "NDArray[Any]", labels: "NDArray[Any]") -> float:
        """The measure of rows of words, an array of classes each."""
        return float(getattr(entity_counts(predictions, labels, self.names), self.measure))


METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "accuracy_f1": accuracy_f1,
    "auc": auc,
    "average_precision": average_precision,
    "entity_f1": EntityMetric("f1"),
    "entity_precision": EntityMetric("precision"),
    "entity_recall": EntityMetric("recall"),
    "f1": f1,
    "f1_macro": f1_macro,
    "f1_micro": f1_micro,
    "matthews": matthews,
    "mean_average_precision": mean_average_precision,
    "pearson": pearson,
    "pearson_spearman": pearson_spearman,
    "spearman": spearman,
    "subset_accuracy": subset_accuracy,
}
# What other libraries call them: scikit-learn, evaluate, transformers.
_ELSEWHERE = {
    "acc": "accuracy",
    "acc_and_f1": "accuracy_f1",
    "ap": "average_precision",
    "corr": "pearson_spearman",
    "f1_acc": "accuracy_f1",
    "macro_f1": "f1_macro",
    "matthews_corrcoef": "matthews",
    "matthews_correlation": "matthews",
    "map": "mean_average_precision",
    "mcc": "matthews",
    "micro_f1": "f1_micro",
    "roc_auc": "auc",
    "overall_accuracy": "accuracy",
    "overall_f1": "entity_f1",
    "overall_precision": "entity_precision",
    "overall_recall": "entity_recall",
    "precision": "entity_precision",
    "recall": "entity_recall",
    "seqeval": "entity_f1",
}
PROBLEM_METRICS: dict[str, tuple[str, ...]] = {
    "classification": ("accuracy", "f1_macro", "f1", "accuracy_f1", "matthews"),
    "multilabel": ("f1_micro", "f1_macro", "subset_accuracy", "mean_average_precision"),
    "regression": ("pearson", "spearman", "pearson_spearman"),
    "similarity": ("spearman", "pearson", "pearson_spearman"),
    "duplicates": ("auc", "average_precision", "spearman", "pearson"),
    "tagging": ("entity_f1", "entity_precision", "entity_recall", "accuracy"),
}
"""Metrics by problem; ``similarity`` and ``duplicates`` are of the cosines of pairs, against scores and classes."""
DEFAULT_METRICS: dict[str, tuple[str, ...]] = {
    "classification": ("accuracy", "f1_macro"),
    "multilabel": ("f1_micro", "f1_macro", "subset_accuracy", "mean_average_precision"),
    "regression": ("pearson", "spearman"),
    "similarity": ("spearman", "pearson"),
    "duplicates": ("auc", "average_precision", "spearman"),
    "tagging": PROBLEM_METRICS["tagging"],
}


def is_better(metric: str, value: float, other: float) -> bool:
    """True if a value of a metric is better than another: higher, of perplexity and bits a byte lower."""
    return value < other if metric in _LOWER_IS_BETTER else value > other


def metrics_for(problem: str, names: Sequence[str] | None = None, first: str | None = None) -> dict[str, Metric]:
    """The metrics called ``names``, in that order; the first is the one that picks the best evaluation.

    ``names``: keys of METRICS; None or empty takes the problem's defaults. ``first``: one that comes before them,
    whether it is among them or not; None leaves their order. Raises SpecError for a name that is no metric, or none of
    this kind of problem.
    """
    fitting = PROBLEM_METRICS[problem]
    wanted = dict.fromkeys([*([first] if first else []), *(names or DEFAULT_METRICS[problem])])
    for name in wanted:
        if name not in fitting:
            near = meant(_ELSEWHERE.get(name.casefold().replace("-", "_"), name), fitting)
            flag = "--metric " if name == first else ""
            raise SpecError(
                f"{flag}{name!r} is not a metric of a {problem} task; choose among {', '.join(fitting)}{near}"
            )
    return {name: METRICS[name] for name in wanted}


def with_names(metrics: Mapping[str, Metric], names: Sequence[str]) -> dict[str, Metric]:
    """The same metrics, those of entities told the tags, in the order of their classes."""
    known = tuple(names)
    return {
        name: replace(metric, names=known) if isinstance(metric, EntityMetric) else metric
        for name, metric in metrics.items()
    }
