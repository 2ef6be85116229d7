"""Delimited text: GLUE's unquoted ``.tsv`` and quoted ``.csv``, with the line where each record begins."""

import csv
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from hskcache.counted import counted
from hskcache.errors import ColumnError, DataError
from hskcache.text.header import find_header
from hskcache.text.labels import LabelSet
from hskcache.text.table import Columns, Faults, RawTable, Values, named_column, numbered_column, read_text

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
        return _unquoted(text, dialect.separator)
    with _any_length(text):
        return list(_quoted(text, dialect.separator, faults))


def _unquoted(text: str, separator: str) -> list[DelimitedRow]:
    """Records in which a quote is a character like any other, as in GLUE; blank lines are passed over.

    Only a line feed ends a line: the csv module and ``splitlines`` also break at a lone carriage return or U+2028,
    which occur inside texts.
    """
    lines = (line.removesuffix("\r") for line in text.split("\n"))
    return [DelimitedRow(number, line.split(separator)) for number, line in enumerate(lines, start=1) if line]


def _quoted(text: str, separator: str, faults: Faults) -> Iterator[DelimitedRow]:
    """Records in which a quoted text may run over several lines; blank lines are passed over."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
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
def _any_length(text: str) -> Iterator[None]:
    """Let the csv module take a field as long as ``text``; its limit is of the process, and put back afterwards."""
    with _FIELD_LIMIT:
        limit = csv.field_size_limit()
        csv.field_size_limit(max(limit, len(text) + 1))
        try:
            yield
        finally:
            csv.field_size_limit(limit)


def dialect_of(path: Path, text: str, columns: Columns) -> Dialect:
    """Dialect of a file: a ``.csv`` of Excel may separate its fields by semicolons, and many do by tabs."""
    dialect = DIALECTS[path.suffix.lower()]
    if not dialect.quoted:
        return dialect
    with _any_length(text):
        for separator in _SEPARATORS:
            fields = _first_fields(text, separator)
            if all(column in fields if isinstance(column, str) else column < len(fields) for column in columns.wanted):
                return replace(dialect, separator=separator)
    return dialect


def _first_fields(text: str, separator: str) -> list[str]:
    try:
        record = next(_quoted(text, separator, Faults("", "skip")), None)
    except DataError:
        return []
    return [] if record is None else [name.strip() for name in record.fields]


def read_delimited(path: Path, columns: Columns, labels: LabelSet, faults: Faults) -> RawTable:
    """The wanted columns of a ``.tsv`` or ``.csv`` file.

    ``path``: the file; its suffix picks the format. ``labels``: helps to tell a header from a row where ``columns``
    leaves that open. ``faults``: takes rows of another length than the first. Raises DataError if the file cannot be
    read, lacks a column, or has a row that may not be left out.
    """
    text = read_text(path, faults.policy)
    dialect = dialect_of(path, text, columns)
    records = read_records(text, dialect, faults)
    if not records:
        raise DataError(f"{path} has no row that can be read; give a file with at least one")
    first = records[0]
    where = f"{path} line {first.line}"
    header = find_header([record.fields for record in records], columns, labels, where)
    if header.is_there:
        names = [name.strip() for name in first.fields]
        positions = [named_column(column, names, where) for column in columns.wanted]
        records = records[1:]
    else:
        if any(isinstance(column, str) for column in columns.wanted):
            raise ColumnError(f"{path}: columns of a file without a header have numbers, counted from 0; give numbers")
        width = len(first.fields)
        positions = [numbered_column(int(column), width, where) for column in columns.wanted]
    if not records:
        raise DataError(f"{path} has a header and no rows; give a file with at least one row")
    records = _of_one_width(records, first, faults)
    texts, pairs, given = columns.assign([record.fields[position] for record in records] for position in positions)
    remarks = list(header.remarks)
    if dialect not in DIALECTS.values():
        remarks.append(f"fields separated by {_SEPARATORS[dialect.separator]}")
    if not dialect.quoted and (remark := _quotes(texts)):
        remarks.append(remark)
    read = replace(columns, header=header.is_there)
    numbers = [record.line for record in records]
    return RawTable(faults, read, texts, pairs, given, numbers, remarks=tuple(remarks))


def _of_one_width(records: list[DelimitedRow], first: DelimitedRow, faults: Faults) -> list[DelimitedRow]:
    expected = len(first.fields)
    of_one_width = []
    for record in records:
        if len(record.fields) == expected:
            of_one_width.append(record)
            continue
        given = f"{len(record.fields)} column{'s' * (len(record.fields) != 1)}"
        problem = f"{given} where line {first.line} has {expected}"
        faults.add(record.line, problem, "complete the line, or take out a separator that belongs to a text")
    return of_one_width


def _quotes(texts: Values) -> str | None:
    """A remark where a file without quoting looks as if a writer of CSV had quoted its texts."""
    holding = [text for text in texts if isinstance(text, str) and '"' in text]
    # Of a text in quotes throughout, GLUE's or a writer's, only a doubled quote tells which it is.
    if not any('""' in text[1:-1] for text in holding) or not all(map(_is_quoted, holding)):
        return None
    return (
        f'{len(holding)} texts in quotes as CSV has them ("a ""b"""), which are kept as they stand: a .tsv has no '
        "quoting; name the file .csv to take them off"
    )


def _is_quoted(text: str) -> bool:
    return len(text) > 1 and text[0] == text[-1] == '"' and '"' not in text[1:-1].replace('""', "")
