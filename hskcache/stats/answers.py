"""Labels beside the answers of a teacher: confusion, calibration, and the rows that it is surest to be wrong on."""

import heapq
from abc import abstractmethod
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from hskcache.classes import has_gold, several_classes
from hskcache.rows import Integers
from hskcache.stats.model import (
    AnswerCount,
    CalibrationBin,
    ClassAnswers,
    ClassFlags,
    FlagAnswers,
    ScoreAnswers,
    WrongRow,
)
from hskcache.stats.moments import Floats, RunningSpread

CALIBRATION_BINS = 15
"""Bins of the calibration error, as many as Guo et al., "On Calibration of Modern Neural Networks", 2017, have."""
PROBABILITY_BINS = 20
MOST_PAIRS = 400
"""Pairs of a label and an answer that are told: all of them up to 20 classes."""
MOST_CLASSES = 20
"""Classes whose probabilities are told apart."""
MOST_WRONG = 10
MOST_POINTS = 1000


class Answers:
    """Answers of a field beside labels, gathered shard by shard."""

    def __init__(self, field: str) -> None:
        self.field = field
        self.num_rows = self.num_unlabelled = self.num_nonfinite = 0
        self._wrong: list[tuple[float, int, WrongRow]] = []

    def add(self, logits_NC: NDArray[np.float32], labels_N: NDArray[np.generic], rows_N: Integers) -> None:
        """Take rows with their numbers in the cache."""
        is_finite = np.isfinite(logits_NC).all(1)
        self.num_nonfinite += int((~is_finite).sum())
        logits_NC, labels_N, rows_N = logits_NC[is_finite], labels_N[is_finite], rows_N[is_finite]
        is_gold = self._counts(labels_N)
        self.num_rows += int(is_gold.sum())
        self.num_unlabelled += int((~is_gold).sum())
        self._take(logits_NC[is_gold].astype(np.float64), labels_N[is_gold], rows_N[is_gold])

    def _counts(self, labels_N: NDArray[np.generic]) -> NDArray[np.bool_]:
        """Flags of labels that there is an answer to."""
        return has_gold(labels_N)

    @abstractmethod
    def _take(self, logits_NC: Floats, labels_N: NDArray[np.generic], rows_N: Integers) -> None:
        """Take rows that have a label."""

    @abstractmethod
    def told(self) -> ClassAnswers | FlagAnswers | ScoreAnswers:
        """The statistics by now."""

    def _note(self, found: WrongRow) -> None:
        """Keep a wrong row if it is among the surest; of equal ones those that came first."""
        entry = (found.surety, -found.row, found)
        (heapq.heappush if len(self._wrong) < MOST_WRONG else heapq.heappushpop)(self._wrong, entry)

    @property
    def wrong(self) -> list[WrongRow]:
        """The rows that are surest to be wrong, surest first."""
        return [found for *_, found in sorted(self._wrong, key=lambda entry: entry[:2], reverse=True)]


class AnswersOfClasses(Answers):
    """Probabilities of C classes."""

    def __init__(self, field: str, num_classes: int) -> None:
        super().__init__(field)
        self._num_classes = num_classes
        self._pairs: Counter[tuple[int, int]] = Counter()
        self._bins = np.zeros((3, CALIBRATION_BINS))
        self._by_label = np.zeros((min(num_classes, MOST_CLASSES), PROBABILITY_BINS), np.int64)
        self._log_loss = 0.0

    def _counts(self, labels_N: NDArray[np.generic]) -> NDArray[np.bool_]:
        """Flags of labels that are classes of this teacher."""
        flags: NDArray[np.bool_] = has_gold(labels_N) & np.isin(labels_N, np.arange(self._num_classes))
        return flags

    def _take(self, logits_NC: Floats, labels_N: NDArray[np.generic], rows_N: Integers) -> None:
        logs_NC = logits_NC - logits_NC.max(1, keepdims=True)
        logs_NC -= np.log(np.exp(logs_NC).sum(1, keepdims=True))
        labels, answers = labels_N.astype(np.int64), logs_NC.argmax(1)
        each = np.arange(len(labels))
        confidence, probability = np.exp(logs_NC[each, answers]), np.exp(logs_NC[each, labels])
        self._log_loss -= float(logs_NC[each, labels].sum())
        self._bins += _binned(confidence, answers == labels)
        self._pairs.update(zip(labels.tolist(), answers.tolist(), strict=True))
        is_told = labels < len(self._by_label)
        np.add.at(self._by_label, (labels[is_told], _bins(probability, PROBABILITY_BINS)[is_told]), 1)
        wrong = np.flatnonzero(answers != labels)
        for place in wrong[np.argsort(-confidence[wrong], kind="stable")[:MOST_WRONG]]:
            label, answer, surety = int(labels[place]), int(answers[place]), float(confidence[place])
            self._note(WrongRow(row=int(rows_N[place]), label=label, answer=answer, surety=surety))

    def told(self) -> ClassAnswers:
        """The statistics by now."""
        _, confidence, right = self._bins
        num_rows = max(self.num_rows, 1)
        return ClassAnswers(
            field=self.field,
            num_classes=self._num_classes,
            num_rows=self.num_rows,
            num_unlabelled=self.num_unlabelled,
            num_nonfinite=self.num_nonfinite,
            accuracy=float(right.sum()) / num_rows,
            log_loss=self._log_loss / num_rows,
            calibration_error=float(np.abs(right - confidence).sum()) / num_rows,
            bins=_told_bins(self._bins),
            pairs=[
                AnswerCount(label=label, answer=answer, num_rows=count)
                for (label, answer), count in sorted(self._pairs.items(), key=lambda pair: (-pair[1], pair[0]))[
                    :MOST_PAIRS
                ]
            ],
            label_probabilities={label: counts.tolist() for label, counts in enumerate(self._by_label)},
            wrong=self.wrong,
        )


class AnswersOfFlags(Answers):
    """Probabilities of C classes, of which a row may have any number."""

    def __init__(self, field: str, num_classes: int) -> None:
        super().__init__(field)
        self._counts_3C = np.zeros((3, num_classes), np.int64)
        self._bins = np.zeros((3, CALIBRATION_BINS))
        self._log_loss, self._num_agreed = 0.0, 0

    def _take(self, logits_NC: Floats, labels_N: NDArray[np.generic], rows_N: Integers) -> None:
        if not len(rows_N):
            return
        labels_NC, answers_NC = several_classes(labels_N), logits_NC > 0
        right_NC = labels_NC == answers_NC
        surety_NC = 1 / (1 + np.exp(-np.abs(logits_NC)))
        self._counts_3C += np.stack([part.sum(0) for part in (labels_NC, answers_NC, labels_NC & answers_NC)])
        self._num_agreed += int(right_NC.all(1).sum())
        shares_NC = labels_N.astype(np.float64)
        self._log_loss += float((np.logaddexp(0, logits_NC) - shares_NC * logits_NC).sum())
        self._bins += _binned(surety_NC.ravel(), right_NC.ravel())
        wrong_NC = np.where(right_NC, 0, surety_NC)
        classes, surest = wrong_NC.argmax(1), wrong_NC.max(1)
        for place in np.argsort(-surest, kind="stable")[:MOST_WRONG]:
            if surest[place] > 0:
                label, answer = int(classes[place]), float(answers_NC[place, classes[place]])
                self._note(WrongRow(row=int(rows_N[place]), label=label, answer=answer, surety=float(surest[place])))

    def told(self) -> FlagAnswers:
        """The statistics by now."""
        labels_C, answers_C, both_C = self._counts_3C
        _, confidence, right = self._bins
        num_classes = len(labels_C)
        num_pairs, f1_C = max(self.num_rows * num_classes, 1), 2 * both_C / np.maximum(labels_C + answers_C, 1)
        counts = zip(labels_C.tolist(), answers_C.tolist(), both_C.tolist(), f1_C.tolist(), strict=True)
        return FlagAnswers(
            field=self.field,
            num_classes=num_classes,
            num_rows=self.num_rows,
            num_unlabelled=self.num_unlabelled,
            num_nonfinite=self.num_nonfinite,
            subset_accuracy=self._num_agreed / max(self.num_rows, 1),
            f1_micro=float(2 * both_C.sum() / max(labels_C.sum() + answers_C.sum(), 1)),
            f1_macro=float(f1_C.mean()),
            log_loss=self._log_loss / num_pairs,
            calibration_error=float(np.abs(right - confidence).sum()) / num_pairs,
            bins=_told_bins(self._bins),
            classes=[
                ClassFlags(num_labels=labels, num_answers=answers, num_both=both, f1=f1)
                for labels, answers, both, f1 in counts
            ],
            wrong=self.wrong,
        )


class AnswersOfScores(Answers):
    """Scores of a regression."""

    def __init__(self, field: str, num_rows: int) -> None:
        super().__init__(field)
        self._labels, self._answers, self._errors = RunningSpread(), RunningSpread(), RunningSpread()
        self._sums, self._absolute = RunningSpread(), RunningSpread()
        self._step = max(1, -(-num_rows // MOST_POINTS))
        self._points: list[tuple[float, float]] = []

    def _take(self, logits_NC: Floats, labels_N: NDArray[np.generic], rows_N: Integers) -> None:
        labels, answers, rows = labels_N.astype(np.float64), logits_NC[:, 0], rows_N
        error = np.abs(answers - labels)
        for spread, numbers in (
            (self._labels, labels),
            (self._answers, answers),
            (self._sums, labels + answers),
            (self._errors, answers - labels),
            (self._absolute, error),
        ):
            spread.add(numbers)
        told = rows % self._step == 0
        self._points += zip(labels[told].tolist(), answers[told].tolist(), strict=True)
        for place in np.argsort(-error, kind="stable")[:MOST_WRONG]:
            label, answer, far = float(labels[place]), float(answers[place]), float(error[place])
            self._note(WrongRow(row=int(rows[place]), label=label, answer=answer, surety=far))

    def told(self) -> ScoreAnswers:
        """The statistics by now."""
        labels, answers, errors = self._labels.told(), self._answers.told(), self._errors.told()
        # Variance of the sum less that of the difference is four times the covariance.
        covariance, scale = (self._sums.told().std ** 2 - errors.std**2) / 4, labels.std * answers.std
        return ScoreAnswers(
            field=self.field,
            num_rows=self.num_rows,
            num_unlabelled=self.num_unlabelled,
            num_nonfinite=self.num_nonfinite,
            label_values=labels,
            answer_values=answers,
            correlation=float(np.clip(covariance / scale, -1, 1)) if scale else 0.0,
            mean_error=self._absolute.told().mean,
            rms_error=float(np.hypot(errors.mean, errors.std)),
            points=self._points,
            wrong=self.wrong,
        )


def _binned(surety: Floats, is_right: NDArray[np.bool_]) -> Floats:
    """Answers by how sure they are: their number, the sum of that, and how many are right, [3, CALIBRATION_BINS]."""
    bins, weights = _bins(surety, CALIBRATION_BINS), (np.ones(len(surety)), surety, is_right.astype(float))
    return np.stack([np.bincount(bins, one, minlength=CALIBRATION_BINS) for one in weights])


def _told_bins(binned: Floats) -> list[CalibrationBin]:
    """Bins that hold something."""
    (counts, confidence, right), edges = binned, np.linspace(0, 1, CALIBRATION_BINS + 1)
    return [
        CalibrationBin(
            start=float(edges[place]),
            stop=float(edges[place + 1]),
            num_rows=int(counts[place]),
            confidence=float(confidence[place] / counts[place]),
            accuracy=float(right[place] / counts[place]),
        )
        for place in np.flatnonzero(counts)
    ]


def _bins(shares: Floats, num_bins: int) -> Integers:
    """Bin of each share of equal bins [start, stop), of which the last has 1, too."""
    bins: Integers = np.minimum((shares * num_bins).astype(np.int64), num_bins - 1)
    return bins
