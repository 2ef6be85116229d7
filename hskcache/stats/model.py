"""Statistics of a cache as they are told to programs; see :mod:`hskcache.stats` for how they are gathered."""

from typing import Annotated

from pydantic import Field as Key

from hskcache.strict import Strict

Share = Annotated[float, Key(ge=0, le=1)]


class LayerBytes(Strict):
    """Bytes on disk of a part of a field.

    Attributes:
        field: its name.
        layer: teacher layer; None for what is of no layer: the arrays of all rows, offsets, headers.
        num_bytes: compressed, in all shards.
    """

    field: str
    layer: int | None
    num_bytes: int


class LengthCounts(Strict):
    """Lengths of rows, in tokens.

    Attributes:
        counts: by length, from 0, how many rows have it.
        mean, median, longest: of these lengths.
    """

    counts: list[int]
    mean: float
    median: int
    longest: int


class TokenCount(Strict):
    """A token of the vocabulary, and how often it was kept of how often it occurs."""

    token_id: int
    num_kept: int
    num_there: int


class KeptPositions(Strict):
    """Kept positions of a layer.

    Attributes:
        field, layer: whose they are.
        num_kept: positions, over all rows.
        share: of all tokens.
        by_count: by number of kept positions, from 0, how many rows have it.
        by_position: by position in the row, from 0, in how many rows it was kept.
        first_by_position: by position in the row, in how many rows it was the best.
        tokens: those that were kept most often, most first.
    """

    field: str
    layer: int
    num_kept: int
    share: Share
    by_count: list[int]
    by_position: list[int]
    first_by_position: list[int]
    tokens: list[TokenCount]


class ValueSpread(Strict):
    """Mean, standard deviation and range of some numbers; all 0 where there are none."""

    mean: float
    std: float
    least: float
    most: float


class EntryValues(Strict):
    """Values of each entry of the vectors of a layer: columns of states, classes of logits, keys of attention.

    Attributes:
        counts: vectors that the entry is stored of; of the others it counts as 0 in ``rms``.
        means, stds: of the stored values.
        zeros: share of the stored values that are exactly 0.
        rms: root mean square over all vectors of the layer: the entry's part of their norm.
    """

    counts: list[int]
    means: list[float]
    stds: list[float]
    zeros: list[float]
    rms: list[float]


class LayerValues(Strict):
    """Decoded values of a layer of a field, in the teacher's own columns.

    Attributes:
        field, kind, layer: whose they are; the layer is None where there are none.
        entries: what a vector has one value of each: ``columns``, ``classes`` or ``keys``.
        num_vectors: of the rows that the field holds.
        num_values: that are stored, finite ones.
        num_nonfinite: NaN and infinities, which all other figures leave out.
        values: of all of them.
        zeros: share that is exactly 0.
        norms: Euclidean, of each vector.
        outliers: entries whose ``rms`` lies more than 3 standard deviations above the mean of all, largest first.
        outlier_share: part of all squares that theirs are.
        by_entry: of every entry.
    """

    field: str
    kind: str
    layer: int | None
    entries: str
    num_vectors: int
    num_values: int
    num_nonfinite: int
    values: ValueSpread
    zeros: float
    norms: ValueSpread
    outliers: list[int]
    outlier_share: float
    by_entry: EntryValues


class CalibrationBin(Strict):
    """Rows whose most probable class has a probability in [start, stop)."""

    start: float
    stop: float
    num_rows: int
    confidence: float
    accuracy: float


class AnswerCount(Strict):
    """Rows of one label and one answer, both by the index of the class."""

    label: int
    answer: int
    num_rows: int


class WrongRow(Strict):
    """A row whose label the teacher contradicts.

    Attributes:
        row: of the cache, counted from 0.
        label, answer: indices of classes; of a regression the scores. Where a row may have any number of classes
            ``label`` is the class whose answer is surest and wrong, and ``answer`` 1 if it is answered, else 0.
        surety: probability of the answer; of a regression how far it is from the label.
    """

    row: int
    label: float
    answer: float
    surety: float


class ClassAnswers(Strict):
    """Labels beside the probabilities that a teacher gives, on the rows of the cache that have a label.

    Attributes:
        field: of the logits.
        num_classes: C.
        num_rows: rows with a label that the field holds.
        num_unlabelled: rows without one.
        num_nonfinite: rows whose logits are NaN or infinite, which count nowhere.
        accuracy: share of rows whose label is the most probable class; 0 without rows.
        log_loss: mean of -log of the label's probability, in nats.
        calibration_error: expected calibration error [Guo et al., 2017, Section 2, eq. 3].
        bins: what it is the sum over; bins without rows are left out.
        pairs: of a label and an answer, those that occur, most first.
        label_probabilities: by label of some of the rows, how many give it a probability in each of equal bins.
        wrong: rows that are surest to be wrong, surest first.
    """

    kind: str = "classes"
    field: str
    num_classes: int
    num_rows: int
    num_unlabelled: int
    num_nonfinite: int
    accuracy: float
    log_loss: float
    calibration_error: float
    bins: list[CalibrationBin]
    pairs: list[AnswerCount]
    label_probabilities: dict[int, list[int]]
    wrong: list[WrongRow]

    @property
    def confusion(self) -> list[list[int]]:
        """Rows by label and answer, [C][C]."""
        table = [[0] * self.num_classes for _ in range(self.num_classes)]
        for pair in self.pairs:
            table[pair.label][pair.answer] = pair.num_rows
        return table


class ClassFlags(Strict):
    """Rows of one class where a row may have any number: by label, by answer and by both, and its F1."""

    num_labels: int
    num_answers: int
    num_both: int
    f1: float


class FlagAnswers(Strict):
    """Labels beside a teacher's answers where a row may have any number of classes: those above a probability of 0.5.

    Attributes:
        field: of the logits.
        num_classes: C.
        num_rows, num_unlabelled: rows with and without a label that the field holds.
        num_nonfinite: rows whose logits are NaN or infinite, which count nowhere.
        subset_accuracy: share of rows whose classes are answered, all of them and no other; 0 without rows.
        f1_micro: F1 of all pairs of a row and a class together.
        f1_macro: plain mean of the F1 of the classes.
        log_loss: mean over pairs of a row and a class of -log of the label's probability, in nats.
        calibration_error: expected calibration error of the pairs [Guo et al., 2017, Section 2, eq. 3].
        bins: what it is the sum over, whose ``num_rows`` are pairs; bins without any are left out.
        classes: in index order.
        wrong: rows with an answer that is wrong, surest first.
    """

    kind: str = "flags"
    field: str
    num_classes: int
    num_rows: int
    num_unlabelled: int
    num_nonfinite: int
    subset_accuracy: float
    f1_micro: float
    f1_macro: float
    log_loss: float
    calibration_error: float
    bins: list[CalibrationBin]
    classes: list[ClassFlags]
    wrong: list[WrongRow]


class ScoreAnswers(Strict):
    """Labels beside a teacher's scores, on the rows that have a label.

    Attributes:
        field: of the logits.
        num_rows, num_unlabelled: rows with and without a label that the field holds.
        num_nonfinite: rows whose score is NaN or infinite, which count nowhere.
        label_values, answer_values: of these rows.
        correlation: Pearson's; 0 where either side is constant.
        mean_error, rms_error: mean of the absolute difference, and root of that of its square.
        points: label and score of some rows, evenly chosen.
        wrong: rows that are furthest off, furthest first.
    """

    kind: str = "scores"
    field: str
    num_rows: int
    num_unlabelled: int
    num_nonfinite: int
    label_values: ValueSpread
    answer_values: ValueSpread
    correlation: float
    mean_error: float
    rms_error: float
    points: list[tuple[float, float]]
    wrong: list[WrongRow]


class CacheStats(Strict):
    """Everything that is counted of a cache.

    Attributes:
        cache, cache_id: its place and its name.
        num_rows, num_tokens: of the cache.
        sizes: bytes by field and layer.
        lengths: of rows.
        kept: by field and layer that keeps positions.
        values: by field and layer; empty where values were not asked for.
        answers: by field of answers.
    """

    cache: str
    cache_id: str
    num_rows: int
    num_tokens: int
    sizes: list[LayerBytes]
    lengths: LengthCounts
    kept: list[KeptPositions]
    values: list[LayerValues]
    answers: list[ClassAnswers | FlagAnswers | ScoreAnswers]
