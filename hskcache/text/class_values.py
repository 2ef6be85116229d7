"""Labels with a value for each class: the classes that a row has, of which there may be several, or a distribution.

Dimension letters as in hskcache.spec: N rows, C classes.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hskcache.classes import Problem, are_counted, has_gold, order_between
from hskcache.counted import counted
from hskcache.errors import DataError
from hskcache.text.gold import truth
from hskcache.text.labels import LabelSet, Resolved, infer_names, listed, numbered, written
from hskcache.text.table import RawTable

SEPARATORS = ("|", ";", ",")
"""Characters that may stand between the classes of a row where these are one text."""

_SUM_TOLERANCE = 0.01
"""Difference from 1 that probabilities may add up to, as they are often written with few digits."""
_NO_GOLD = {"-", "-1"}


def has_class_values(table: RawTable, labels: LabelSet) -> bool:
    """True if the labels of a table are a value for each class, or any number of classes: lists in every row."""
    if labels.problem == "multilabel" or len(table.columns.label_columns) > 1:
        return True
    given = [isinstance(value, list | np.ndarray) for value in table.labels or () if value is not None]
    return bool(given) and all(given)


def resolve_class_values(table: RawTable, labels: LabelSet) -> Resolved:
    """The labels of ``table`` as values in [0, 1], float32 [N, C], NaN in rows without a gold label.

    Of each row the label is a list of classes or their names in one text; or a value for each class, as a list or in
    columns of their own. Of values that are not told to be otherwise those that add up to 1 in every row are a
    distribution over the classes of a classification. ``table``: takes rows whose label is of no such kind. Raises
    DataError for a label that is none and may not be left out, or where the task asks for another kind.
    """
    assert table.labels is not None
    rows = [value.tolist() if isinstance(value, np.ndarray) else value for value in table.labels]
    if labels.problem == "regression":
        raise DataError(f"{table.source}: labels are of several classes, and the task has scores; name one column")
    if len(table.columns.label_columns) > 1 or _are_values(rows, labels):
        return _values(table, [None if value is None else _cells(value) for value in rows], labels)
    if labels.problem == "classification":
        raise DataError(
            f"{table.source}: labels are lists of classes, and the task has one class a row; give a column of one "
            "class, lists of probabilities, or a teacher whose problem_type is multi_label_classification"
        )
    return _sets(table, rows, labels)


def separator_for(names: Iterable[str]) -> str | None:
    """The first separator that no class has in its name; None where every one is in some."""
    held = "".join(names)
    return next((one for one in SEPARATORS if one not in held), None)


def _are_values(rows: Sequence[Any], labels: LabelSet) -> bool:
    """True if lists hold a value for each class, and not the classes: fractions, or 0 and 1 in all of one length."""
    lists = [value for value in rows if isinstance(value, list | tuple)]
    entries = [entry for value in lists for entry in value if entry is not None]
    if not entries or any(isinstance(value, str) for value in rows):
        return False
    if not all(isinstance(entry, int | float) for entry in entries):
        return False
    if any(isinstance(entry, bool | float) for entry in entries):
        return True
    sizes = {len(value) for value in lists}
    if len(sizes) > 1:
        return False
    known = len(labels.names) if labels.names else labels.num_classes
    # A list of classes names none twice.
    return (known in sizes and set(entries) <= {0, 1}) or any(len(set(value)) < len(value) for value in lists)


def _cells(value: object) -> list[object]:
    """Values of a row; a missing one is empty."""
    cells: Sequence[object] = value if isinstance(value, list | tuple) else [value]
    return ["" if cell is None or cell != cell else cell for cell in cells]


def _values(table: RawTable, rows: Sequence[list[object] | None], labels: LabelSet) -> Resolved:
    """Labels that are a value for each class."""
    names, places, remarks = _ordered(table, rows, labels)
    values_NC = np.full((len(rows), len(names)), np.nan, np.float32)
    for index, row in enumerate(rows):
        if row is None or all(str(cell).strip() in {"", *_NO_GOLD, "-1.0"} for cell in row):
            continue
        numbers = [truth(cell) for cell in row]
        if len(row) != len(names):
            problem = f"the label has {counted(len(row), 'value')}, of {counted(len(names), 'class', 'classes')}"
            table.fault(index, problem, "give a value for each")
        elif bad := [cell for cell, one in zip(row, numbers, strict=True) if one is None or not 0 <= one <= 1]:
            problem = "the label lacks a value" if bad[0] == "" else f"the label has the value {bad[0]!r}"
            table.fault(index, problem, "each is 0, 1 or a share between them")
        else:
            values_NC[index] = [numbers[place] for place in places]
    is_gold = has_gold(values_NC)
    if not is_gold.any():
        return Resolved(None, labels.names or (), labels.problem or "classification", ())
    problem = labels.problem or (
        "classification" if (_off(values_NC[is_gold]) <= _SUM_TOLERANCE).all() else "multilabel"
    )
    if problem == "classification":
        for index in np.flatnonzero(is_gold & (_off(values_NC) > _SUM_TOLERANCE)).tolist():
            total = f"the values of the label add up to {values_NC[index].sum():.4g}"
            table.fault(index, total, "probabilities of the classes of a row add up to 1")
    if labels.problem is None:
        told = "a distribution over the classes" if problem == "classification" else "any number of classes a row"
        remarks.append(f"labels read as {told}")
    return Resolved(values_NC, names, problem, tuple(remarks))


def _off(values_NC: NDArray[np.float32]) -> NDArray[np.float64]:
    """Distance of the sum of each row from 1, float64 [N]; 0 where its values are none."""
    off_N: NDArray[np.float64] = np.nan_to_num(np.abs(values_NC.sum(1, dtype=np.float64) - 1))
    return off_N


def _ordered(
    table: RawTable, rows: Sequence[list[object] | None], labels: LabelSet
) -> tuple[tuple[str, ...], Sequence[int], list[str]]:
    """The classes in index order, where in a row the value of each stands, and remarks."""
    declared, known = table.class_names, labels.names
    width = len(next((row for row in rows if row is not None), ()))
    if declared is None or known is None:
        names = known or declared or tuple(map(str, range(width)))
        if known and not are_counted(known):
            return names, range(len(names)), [f"values taken for the classes {listed(names)}, in order"]
        return (
            names,
            range(len(names)),
            [] if known else [f"{counted(len(names), 'class', 'classes')} ({listed(names)})"],
        )
    if len(declared) != len(known):
        raise DataError(
            f"{table.source}: {counted(len(declared), 'column')} ({listed(declared)}) for "
            f"{counted(len(known), 'class', 'classes')} ({listed(known)}); name a column for each class with --label"
        )
    if (order := order_between(declared, known)) is not None:
        return known, order, []
    return known, range(len(known)), [f"columns {listed(declared)} taken for the classes {listed(known)}, in order"]


def _sets(table: RawTable, rows: Sequence[Any], labels: LabelSet) -> Resolved:
    """Labels that are the classes of a row."""
    problem: Problem = "multilabel"
    known, remarks = labels.names or table.class_names, []
    separator = labels.separator or _separator(table, [value for value in rows if isinstance(value, str)], known or ())
    classes = [_classes(table, index, value, separator) for index, value in enumerate(rows)]
    none = [[mark] for mark in _NO_GOLD - set(known or ())]
    classes = [None if found in none else found for found in classes]
    gold = {name for found in classes for name in found or ()}
    if not gold:
        return Resolved(None, labels.names or (), problem, ())
    names = known or infer_names(table, gold, labels.num_classes)
    if labels.names is None:
        remarks.append(f"{counted(len(names), 'class', 'classes')} ({listed(names)}), any number a row")
    if separator and not labels.separator:
        remarks.append(f"the classes of a row separated by {separator!r}")
    if empty := sum(found == [] for found in classes):
        remarks.append(f"{empty:,} of them of no class")
    numbers, remark = numbered(gold, names, table.class_names)
    values_NC = np.full((len(rows), len(names)), np.nan, np.float32)
    for index, found in enumerate(classes):
        if found is None:
            continue
        values_NC[index] = 0
        for name in found:
            if (number := numbers.get(name)) is None:
                unknown = f"label {name!r} is not one of {listed(names)}"
                table.fault(index, unknown, "correct it, or name every class with --classes")
            else:
                values_NC[index, number] = 1
    return Resolved(values_NC, names, problem, (*remarks, *([remark] if remark else [])))


def _separator(table: RawTable, texts: Sequence[str], names: Sequence[str]) -> str | None:
    """The character between the classes of a row; None where each has one at most. Raises DataError if two may be."""
    held = "".join(names)
    found = [one for one in SEPARATORS if one not in held and any(one in text for text in texts)]
    if len(found) > 1:
        raise DataError(
            f"{table.source}: either of {' and '.join(map(repr, found))} may stand between the classes of a row; say "
            f"which by the key separator of a task: --task FILE.yaml"
        )
    return found[0] if found else None


def _classes(table: RawTable, index: int, value: Any, separator: str | None) -> list[str] | None:
    """The classes of a row in the spelling of a text file; None without a gold label."""
    if value is None or value != value:
        return None
    if isinstance(value, str) and separator:
        value = value.split(separator)
    parts = value if isinstance(value, list | tuple) else [value]
    return [name for name in (written(table, index, part) for part in parts) if name]
