"""Comparing answers with labels: how far they agree, and in which order of the classes they would agree best."""

import math
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hskcache.classes import has_gold, several_classes
from hskcache.store.agreement import ClassAgreement, FlagsAgreement, Reordered, ScoreAgreement

_MARGIN = 0.1
"""Margin by which another order of the classes must fit better before it is spoken of."""
_MOST_TRIED = 7
"""Classes of which every order is tried where scipy is not installed: 5,040 orders."""


def class_agreement(answers_N: NDArray[Any], labels_N: NDArray[Any], num_classes: int) -> ClassAgreement:
    """The agreement of class indices.

    ``answers_N``: [N] most probable class of each row; below 0 where there is none, which agrees with nothing.
    ``labels_N``: [N] class of each row; below 0 where there is none, and the row does not count.
    """
    is_labelled = (labels_N >= 0) & (labels_N < num_classes)
    answers, labels = answers_N[is_labelled].astype(np.int64), labels_N[is_labelled].astype(np.int64)
    counts = np.bincount(labels, minlength=num_classes)
    is_answered = answers >= 0
    pairs = labels[is_answered] * num_classes + answers[is_answered]
    confusion_CC = np.bincount(pairs, minlength=num_classes * num_classes).reshape(num_classes, num_classes)
    return ClassAgreement(
        num_rows=len(labels),
        num_agreed=int(confusion_CC.trace()),
        label_counts=counts.tolist(),
        answer_counts=confusion_CC.sum(0).tolist(),
        reordered=_better_order(confusion_CC),
    )


def flags_agreement(logits_NC: NDArray[Any], labels_NC: NDArray[Any]) -> FlagsAgreement:
    """The agreement of any number of classes a row, predicted where a logit is above 0, with labels [N, C].

    Rows that have no label, or an answer that is not finite, do not count.
    """
    is_there = has_gold(labels_NC) & np.isfinite(logits_NC).all(1)
    labels, answers = several_classes(labels_NC[is_there]), logits_NC[is_there] > 0
    return FlagsAgreement(
        num_rows=len(labels),
        num_agreed=int((labels == answers).all(1).sum()),
        label_counts=labels.sum(0).tolist(),
        answer_counts=answers.sum(0).tolist(),
        both_counts=(labels & answers).sum(0).tolist(),
    )


def score_agreement(answers_N: NDArray[Any], labels_N: NDArray[Any]) -> ScoreAgreement:
    """The agreement of scores [N] with labels [N]; rows of which either is not finite do not count."""
    is_there = np.isfinite(answers_N) & np.isfinite(labels_N)
    answers, labels = answers_N[is_there].astype(np.float64), labels_N[is_there].astype(np.float64)
    if not len(labels):
        return ScoreAgreement(
            num_rows=0, label_mean=0.0, answer_mean=0.0, label_variance=0.0, answer_variance=0.0, covariance=0.0
        )
    label_mean, answer_mean = float(labels.mean()), float(answers.mean())
    return ScoreAgreement(
        num_rows=len(labels),
        label_mean=label_mean,
        answer_mean=answer_mean,
        label_variance=float(((labels - label_mean) ** 2).mean()),
        answer_variance=float(((answers - answer_mean) ** 2).mean()),
        covariance=float(((labels - label_mean) * (answers - answer_mean)).mean()),
    )


def _better_order(confusion_CC: NDArray[np.int64]) -> Reordered | None:
    """The order of the classes that fits best, where it fits much better than the one that was taken.

    It must fit better than independent answers of the same frequencies would, so that a teacher of one answer has none,
    and by more than the best of C! orders does by chance in one of a thousand such data sets (Bernstein's inequality).
    """
    num_classes, num_rows = len(confusion_CC), int(confusion_CC.sum())
    if num_classes < 2 or not num_rows:
        return None
    order = _best_order(confusion_CC)
    if order is None:
        return None
    num_agreed = int(confusion_CC[order, np.arange(num_classes)].sum())
    share, taken = num_agreed / num_rows, int(confusion_CC.trace()) / num_rows
    by_chance = float(confusion_CC.sum(1)[order] @ confusion_CC.sum(0)) / num_rows**2
    rarity = (math.lgamma(num_classes + 1) + math.log(1000)) / num_rows
    margin = math.sqrt(2 * by_chance * (1 - by_chance) * rarity) + rarity / 3
    if share - taken <= max(_MARGIN, margin) or share - by_chance <= max(_MARGIN * (1 - by_chance), margin):
        return None
    return Reordered(order=order.tolist(), num_agreed=num_agreed)


def _best_order(confusion_CC: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Label that each answer is best taken for; None where there are too many orders to try."""
    num_classes = len(confusion_CC)
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError:
        if num_classes > _MOST_TRIED:
            return None
        orders = np.array(list(permutations(range(num_classes))))
        best: NDArray[np.int64] = orders[confusion_CC[orders, np.arange(num_classes)].sum(1).argmax()]
        return best
    found: NDArray[np.int64] = linear_sum_assignment(confusion_CC.T, maximize=True)[1]
    return found
