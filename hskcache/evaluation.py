"""The task metrics of a model over a whole data set.

Dimension letters as in hskcache.spec: N rows, C classes.
"""

import math
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from hskcache.agreement import class_agreement, flags_agreement, score_agreement
from hskcache.classes import of_words, require_outputs, single_classes
from hskcache.counted import counted
from hskcache.errors import DataError, MismatchError
from hskcache.inference import predict, predict_windows
from hskcache.metrics import Metric, with_names
from hskcache.store.agreement import Agreement
from hskcache.text.tagged import rows_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    from hskcache.text import Examples, TokenizedRows
    from hskcache.text.first_pieces import FirstPieces
    from hskcache.text.windows import Windowing

NO_ANSWER = -1
_SAMPLES = 100


class Scores(dict[str, float]):
    """The metrics of a model by name, and what they were taken from.

    ``agreement``: of its answers with the labels; None where nothing was answered. ``label_names``: the classes in
    index order; empty for a regression. ``compared``: answers and labels as the metrics take them, [N], of rows of
    words an array each, or [N, C] where a row has any number of classes. ``metrics``: those that were taken.
    """

    agreement: Agreement | None = None
    label_names: tuple[str, ...] = ()
    compared: "tuple[NDArray[Any], NDArray[Any]] | None" = None
    metrics: Mapping[str, Metric] = MappingProxyType({})

    def uncertainty(self) -> dict[str, Any]:
        """The number of rows, and the standard error of every metric that one draw of so many rows leaves.

        That of accuracy is binomial, sqrt(p (1 - p) / N); of the others the spread over 100 bootstrap samples (Efron,
        1979, The Annals of Statistics 7, section 2), drawn alike every time; so it is of rows of words, which are drawn
        whole. Empty where nothing was answered.
        """
        if self.compared is None:
            return {}
        answered, labels = self.compared
        num_rows, draw = len(labels), np.random.default_rng(0)
        samples = [draw.integers(0, num_rows, num_rows) for _ in range(_SAMPLES)]
        errors = {}
        for name, metric in self.metrics.items():
            if name == "accuracy" and labels.dtype.kind != "O":
                errors[name] = math.sqrt(self[name] * (1 - self[name]) / num_rows)
            else:
                errors[name] = float(np.std([metric(answered[rows], labels[rows]) for rows in samples], ddof=1))
        return {"num_rows": num_rows, "standard_errors": errors}


def share_kept(student: Mapping[str, float], teacher: Mapping[str, float], metric: str) -> float | None:
    """Share of a teacher's score that a student keeps; None where one is not known, or the teacher's is not above 0."""
    if teacher.get(metric, 0.0) <= 0 or metric not in student:
        return None
    return student[metric] / teacher[metric]


def check_labels(examples: "Examples") -> "NDArray[Any]":
    """The labels of rows as metrics take them: [N], of distributions their most probable class; or [N, C], see Scores.

    Raises DataError if there are none, no rows, or one score alone.
    """
    labels = examples.labels
    examples.require_gold("to evaluate on")
    if labels is None or not len(labels):
        raise DataError(f"{examples.source} has no {'rows' if labels is not None else 'labels'} to evaluate on")
    if examples.problem == "regression" and np.ptp(labels) == 0:
        raise DataError(
            f"every row of {examples.source} has the score {labels[0]:g}, to which nothing correlates; give rows "
            "whose scores differ"
        )
    return labels if examples.problem == "multilabel" else single_classes(labels)


def answers(logits_NC: "NDArray[np.float32]", problem: str, words: "FirstPieces | None" = None) -> "NDArray[Any]":
    """The class index of every row, NO_ANSWER where its logits are not finite; of a regression its score: [N].

    Where a row may have any number of classes, the logits [N, C], whose sign tells which they are. Of rows of words,
    whose first pieces have the logits, it is an array of each row's words, object [N]: NO_ANSWER for those that have no
    first piece.
    """
    if problem == "regression":
        return logits_NC[:, 0]
    if problem == "multilabel":
        return logits_NC
    if words is not None:
        found = np.full(int(words.num_words_N.sum()), NO_ANSWER)
        found[words.among_words()] = answers(logits_NC, "classification")
        return rows_of(found, words.num_words_N)
    return np.where(np.isfinite(logits_NC).all(axis=1), logits_NC.argmax(axis=1), NO_ANSWER)


def evaluate(
    model: "PreTrainedModel",
    examples: "Examples",
    rows: "TokenizedRows",
    metrics: Mapping[str, Metric],
    *,
    bf16: bool = False,
    windowing: "Windowing | None" = None,
) -> Scores:
    """The metrics of ``model`` on labelled rows, computed on the device where the model is.

    ``windowing``: how rows are read that are longer than a window, see :func:`~hskcache.inference.predict_windows`.

    A classification row whose logits are not finite counts as wrong whatever its label, and so does a word that has no
    place in its row, as it was cut off or gives no token; among entities it is O. Raises DataError as
    :func:`check_labels`, MismatchError if a label is no class of the model.
    """
    labels = check_labels(examples)
    num_labels = int(model.config.num_labels)
    if labels.ndim == 2:
        require_outputs("the model", model.config, examples.source, labels.shape[1], "a model of this task")
    elif examples.problem != "regression" and (largest := int(of_words(labels).max())) >= num_labels:
        raise MismatchError(
            f"{examples.source} has class {largest} (counted from 0) and the model has "
            f"{counted(num_labels, 'class', 'classes')}; "
            "use a model of this task"
        )
    run = predict if windowing is None else partial(predict_windows, windowing=windowing)
    logits = run(model, rows, pad_token_id=model.config.pad_token_id or 0, bf16=bf16)
    predictions = answers(logits, examples.problem, rows.words)
    metrics = with_names(metrics, examples.label_names)
    scores = Scores({name: metric(predictions, labels) for name, metric in metrics.items()})
    if examples.problem == "regression":
        scores.agreement = score_agreement(predictions, labels)
    elif examples.problem == "multilabel":
        scores.agreement = flags_agreement(predictions, labels)
    else:
        scores.agreement = class_agreement(of_words(predictions), of_words(labels), num_labels)
    scores.compared, scores.metrics = (predictions, labels), metrics
    named = len(examples.label_names) == num_labels
    scores.label_names = tuple(examples.label_names if named else map(str, range(num_labels)))
    return scores
