"""Noticing chance: a model that answers one class, or no better than the most frequent one, is told of.

A score alone does not tell it: 0.87 is little where 87 % of the rows are of one class.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from hskcache import console
from hskcache.classes import has_gold, of_words, several_classes
from hskcache.evaluation import Scores
from hskcache.metrics import Metric
from hskcache.store.agreement import Agreement, ClassAgreement, FlagsAgreement
from hskcache.text.tagged import rows_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHANCE = "chance"
"""Key of :func:`record` in metrics.json, beside the scores."""

_REORDERED = "its classes seem to be in that order; see that id2label in its config.json names what they mean"


def record(scores: Mapping[str, float]) -> dict[str, Any]:
    """Facts that tell chance from knowledge, to be kept beside some scores; empty where there is no task.

    Returns under ``chance``: of classes ``majority``, the accuracy of always answering the most frequent one, and
    ``predicted_classes``, how many were answered; of scores ``constant``; of both ``at_chance``, and ``notice``, None
    or what there is to be told, to be read after the name of the model.
    """
    if not isinstance(scores, Scores) or (agreement := scores.agreement) is None:
        return {}
    order = agreement.other_order(scores.label_names)
    notice = order or agreement.chance(scores.label_names)
    told = {"at_chance": agreement.is_chance and order is None, "notice": notice}
    return {CHANCE: {**_facts(agreement), **told}}


def majority(labels_N: "NDArray[Any]", metrics: Mapping[str, Metric]) -> dict[str, float]:
    """The metrics of a model that gives all rows the most frequent class of the labels [N], or the mean of scores.

    Of rows of words it gives all words the most frequent tag, of labels [N, C] every class the share of the rows that
    have it.
    """
    if labels_N.dtype.kind == "O":
        counts = np.bincount((tags := of_words(labels_N))[has_gold(tags)])
        answers_N = rows_of(np.full(len(tags), counts.argmax()), [len(row) for row in labels_N])
        return {name: metric(answers_N, labels_N) for name, metric in metrics.items()}
    if labels_N.ndim == 2:
        shares_C = np.clip(several_classes(labels_N).mean(0), 1e-6, 1 - 1e-6)
        answer: Any = np.log(shares_C / (1 - shares_C))
    elif labels_N.dtype.kind == "f":
        answer = labels_N.mean()
    else:
        values, counts = np.unique(labels_N, return_counts=True)
        answer = values[counts.argmax()]
    answers_N = np.full_like(labels_N, answer)
    return {name: metric(answers_N, labels_N) for name, metric in metrics.items()}


def is_at_chance(result: Mapping[str, Any]) -> bool:
    """True if a result with a :func:`record` tells of chance; those from before it was kept do not."""
    return bool((result.get(CHANCE) or {}).get("at_chance"))


def tell(result: Mapping[str, Any], model: str, help_with: str) -> None:
    """Say in one line what there is to notice of a result.

    ``result``: with a :func:`record`, or from before it was kept; ``help_with``: what usually helps against chance.
    """
    if (notice := (result.get(CHANCE) or {}).get("notice")) is not None:
        console.say(f"{model} {notice}: {help_with if is_at_chance(result) else _REORDERED}")


def help_of_fit(result: Mapping[str, Any]) -> str:
    """Advice that usually helps a student of ``hsktrain fit``, by the stage that its answers come from."""
    stages = result.get("stages") or [{"name": "STAGE"}]
    name = stages[-1]["name"]
    return (
        f"what usually helps is another learning rate (--set {name}.learning_rate=...), more epochs "
        f"(--set {name}.epochs=...) or more rows"
    )


def _facts(agreement: Agreement) -> dict[str, Any]:
    if isinstance(agreement, FlagsAgreement):
        return {"predicted_classes": sum(count > 0 for count in agreement.answer_counts)}
    if isinstance(agreement, ClassAgreement):
        return {"majority": agreement.majority, "predicted_classes": agreement.num_answered}
    return {"constant": agreement.is_constant}
