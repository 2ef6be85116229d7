"""Rows of words with a tag each: from files of columns, a word a line, and from lists."""

import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hskcache.classes import NO_CLASS
from hskcache.counted import counted
from hskcache.errors import ColumnError, DataError
from hskcache.text.compressed import format_of
from hskcache.text.labels import LabelSet, Resolved, resolve_labels
from hskcache.text.strings import Mapped
from hskcache.text.table import (
    Columns,
    Faults,
    RawTable,
    RowPolicy,
    RowsRead,
    Values,
    compact,
    numbered_column,
    text_lines,
)

WORD_FORMATS = (".conll", ".conllu", ".iob", ".iob2", ".bio")
"""Suffixes of files with a word a line; of a task of words a file of any other but JSON and Parquet is read so, too."""

_BLANKS = re.compile(r"[ \t]+")
_NO_WORD = re.compile(r"#|\d+[-.]\d+\t")
_DOCUMENT = "-DOCSTART-"
_NO_TAG = str(NO_CLASS)


def joined(words: Sequence[Sequence[str]]) -> Sequence[str]:
    """Rows of words as texts, with a blank between words."""
    return Mapped(" ".join, words)


def read_word_lines(path: Path, columns: Columns, faults: Faults) -> RawTable:
    """The wanted columns of a file with a word a line and a blank line between rows, as CoNLL's shared tasks hand out.

    Columns are divided by blanks and tabs. Lines that begin with -DOCSTART- are no words. In a ``.conllu`` tabs alone
    divide columns, lines that begin with # are remarks, and lines of several words at once, or of words that the text
    does not have, are passed over: these have a range or a fraction for a number. A row's number is that of the line of
    its first word. Raises DataError if the file cannot be read, a column has a name, or a line lacks one and its row
    may not be left out.
    """
    if not all(isinstance(column, int) for column in columns.wanted):
        raise ColumnError(f"{path}: the columns of a file of words have numbers, counted from 0; give numbers")
    rows, numbers = RowsRead(columns), array("q")
    wanted = [int(column) for column in columns.wanted]
    for first, lines in _blocks(path, faults):
        try:
            # The file may be one of other columns throughout: its first line tells that as such.
            for column in wanted:
                numbered_column(column, len(lines[0]), f"{path} line {first}")
        except ColumnError as error:
            if not len(rows):
                raise
            faults.add(first, str(error).partition(": ")[2], "complete the line")
        else:
            short = next((place for place, fields in enumerate(lines) if len(fields) <= max(wanted, default=-1)), None)
            if short is not None:
                have = counted(len(lines[short]), "column")
                faults.add(
                    first, f"word {short + 1} has {have} where the first has {len(lines[0])}", "complete the line"
                )
        rows.append([[fields[column] if column < len(fields) else "" for fields in lines] for column in wanted])
        numbers.append(first)
    if not len(rows):
        raise DataError(f"{path} has no words; give a file with a word a line")
    return RawTable(faults, replace(columns, header=False), *rows.columns, numbers=compact(numbers))


def _blocks(path: Path, faults: Faults) -> Iterator[tuple[int, list[list[str]]]]:
    """Rows of a file: the line of the first word, and of each word its columns."""
    is_universal = format_of(path) == ".conllu"
    first, lines = 0, list[list[str]]()
    for number, line in chain(text_lines(path, faults.policy), [(0, "")]):
        line = line.strip(" \t\r")
        if is_universal and _NO_WORD.match(line):
            continue
        fields = line.split("\t") if is_universal else _BLANKS.split(line)
        if line and not line.startswith(_DOCUMENT):
            first = first or number
            lines.append(fields)
        elif lines:
            yield first, lines
            first, lines = 0, []


def has_words(values: Values) -> bool:
    """True if rows are lists of words, as far as the first one that is there tells."""
    return _listed(next((value for value in values if value is not None), None)) is not None


def check_words(table: RawTable) -> None:
    """Find the rows whose words are none, or are not as many as their tags."""
    for index, words in enumerate(table.texts):
        listed = _listed(words)
        if listed is None:
            kind = "missing" if words is None else f"a {type(words).__name__}, not a list of words"
            table.fault(index, f"the words are {kind}", "give a list, a word an entry")
        elif not listed:
            table.fault(index, "there is no word", "fill it in or remove the row")
        elif odd := [word for word in listed if not isinstance(word, str)]:
            kind = "missing" if odd[0] is None else f"a {type(odd[0]).__name__}, not a string"
            table.fault(index, f"a word is {kind}", "correct or remove the row")
        elif any("\ud800" <= character <= "\udfff" for word in listed for character in word):
            table.fault(index, "a word holds half of a surrogate pair or a byte that is not UTF-8", "write it whole")
        elif table.labels is not None and (tags := table.labels[index]) is not None:
            told = _listed(tags)
            if told is None:
                table.fault(index, f"the tags are a {type(tags).__name__}, not a list", "give a list, a tag a word")
            elif len(told) != len(listed):
                have = f"{counted(len(listed), 'word')} and {counted(len(told), 'tag')}"
                table.fault(index, f"there are {have}", "give every word a tag")


def resolve_tags(table: RawTable, labels: LabelSet, policy: RowPolicy) -> Resolved:
    """The tags of rows of words as class indices: of each row int64 [words], NO_CLASS for none.

    ``table``: of usable rows. Raises DataError as :func:`~hskcache.text.labels.resolve_labels` does; a row with a tag
    that is none is a fault.
    """
    assert table.labels is not None
    counts = [len(words) for words in table.texts]  # type: ignore[arg-type]
    rows = zip(table.labels, counts, strict=True)
    written = [tag for tags, count in rows for tag in ([None] * count if tags is None else _listed(tags) or ())]
    flat = replace(
        table,
        labels=[None if str(tag) == _NO_TAG else tag for tag in written],
        numbers=np.repeat(np.array(table.numbers, np.int64), counts).tolist(),
    )
    found = resolve_labels(flat, replace(labels, problem="classification"), policy)
    if found.labels is None:
        return found._replace(problem="tagging")
    return found._replace(labels=rows_of(found.labels, counts), problem="tagging")


def rows_of(values: NDArray[Any], counts: Sequence[int] | NDArray[Any]) -> NDArray[np.object_]:
    """Values of all words, one row after the other, as an array a row: object [N]."""
    found = np.empty(len(counts), object)
    # One by one: rows of equal lengths would become a table.
    for row, part in enumerate(np.split(values, np.cumsum(counts)[:-1])):
        found[row] = part
    return found


def _listed(value: object) -> list[Any] | None:
    """Entries of a list, whichever form a source gave it; None of what is none."""
    if isinstance(value, np.ndarray):
        return list(value.tolist())
    return list(value) if isinstance(value, list | tuple) else None
