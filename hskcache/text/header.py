"""Detection of the first line of a delimited file as the names of its columns."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from hskcache.errors import DataError
from hskcache.text.gold import NO_GOLD, truth
from hskcache.text.labels import LabelSet, is_number
from hskcache.text.table import Columns

_TEXT_NAMES = re.compile(
    r"(sentence|text|question)s?_?[12ab]?|premise|hypothesis|review|content|body|comment|document|message|tweet|query|"
    r"passage|utterance"
)
_LABEL_NAMES = re.compile(
    r"labels?|class(es)?|category|target|gold(_label)?|sentiment|scores?|intent|topic|rating|stars|polarity|emotion|"
    r"is_duplicate|quality"
)


class Header(NamedTuple):
    """Presence of a header, and how it was recognised where nobody told it."""

    is_there: bool
    remarks: tuple[str, ...] = ()


def find_header(
    first: Sequence[str], others: Iterable[Sequence[str]], columns: Columns, labels: LabelSet, where: str
) -> Header:
    """Tell a header from a row.

    A column that is asked for by name needs a header. Among numbers alone the first line is one when its label is none:
    outside the known classes, a word above numbers, or called as a column of labels or texts is and found nowhere else.
    ``records``: [N] fields of every line; ``where``: the first line, for an error. Raises DataError if the first label
    is a class of its own, while all others occur more than once.
    """
    if columns.header is not None:
        return Header(columns.header)
    if any(isinstance(column, str) for column in columns.wanted):
        return Header(True)
    is_there = _is_header(first, others, columns, labels, where)
    return Header(is_there, (f"first line read as {'header' if is_there else 'a row'}",))


def _is_header(
    first: Sequence[str], rest: Iterable[Sequence[str]], columns: Columns, labels: LabelSet, where: str
) -> bool:
    label = columns.label
    if len(columns.label_columns) > 1:
        cells = [first[column] for column in columns.label_columns if isinstance(column, int) and column < len(first)]
        return any(cell.strip() and truth(cell) is None for cell in cells)
    is_named = any(_is_one_of(_TEXT_NAMES, first, column) for column in (columns.text, columns.text_pair))
    if label is None:
        return is_named
    if not isinstance(label, int) or not 0 <= label < len(first):
        return False
    written = first[label].strip()
    others = Counter(fields[label].strip() for fields in rest if label < len(fields))
    for spelling in NO_GOLD:
        others.pop(spelling, None)
    if written in NO_GOLD or written in others or is_number(written):
        return False
    if labels.problem == "regression":
        return True
    if labels.names is not None and labels.problem == "multilabel":
        parts = {part.strip().casefold() for part in re.split(r"[|;,]", written)}
        return parts.isdisjoint(map(str.casefold, labels.names))
    if labels.names is not None:
        return written.casefold() not in map(str.casefold, labels.names)
    if others and all(map(is_number, others)):
        return True
    if is_named or _is_one_of(_LABEL_NAMES, first, label):
        return True
    if len(others) > 1 and min(others.values()) > 1:
        raise DataError(
            f"{where}: {written!r} may be the name of a column or a label that no other line has; give --header or "
            "--no-header"
        )
    return False


def _is_one_of(names: re.Pattern[str], fields: Sequence[str], column: str | int | None) -> bool:
    if not isinstance(column, int) or not 0 <= column < len(fields):
        return False
    return names.fullmatch(fields[column].strip().casefold().replace(" ", "_").replace("-", "_")) is not None
