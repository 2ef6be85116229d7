"""Labels as written, turned into class indices or scores."""

import math
import re
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hskcache.errors import DataError, SpecError
from hskcache.text.table import Table

Problem: TypeAlias = Literal["classification", "regression"]
Labels: TypeAlias = NDArray[np.int64] | NDArray[np.float32]

_INTEGER = re.compile(r"[+-]?\d+")
_LARGEST_SCORE = float(np.finfo(np.float32).max)
_LISTED_NAMES = 12


@dataclass(frozen=True)
class LabelSet:
    """What the labels may be.

    Attributes:
        problem: None infers it: numbers that are not all whole are scores, anything else is a class.
        names: the classes as the data writes them, in the order of class indices. None infers them: in numeric order
            when all are whole numbers, else sorted. Give the training set's names when reading the other parts, for
            a small one may lack a class.

    Raises:
        SpecError: a name twice, a single name, or names for a regression.
    """

    problem: Problem | None = None
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.problem == "regression" and self.names:
            raise SpecError(f"label names {', '.join(self.names)} for a regression, which has scores; leave them out")
        if self.problem != "regression" and self.names is not None and len(self.names) < 2:
            raise SpecError(f"label names {list(self.names)}: a classification needs at least two; name every class")
        if len(set(self.names or ())) != len(self.names or ()):
            raise SpecError(f"label names {', '.join(self.names or ())} hold one name twice; name each class once")


class Resolved(NamedTuple):
    """Labels as numbers: class indices int64 [N] with their names, or scores float32 [N] with none."""

    labels: Labels
    names: tuple[str, ...]
    problem: Problem


def is_number(text: str) -> bool:
    """Whether ``text`` reads as a number, finite or not."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def resolve_labels(table: Table, labels: LabelSet) -> Resolved:
    """The label column of ``table`` as numbers.

    Raises:
        DataError: a label that is empty, of no such kind, outside the set, or not a finite float32; or inferred
            classes of which there is only one.
    """
    assert table.labels is not None
    written = [_written(table, index, value) for index, value in enumerate(table.labels)]
    problem = labels.problem or ("classification" if labels.names else _infer_problem(table, written))
    if problem == "regression":
        return Resolved(_scores(table, written), (), problem)
    names = labels.names
    if table.class_names is not None and (names is None or not set(names).isdisjoint(table.class_names)):
        names = names or table.class_names
        written = [_class_name(table.class_names, value) for value in written]
    if names is None:
        names = _infer_names(table, written)
    return Resolved(_classes(table, written, names), names, problem)


def _written(table: Table, index: int, value: object) -> str:
    """One label in the spelling of a text file: the same data have the same labels in every format."""
    if isinstance(value, str):
        text = value.strip()
    elif isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, int):
        text = str(value)
    elif isinstance(value, float):
        # Tables with gaps turn whole numbers into floats; class 1 is written 1 all the same.
        text = str(int(value)) if math.isfinite(value) and value.is_integer() else repr(value)
    else:
        text = ""
        if value is not None:
            raise table.error(index, f"the label is a {type(value).__name__}; give a word or a number")
    if not text:
        raise table.error(index, "the label is empty; fill it in, or read the data without labels")
    return text


def _infer_problem(table: Table, written: list[str]) -> Problem:
    if table.class_names is not None or all(_INTEGER.fullmatch(text) for text in written):
        return "classification"
    return "regression" if all(map(is_number, written)) else "classification"


def _infer_names(table: Table, written: list[str]) -> tuple[str, ...]:
    found = sorted(set(written))
    if len(found) < 2:
        raise DataError(f"{table.source}: every row has the label {found[0]!r}; name the classes, at least two")
    if all(_INTEGER.fullmatch(name) for name in found):
        found.sort(key=int)
    return tuple(found)


def _class_name(class_names: tuple[str, ...], written: str) -> str:
    if written in class_names or not written.isdecimal() or int(written) >= len(class_names):
        return written
    return class_names[int(written)]


def _classes(table: Table, written: list[str], names: tuple[str, ...]) -> NDArray[np.int64]:
    numbers = {name: number for number, name in enumerate(names)}
    labels = np.empty(len(written), np.int64)
    for index, text in enumerate(written):
        number = numbers.get(text)
        if number is None:
            rest = len(names) - _LISTED_NAMES
            listed = ", ".join(names[:_LISTED_NAMES]) + (f" and {rest} more" if rest > 0 else "")
            raise table.error(index, f"label {text!r} is not one of {listed}; correct it or name every class")
        labels[index] = number
    return labels


def _scores(table: Table, written: list[str]) -> NDArray[np.float32]:
    scores = np.empty(len(written), np.float32)
    for index, text in enumerate(written):
        score = float(text) if is_number(text) else math.nan
        # Compared as a Python float, for a cast of 1e39 to float32 is infinite; false for NaN.
        if not abs(score) <= _LARGEST_SCORE:
            raise table.error(index, f"label {text!r} is not a finite number; a regression needs one in every row")
        scores[index] = score
    return scores
