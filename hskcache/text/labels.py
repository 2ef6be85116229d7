"""Labels as written, turned into class indices or scores."""

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hskcache.classes import NO_CLASS, Problem, has_gold
from hskcache.counted import counted
from hskcache.errors import DataError, SpecError
from hskcache.text.gold import Unlabelled, number, unlabelled_classes, unlabelled_scores
from hskcache.text.table import RawTable, RowPolicy

Labels: TypeAlias = NDArray[np.int64] | NDArray[np.float32] | NDArray[np.object_]

_INTEGER = re.compile(r"[+-]?\d+")
_WHOLE = re.compile(r"([+-]?\d+)\.0*")
_LARGEST_SCORE = float(np.finfo(np.float32).max)
_LISTED_NAMES = 12


@dataclass(frozen=True)
class LabelSet:
    """Labels that a data set may have. Raises SpecError for a name twice, a single name, or names for a regression.

    Attributes:
        problem: None infers it: numbers that are not all whole are scores, anything else is a class; lists of words are
            several classes, lists of numbers a value for each class. ``tagging``, a class a word, is never inferred.
        names: the classes as the data writes them, in the order of class indices. None infers them: in numeric order
            when all are whole numbers, else sorted. Give the training set's names when reading the other parts, for
            a small one may lack a class.
        num_classes: how many classes there are where their names are not known, as of a model saved without names;
            labels that are numbers below it are then class indices.
        separator: between the classes of a row where these are one text; None finds it.
    """

    problem: Problem | None = None
    names: tuple[str, ...] | None = None
    num_classes: int | None = None
    separator: str | None = None

    def __post_init__(self) -> None:
        if self.problem == "regression" and self.names:
            raise SpecError(f"label names {', '.join(self.names)} for a regression, which has scores; leave them out")
        needed = 1 if self.problem == "multilabel" else 2
        if self.problem != "regression" and self.names is not None and len(self.names) < needed:
            raise SpecError(f"label names {list(self.names)}: a classification needs at least two; name every class")
        if len(set(self.names or ())) != len(self.names or ()):
            raise SpecError(f"label names {', '.join(self.names or ())} hold one name twice; name each class once")


class Resolved(NamedTuple):
    """Labels as numbers.

    Attributes:
        labels: class indices int64 [N], NO_CLASS for none; scores float32 [N], NaN for none; a value in [0, 1] for each
            class, float32 [N, C], NaN for none; or of rows of words an array of class indices each, object [N]. None
            where no row has a gold label. What rows with a fault hold says nothing.
        names: of the classes; empty for scores.
        remarks: how the labels were read where that was not told, each a few words.
    """

    labels: Labels | None
    names: tuple[str, ...]
    problem: Problem
    remarks: tuple[str, ...]


def is_number(text: str) -> bool:
    """True if ``text`` reads as a number, finite or not."""
    return number(text) is not None


def resolve_labels(table: RawTable, labels: LabelSet, policy: RowPolicy) -> Resolved:
    """The label column of ``table`` as numbers.

    ``table``: where it is from; takes rows whose label is of no such kind or outside the set. ``policy``: what becomes
    of rows without a gold label, which settles what -1 is. Raises DataError for a label that is none and may not be
    left out, -1 that may be a class or none, or inferred classes of which there is only one.
    """
    assert table.labels is not None
    texts = [written(table, index, value) for index, value in enumerate(table.labels)]
    counts = Counter(text for text in texts if text)
    problem = labels.problem or ("classification" if labels.names else _infer_problem(table, counts))
    if problem == "regression":
        return _scores(table, texts, unlabelled_scores(counts, policy), is_told=labels.problem is not None)
    return _classes(table, texts, labels, policy)


def written(table: RawTable, index: int, value: object) -> str:
    """One label in the spelling of a text file, the same in every format; empty for none."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if value is None or value != value:
        return ""
    if isinstance(value, float):
        # Tables with gaps turn whole numbers into floats; class 1 is written 1 all the same.
        return str(int(value)) if math.isfinite(value) and value.is_integer() else repr(value)
    table.fault(index, f"the label is a {type(value).__name__}", "give a word or a number")
    return ""


def _infer_problem(table: RawTable, counts: Iterable[str]) -> Problem:
    texts = set(counts) - {"-"}
    if table.class_names is not None or all(_INTEGER.fullmatch(text) or _WHOLE.fullmatch(text) for text in texts):
        return "classification"
    return "regression" if all(map(is_number, texts)) else "classification"


def _scores(table: RawTable, written: list[str], none: Unlabelled, is_told: bool) -> Resolved:
    scores = np.full(len(written), math.nan, np.float32)
    for index, text in enumerate(written):
        if not text or text in none.spellings:
            continue
        score = math.nan if (found := number(text)) is None else found
        # Compared as a Python float, for a cast of 1e39 to float32 is infinite; false for NaN.
        if abs(score) <= _LARGEST_SCORE:
            scores[index] = score
        else:
            table.fault(index, f"label {text!r} is not a finite number", "a regression needs one in every row")
    if not (is_gold := has_gold(scores)).any():
        return Resolved(None, (), "regression", ())
    remarks = [] if is_told else [f"scores from {scores[is_gold].min():g} to {scores[is_gold].max():g}"]
    remarks += [] if none.remark is None else [none.remark]
    return Resolved(scores, (), "regression", tuple(remarks))


def _classes(table: RawTable, written: list[str], labels: LabelSet, policy: RowPolicy) -> Resolved:
    known = labels.names or table.class_names
    spelled = _spelled(set(written) - {""}, known or ())
    counts = Counter(spelled[text] for text in written if text)
    none = unlabelled_classes(table.source, counts, (known, labels.num_classes), policy)
    gold = counts.keys() - none.spellings
    if not gold:
        return Resolved(None, labels.names or (), "classification", ())
    remarks = [] if none.remark is None else [none.remark]
    names = known or infer_names(table, gold, labels.num_classes)
    if labels.names is None:
        remarks.insert(0, f"{counted(len(names), 'class', 'classes')} ({listed(names)})")
        # A model may have more classes than rows show: numbers from 1 look so where the last has no row.
        absent = () if known else tuple(name for name in names if name not in gold)
        if absent:
            remarks.append(f"of which {listed(absent)} {'has' if len(absent) == 1 else 'have'} no row")
        remarks += alike(names)
    numbers, remark = numbered(gold, names, table.class_names)
    remarks += [remark] if remark else []
    numbers |= dict.fromkeys(none.spellings, NO_CLASS)
    indices = np.full(len(written), NO_CLASS, np.int64)
    for index, text in enumerate(written):
        if not text:
            continue
        number = numbers.get(spelled[text])
        if number is None:
            problem = f"label {text!r} is not one of {listed(names)}"
            table.fault(index, problem, "correct it, or name every class with --classes")
        else:
            indices[index] = number
    return Resolved(indices, names, "classification", tuple(remarks))


def _spelled(written: Iterable[str], names: Iterable[str]) -> dict[str, str]:
    """One spelling for each that is found: a frame has 1 or 1.0, true, True or TRUE, by the format it is written in."""
    written, names = set(written), set(names)
    texts = written - names - {"-"}
    if all(_INTEGER.fullmatch(text) or _WHOLE.fullmatch(text) for text in texts):
        return {text: text if text in names else _whole(text) for text in written}
    if {text.casefold() for text in texts} <= {"true", "false"}:
        return {text: text if text in names else text.casefold() for text in written}
    return {text: text for text in written}


def _whole(text: str) -> str:
    match = _WHOLE.fullmatch(text)
    return text if match is None else match[1].replace("-0", "0") if int(match[1]) == 0 else match[1]


def infer_names(table: RawTable, gold: Collection[str], num_classes: int | None) -> tuple[str, ...]:
    """Names of the classes that rows show, in the order of their indices; raises DataError where there is only one."""
    if num_classes is not None:
        numbers = tuple(map(str, range(num_classes)))
        if set(gold) <= set(numbers):
            return numbers
    names = sorted(gold)
    if len(names) < 2:
        raise DataError(
            f"{table.source}: every row has the label {names[0]!r}; name the classes, at least two, with --classes"
        )
    if all(_INTEGER.fullmatch(name) for name in names):
        names.sort(key=int)
    return tuple(names)


def numbered(
    gold: Collection[str], names: tuple[str, ...], declared: tuple[str, ...] | None
) -> tuple[dict[str, int], str | None]:
    """The class index of each spelling that has one, and a remark where numbers are taken for indices."""
    numbers = {name: number for number, name in enumerate(names)}
    if declared is not None and (own := matched(declared, names)):
        return {**numbers, **{str(index): own[name] for index, name in enumerate(declared) if name in own}}, None
    if not set(gold).isdisjoint(numbers) or any(_INTEGER.fullmatch(name) or _WHOLE.fullmatch(name) for name in names):
        return numbers | {_whole(name): number for name, number in numbers.items()}, None
    indices = {str(number): number for number in range(len(names))}
    if set(gold) <= set(indices):
        return indices, f"labels that are numbers taken for the classes {listed(names)}, in order"
    return numbers, None


def matched(declared: tuple[str, ...], names: tuple[str, ...]) -> dict[str, int]:
    """Index by name of the classes that a source declares and that are asked for, of whatever case.

    Empty where the two have no class in common: indices of the source are then those asked for.
    """
    exact = {name: number for number, name in enumerate(names) if name in declared}
    if exact:
        return exact
    folded = {name.casefold(): number for number, name in enumerate(names)}
    if {name.casefold() for name in declared} == set(folded):
        return {name: folded[name.casefold()] for name in declared}
    return {}


def alike(names: tuple[str, ...]) -> list[str]:
    """A remark where inferred classes differ in nothing but case, and are perhaps one."""
    folded = Counter(name.casefold() for name in names)
    alike = [name for name in names if folded[name.casefold()] > 1]
    return [f"of which {', '.join(alike)} differ in case alone"] if alike else []


def listed(names: tuple[str, ...]) -> str:
    """Names in words, the first ones where there are many."""
    rest = len(names) - _LISTED_NAMES
    return ", ".join(names[:_LISTED_NAMES]) + (f" and {rest} more" if rest > 0 else "")
