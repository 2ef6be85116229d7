"""Checked rows of text with numeric labels, how they were read, and the fingerprint of their content."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from hskcache.classes import Problem, has_gold, of_words
from hskcache.errors import DataError
from hskcache.text.labels import Labels
from hskcache.text.table import Columns, RowPolicy
from hskcache.text.tagged import joined
from hskcache.text.tasks import Task

if TYPE_CHECKING:
    from hskcache.text.copies import Copies


@dataclass(frozen=True)
class Reading:
    """Account of how rows were read, and which were left out.

    Attributes:
        columns: that were read; ``header`` is whether a delimited file's first line named them, None for other formats.
            None where rows are not from a source.
        numbers: [N] line or row of each row in its source, counted from 1; empty where that is not known.
        unit: what ``numbers`` counts, ``line`` or ``row``.
        bad: rows that could not be used and were left out: line or row, and why.
        num_unlabelled: rows without a gold label, left out or kept without one.
        policy: what became of both.
        notes: lines for the user: what was recognised where it was not told, and what was left out.
    """

    columns: Columns | None = None
    task: Task | None = None
    numbers: Sequence[int] = ()
    unit: str = "row"
    bad: tuple[tuple[int, str], ...] = ()
    num_unlabelled: int = 0
    policy: RowPolicy = field(default_factory=RowPolicy)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Examples:
    """N rows of text with what is known about them.

    Attributes:
        texts: [N] sentences, or the first of each pair, as written.
        pairs: [N] the second of each pair, or None.
        labels: int64 [N] class indices, NO_CLASS for none; float32 [N] scores, NaN for none; float32 [N, C] a value in
            [0, 1] for each class, NaN for none: of a classification a distribution, else 1 of the classes that a row
            has; of rows of words int64 [words] each, object [N]; or None when no label was read, or no row had one.
        label_names: the classes in the order of their indices; empty for a regression or unlabelled rows of no task.
        source: the file or data set, as the user named it.
        split: the part of a data set; None for a file.
        copies: which rows are copies of which; None where that was not read.
        words: [N] words of each row, which the texts are made of; None where rows are texts.
    """

    texts: Sequence[str]
    pairs: Sequence[str] | None
    labels: Labels | None
    label_names: tuple[str, ...]
    problem: Problem
    source: str
    split: str | None
    fingerprint: str
    reading: Reading = field(default_factory=Reading)
    copies: "Copies | None" = None
    words: Sequence[Sequence[str]] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def where(self, index: int) -> str:
        """The place of row ``index`` in its source, in the form ``FILE line N``."""
        numbers = self.reading.numbers or range(1, len(self) + 1)
        return f"{self.source} {self.reading.unit} {numbers[index]}"

    def gold(self) -> "Examples":
        """The rows that have a gold label; the same where all have, or no label was read."""
        if self.labels is None or (is_gold := has_gold(self.labels)).all():
            return self
        return self._taken(np.flatnonzero(is_gold).tolist())

    def first(self, count: int) -> "Examples":
        """The first so many rows; the same where there are no more."""
        return self if count >= len(self) else self._taken(range(count))

    def _taken(self, index: Sequence[int]) -> "Examples":
        """Some of the rows."""
        words = None if self.words is None else [self.words[row] for row in index]
        texts = [self.texts[row] for row in index] if words is None else joined(words)
        pairs = None if self.pairs is None else [self.pairs[row] for row in index]
        labels = None if self.labels is None else self.labels[index]
        numbers = [self.reading.numbers[row] for row in index] if self.reading.numbers else ()
        return replace(
            self,
            texts=texts,
            pairs=pairs,
            labels=labels,
            fingerprint=fingerprint(texts, pairs, labels, self.label_names, words),
            reading=replace(self.reading, numbers=numbers),
            words=words,
        )

    def require_texts(self, what: str) -> None:
        """Raise DataError if rows are words with a tag each; ``what`` is for rows of one label alone."""
        if self.words is not None:
            raise DataError(f"{self.source}: rows are words with a tag each, and {what} is for rows of one label")

    def require_gold(self, purpose: str) -> None:
        """Raise unless a label column, where one was read, had a gold label in some row.

        Raises DataError if it had none; says for which ``purpose`` labels are needed, such as ``to score a model on``.
        """
        columns = self.reading.columns
        if self.labels is None and columns is not None and columns.label is not None:
            raise DataError(
                f"{self.source}: no row has a gold label in the column {columns.label} {purpose}; give labelled rows"
            )


def fingerprint(
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    labels: Labels | None,
    names: tuple[str, ...],
    words: Sequence[Sequence[str]] | None = None,
) -> str:
    """SHA-256 of rows' content, the same for the same rows in any format.

    Covers texts, pairs, labels and label names, each string preceded by its length in bytes so that no two contents
    run together; file names, splits and column names do not enter. Of rows of words it covers the words of each.
    """
    digest = hashlib.sha256(b"hskcache rows 1\n")
    if words is not None:
        digest.update(b"words\n" + np.array(list(map(len, words)), "<i8").tobytes())
        texts = list(chain.from_iterable(words))
    for kind, strings in (("texts", texts), ("pairs", pairs), ("names", names)):
        if strings is not None:
            digest.update(f"{kind} {len(strings)}\n".encode())
            for string in strings:
                data = string.encode()
                digest.update(len(data).to_bytes(8, "little") + data)
    if labels is not None:
        labels = of_words(labels)
        stored = labels.astype(labels.dtype.newbyteorder("<"))
        shape = "".join(f" {size}" for size in labels.shape[1:])
        digest.update(f"labels {labels.dtype.name}{shape}\n".encode() + np.ascontiguousarray(stored).tobytes())
    return digest.hexdigest()
