"""Table of a model's answers: the class, classes or score of each row, and how probable each class is.

Dimension letters: N rows, C classes.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hskcache.errors import SpecError
from hskcache.text.class_values import SEPARATORS, separator_for

Logits: TypeAlias = NDArray[np.float32]
Columns: TypeAlias = dict[str, list[Any]]
"""Columns by name, each with a value a row; None where a row has none."""

SUFFIXES = (".tsv", ".csv", ".jsonl")
_BREAKS = re.compile(r"[\t\r\n]")


@dataclass(frozen=True, eq=False)
class Predictions:
    """Logits of rows, and what they mean.

    Attributes:
        index_N: place of each row in its source, counted from 0, int64.
        logits_NC: of the model, finite, or NaN of a word that has no place in its row.
        label_names: [C] classes as the data writes them; empty of a regression, whose C is 1.
        teacher_NC: logits of a cached teacher for the same rows, NaN where it has none; None without a teacher.
        words: of rows of words, of which each has logits of its own, further columns: ``word``, its number in the row,
            and ``text``; None of rows.
        is_multilabel: whether a row has any number of classes: those of a probability above 0.5.
    """

    index_N: NDArray[np.int64]
    logits_NC: Logits
    label_names: tuple[str, ...]
    teacher_NC: Logits | None = None
    words: Columns | None = None
    is_multilabel: bool = False

    def columns(self) -> Columns:
        """All that is known of each row: ``index``, ``prediction``, of classes ``probability_CLASS``.

        Of rows of words each word has a line, and behind ``index`` its number and text. Beside a teacher the same of
        it: ``teacher`` and ``teacher_probability_CLASS``. Numbers have six digits.
        """
        columns: Columns = {"index": self.index_N.tolist(), **(self.words or {})}
        columns |= {"prediction": self.answers(self.logits_NC)}
        columns |= self._probabilities("probability", self.logits_NC)
        if self.teacher_NC is not None:
            columns["teacher"] = self.answers(self.teacher_NC)
            columns |= self._probabilities("teacher_probability", self.teacher_NC)
        return columns

    def glue_columns(self, num_rows: int) -> Columns:
        """The two columns that GLUE's server reads: the label words of its files, scores with three decimals.

        ``num_rows``: of the source. The server wants an answer for each; those that are none of these rows get the most
        frequent class, or the mean of the scores.
        """
        scores = self.logits_NC[:, 0].astype(np.float64)
        given = self.answers(self.logits_NC) if self.label_names else [f"{score:.3f}" for score in scores]
        otherwise = Counter(given).most_common(1)[0][0] if self.label_names else f"{scores.mean():.3f}"
        answers = dict(zip(self.index_N.tolist(), given, strict=True))
        return {"index": list(range(num_rows)), "prediction": [answers.get(at, otherwise) for at in range(num_rows)]}

    def answers(self, logits_NC: Logits) -> list[Any]:
        """The most probable class, the list of classes or the score of each row; None where logits are not finite."""
        is_there = _finite(logits_NC)
        if self.is_multilabel:
            return [
                [name for name, logit in zip(self.label_names, row, strict=True) if logit > 0] if there else None
                for row, there in zip(logits_NC.tolist(), is_there, strict=True)
            ]
        if not self.label_names:
            return _rounded(logits_NC[:, 0], is_there)
        best = logits_NC.argmax(axis=1).tolist()
        return [self.label_names[index] if there else None for index, there in zip(best, is_there, strict=True)]

    def _probabilities(self, prefix: str, logits_NC: Logits) -> Columns:
        if not self.label_names:
            return {}
        from scipy.special import expit, softmax

        is_there = _finite(logits_NC)
        logits_NC = np.where(is_there[:, None], logits_NC, 0.0).astype(np.float64)
        shares_NC = expit(logits_NC) if self.is_multilabel else softmax(logits_NC, axis=1)
        return {f"{prefix}_{name}": _rounded(shares_NC[:, at], is_there) for at, name in enumerate(self.label_names)}

    def summary(self) -> dict[str, Any]:
        """Rows of each predicted class, or mean and range of the scores."""
        if self.is_multilabel:
            return {"counts": dict(zip(self.label_names, (self.logits_NC > 0).sum(0).tolist(), strict=True))}
        if self.label_names:
            answered_NC = self.logits_NC[_finite(self.logits_NC)]
            counts = np.bincount(answered_NC.argmax(axis=1), minlength=len(self.label_names))
            return {"counts": dict(zip(self.label_names, counts.tolist(), strict=True))}
        scores = self.logits_NC[:, 0].astype(np.float64)
        return {"mean": float(scores.mean()), "least": float(scores.min()), "largest": float(scores.max())}


def require_suffix(path: Path) -> None:
    """Refuse a file whose name does not say which kind of table it is; raises SpecError."""
    if path.suffix.lower() not in SUFFIXES:
        raise SpecError(f"--out {path}: give a name that ends in {', '.join(SUFFIXES)}, or - to print a .tsv")


def require_separator(label_names: Sequence[str], suffix: str) -> None:
    """Refuse a cell of several classes where no character can stand between them. Raises SpecError."""
    if suffix != ".jsonl" and separator_for(label_names) is None:
        raise SpecError(
            f"some class has each of {' '.join(SEPARATORS)} in its name, and nothing is left to stand between the "
            "classes of a row; give --out a name that ends in .jsonl"
        )


def require_cells(texts: Sequence[str], suffix: str, what: str = "the class") -> None:
    """Refuse classes, or words, that the cells of a .tsv cannot hold, which knows no quotes.

    Raises SpecError naming the first.
    """
    for name in texts if suffix == ".tsv" else ():
        if _BREAKS.search(name):
            raise SpecError(
                f"{what} {name!r} holds a tab or the end of a line, which no .tsv can; give --out a name that ends "
                "in .csv or .jsonl"
            )


def written(columns: Columns, suffix: str = ".tsv", separator: str | None = None) -> str:
    """A table as text: TSV without quoting, as GLUE's files are, CSV with it, or a JSON object a line.

    ``separator``: between the classes of a row in a cell of the former two, if there are several.
    """
    rows = zip(*columns.values(), strict=True)
    if suffix == ".jsonl":
        lines = (json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) for row in rows)
        return "".join(f"{line}\n" for line in lines)

    def cell(value: Any) -> str:
        if isinstance(value, list):
            return str(separator).join(value)
        return "" if value is None else str(value)

    cells = [list(columns), *([cell(value) for value in row] for row in rows)]
    if suffix == ".csv":
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(cells)
        return text.getvalue()
    return "".join("\t".join(row) + "\n" for row in cells)


def _finite(logits_NC: Logits) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(logits_NC).all(axis=1))


def _rounded(values_N: NDArray[Any], is_there_N: NDArray[np.bool_]) -> list[float | None]:
    pairs = zip(values_N.tolist(), is_there_N.tolist(), strict=True)
    return [float(f"{value:.6g}") if there else None for value, there in pairs]
