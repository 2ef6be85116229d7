"""The scoring pass from rows of text: which of them count, what identifies the scores, and the scores."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hskcache import runtime
from hskcache.counted import counted
from hskcache.cut import tell_cut
from hskcache.sparsity.artifact import ModelId, ScoredRows, ScoreInfo
from hskcache.sparsity.sample import Sample, draw_rows
from hskcache.sparsity.student import Trial
from hskcache.sparsity.subjects import UNITS, AnyScores, Subject
from hskcache.teacher.load import Teacher
from hskcache.text import Examples, tokenize
from hskcache.text.tokenize import reach_of

OnRows = Callable[[int], None]


@dataclass(frozen=True, eq=False)
class DrawnRows:
    """Rows of a data set that heads and neurons are scored on.

    ``examples``: the whole data set. ``index_N``: numbers of the rows that count, int64, rising; None takes all.
    ``seed``: that drew them; None where all count.
    """

    examples: Examples
    index_N: NDArray[np.int64] | None = None
    seed: int | None = None

    def __len__(self) -> int:
        return len(self.examples) if self.index_N is None else len(self.index_N)

    @property
    def info(self) -> ScoredRows:
        """Identity of these rows."""
        source, fingerprint = self.examples.source, self.examples.fingerprint
        return ScoredRows(name=source, fingerprint=fingerprint, num_rows=len(self), seed=self.seed)

    @property
    def rows(self) -> Examples:
        """Rows that were drawn; messages count within them, and so their source says that they were drawn."""
        if self.index_N is None:
            return self.examples
        texts, pairs, labels = self.examples.texts, self.examples.pairs, self.examples.labels
        return replace(
            self.examples,
            texts=[texts[row] for row in self.index_N],
            pairs=None if pairs is None else [pairs[row] for row in self.index_N],
            labels=None if labels is None else labels[self.index_N],
            source=f"{self.examples.source} ({counted(len(self), 'row')} drawn)",
            reading=replace(self.examples.reading, numbers=(), unit="row"),
        )


def draw(examples: Examples, limit: int | None, seed: int) -> DrawnRows:
    """``limit`` rows of a data set, drawn by ``seed``; all where it is None or there are no more.

    Of rows some of which have no gold label, those that have one.
    """
    examples = examples.gold()
    if limit is None or limit >= len(examples):
        return DrawnRows(examples)
    return DrawnRows(examples, draw_rows(len(examples), limit, seed), seed)


@dataclass(frozen=True)
class ScoreSettings:
    """Settings that the scores depend on, too.

    ``batch_size``: rows of one gradient. ``temperature``: T of the distillation loss, above 0; without a student
    nothing depends on it.
    """

    batch_size: int = 32
    temperature: float = 2.0
    max_length: int = 128


@dataclass(frozen=True, eq=False)
class ScoringPass:
    """A scoring pass before it is made.

    ``trial``: the student on trial; None leaves the student-friendly scores out. ``drawn``: the rows; without labels
    the expressive scores are left out.
    """

    teacher: Teacher
    trial: Trial | None
    drawn: DrawnRows
    settings: ScoreSettings
    subject: Subject = UNITS

    @property
    def info(self) -> ScoreInfo:
        """Origin of the scores, without their digest."""
        teacher, trial, settings = self.teacher, self.trial, self.settings
        return ScoreInfo(
            kind=self.subject.kind,
            teacher=ModelId(name=teacher.info.name, weights_sha256=teacher.info.weights_sha256),
            student=None if trial is None else trial.info,
            data=self.drawn.info,
            has_labels=self.drawn.examples.labels is not None,
            batch_size=settings.batch_size,
            temperature=None if trial is None else settings.temperature,
            max_length=settings.max_length,
            environment=runtime.environment(teacher.device),
        )

    def run(self, on_rows: OnRows | None = None, on_tokens: OnRows | None = None) -> AnyScores:
        """Tokenize the rows that count and score the subject on them.

        ``on_rows``: called with the number of rows scored since the last call; ``on_tokens``: likewise, of rows
        tokenized. Raises SpecError if a setting is out of range; DataError if a row gives no token; MismatchError if
        there is neither a student nor a label, or one of them does not fit the teacher; TeacherError as
        :func:`hskcache.sparsity.scores.score` does.
        """
        rows, settings = self.drawn.rows, self.settings
        tokens = tokenize(rows, self.teacher.tokenizer, settings.max_length, on_tokens)
        reach = reach_of(self.teacher.model, self.teacher.info.name, settings.max_length)
        tell_cut(tokens.cut, len(tokens), rows.source, reach)
        sample = Sample(tokens, rows.labels, settings.batch_size, settings.temperature, source=rows.source)
        return self.subject.score(self.teacher, None if self.trial is None else self.trial.model, sample, on_rows)
