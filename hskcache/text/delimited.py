"""Delimited text: GLUE's unquoted ``.tsv`` and quoted ``.csv``, with the line where each record begins."""

import csv
import io
import threading
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TextIO

from hskcache.counted import counted
from hskcache.errors import ColumnError, DataError
from hskcache.text.compressed import format_of, most_characters, opened
from hskcache.text.header import find_header
from hskcache.text.labels import LabelSet
from hskcache.text.table import (
    BadRows,
    Columns,
    Faults,
    RawTable,
    RowsRead,
    Values,
    compact,
    named_column,
    numbered_column,
    read_text,
    text_lines,
)

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_FIELD_LIMIT = threading.Lock()


@dataclass(frozen=True)
class Dialect:
    """Separator and quoting of a delimited file; texts that are ``quoted`` may hold separators and line ends."""

    separator: str
    quoted: bool


DIALECTS = {".tsv": Dialect("\t", quoted=False), ".csv": Dialect(",", quoted=True)}
"""Dialects by the suffix of a file; of a ``.csv`` the separator is the first that gives it the wanted columns."""


class DelimitedRow(NamedTuple):
    """One row as written and the line, counted from 1, on which it begins."""

    line: int
    fields: list[str]


def read_records(text: str, dialect: Dialect, faults: Faults) -> list[DelimitedRow]:
    """All records of a file's text, its header among them. Raises DataError for quotes that do not close or pair up."""
    if not dialect.quoted:
        return list(_unquoted(enumerate(text.split("\n"), start=1), dialect.separator))
    with _any_length(len(text)):
        return list(_quoted(io.StringIO(text, newline=""), dialect.separator, faults))


def _file_records(path: Path, dialect: Dialect, faults: Faults) -> Iterator[DelimitedRow]:
    """Records of a file, its header among them, one after the other; errors as in :func:`read_records`."""
    if not dialect.quoted:
        yield from _unquoted(text_lines(path, faults.policy), dialect.separator)
        return
    with _opened(path, faults.policy) as lines:
        yield from _quoted(lines, dialect.separator, faults)


@contextmanager
def _opened(path: Path, policy: BadRows) -> Iterator[TextIO]:
    """Open a quoted file, whose texts keep the line ends within them; errors as :func:`read_text` tells them."""
    errors = "strict" if policy == "fail" else "surrogateescape"
    try:
        with opened(path) as file, io.TextIOWrapper(file, "utf-8-sig", errors, newline="") as lines:
            yield lines
    except UnicodeDecodeError:
        read_text(path, policy)
        raise


def _unquoted(lines: Iterable[tuple[int, str]], separator: str) -> Iterator[DelimitedRow]:
    """Records in which a quote is a character like any other, as in GLUE; blank lines are passed over.

    Only a line feed ends a line: the csv module and ``splitlines`` also break at a lone carriage return or U+2028,
    which occur inside texts.
    """
    for number, line in lines:
        if line := line.removesuffix("\r"):
            yield DelimitedRow(number, line.split(separator))


def _quoted(lines: Iterable[str], separator: str, faults: Faults) -> Iterator[DelimitedRow]:
    """Records in which a quoted text may run over several lines; blank lines are passed over."""
    reader = csv.reader(lines, delimiter=separator, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "end of data" in str(error):
                # All that follows is one text now: nobody can say which rows it held.
                raise DataError(f"{faults.where(line)}: {error}; close the quote that the text begins with") from None
            rest = reader.line_num - line
            lost = f", lost with the {counted(rest, 'line')} after it" if rest > 0 else ""
            faults.add(line, f"{error}{lost}", "quote the text as CSV does, doubling inner quotes")
            continue
        if fields:
            yield DelimitedRow(line, fields)


@contextmanager
def _any_length(length: int) -> Iterator[None]:
    """Let the csv module take a field of some length; its limit is of the process, and put back afterwards."""
    with _FIELD_LIMIT:
        limit = csv.field_size_limit()
        csv.field_size_limit(max(limit, length + 1))
        try:
            yield
        finally:
            csv.field_size_limit(limit)


def dialect_of(path: Path, text: str, columns: Columns) -> Dialect:
    """Dialect of a file: a ``.csv`` of Excel may separate its fields by semicolons, and many do by tabs."""
    dialect = DIALECTS[format_of(path)]
    if not dialect.quoted:
        return dialect
    with _any_length(len(text)):
        return _separated(dialect, columns, lambda: nullcontext(io.StringIO(text, newline="")))


def _separated(dialect: Dialect, columns: Columns, opened: Callable[[], AbstractContextManager[TextIO]]) -> Dialect:
    for separator in _SEPARATORS:
        with opened() as lines:
            fields = _first_fields(lines, separator)
        if all(column in fields if isinstance(column, str) else column < len(fields) for column in columns.wanted):
            return replace(dialect, separator=separator)
    return dialect


def _first_fields(lines: Iterable[str], separator: str) -> list[str]:
    try:
        record = next(_quoted(lines, separator, Faults("", "skip")), None)
    except DataError:
        return []
    return [] if record is None else [name.strip() for name in record.fields]


def read_delimited(path: Path, columns: Columns, labels: LabelSet, faults: Faults) -> RawTable:
    """The wanted columns of a ``.tsv`` or ``.csv`` file.

    ``path``: the file; its suffix picks the format. ``labels``: helps to tell a header from a row where ``columns``
    leaves that open. ``faults``: takes rows of another length than the first. Raises DataError if the file cannot be
    read, lacks a column, or has a row that may not be left out.
    """
    dialect = DIALECTS[format_of(path)]
    # What is missing or empty is told before anything else.
    next(text_lines(path, faults.policy))
    if not dialect.quoted:
        return _read(path, dialect, columns, labels, faults)
    with _any_length(most_characters(path)):
        dialect = _separated(dialect, columns, lambda: _opened(path, faults.policy))
        return _read(path, dialect, columns, labels, faults)


def _read(path: Path, dialect: Dialect, columns: Columns, labels: LabelSet, faults: Faults) -> RawTable:
    """The columns of a file of a known dialect, record by record, so that memory holds one at a time."""
    first = next(_file_records(path, dialect, faults), None)
    if first is None:
        raise DataError(f"{path} has no row that can be read; give a file with at least one")
    where = f"{path} line {first.line}"
    others = (record.fields for record in islice(_file_records(path, dialect, faults), 1, None))
    header = find_header(first.fields, others, columns, labels, where)
    positions = _positions(path, first, columns, header.is_there)
    rows, numbers, is_empty = RowsRead(columns), array("q"), True
    for record in islice(_file_records(path, dialect, faults), int(header.is_there), None):
        is_empty = False
        if _is_as_wide(record, first, faults):
            numbers.append(record.line)
            rows.append([record.fields[position] for position in positions])
    if is_empty:
        raise DataError(f"{path} has a header and no rows; give a file with at least one row")
    texts, pairs, given = rows.columns
    remarks = list(header.remarks)
    if dialect not in DIALECTS.values():
        remarks.append(f"fields separated by {_SEPARATORS[dialect.separator]}")
    if not dialect.quoted and (remark := _quotes(texts)):
        remarks.append(remark)
    read = replace(columns, header=header.is_there)
    names = None
    if header.is_there and len(columns.label_columns) > 1:
        names = tuple(first.fields[place].strip() for place in positions[len(columns.text_columns) :])
    return RawTable(faults, read, texts, pairs, given, compact(numbers), names, remarks=tuple(remarks))


def _positions(path: Path, first: DelimitedRow, columns: Columns, has_header: bool) -> list[int]:
    """Places of the columns in a record."""
    where = f"{path} line {first.line}"
    if has_header:
        names = [name.strip() for name in first.fields]
        return [named_column(column, names, where) for column in columns.wanted]
    if any(isinstance(column, str) for column in columns.wanted):
        raise ColumnError(f"{path}: columns of a file without a header have numbers, counted from 0; give numbers")
    return [numbered_column(int(column), len(first.fields), where) for column in columns.wanted]


def _is_as_wide(record: DelimitedRow, first: DelimitedRow, faults: Faults) -> bool:
    """True if a record has as many fields as the first one, else it is a fault."""
    if len(record.fields) == len(first.fields):
        return True
    given = f"{len(record.fields)} column{'s' * (len(record.fields) != 1)}"
    problem = f"{given} where line {first.line} has {len(first.fields)}"
    faults.add(record.line, problem, "complete the line, or take out a separator that belongs to a text")
    return False


def _quotes(texts: Values) -> str | None:
    """A remark where a file without quoting looks as if a writer of CSV had quoted its texts."""
    count, is_doubled = 0, False
    for text in texts:
        if isinstance(text, str) and '"' in text:
            if not _is_quoted(text):
                return None
            count, is_doubled = count + 1, is_doubled or '""' in text[1:-1]
    # Of a text in quotes throughout, GLUE's or a writer's, only a doubled quote tells which it is.
    if not is_doubled:
        return None
    return (
        f'{count} texts in quotes as CSV has them ("a ""b"""), which are kept as they stand: a .tsv has no '
        "quoting; name the file .csv to take them off"
    )


def _is_quoted(text: str) -> bool:
    return len(text) > 1 and text[0] == text[-1] == '"' and '"' not in text[1:-1].replace('""', "")
