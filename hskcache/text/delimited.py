"""Delimited text: GLUE's unquoted ``.tsv`` and quoted ``.csv``, with the line where each record begins."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from hskcache.errors import DataError
from hskcache.text.labels import LabelSet, is_number
from hskcache.text.table import Columns, Table, named_column, numbered_column, read_text


class Record(NamedTuple):
    """One row as written and the line, counted from 1, on which it begins."""

    line: int
    fields: list[str]


def tsv_records(path: Path) -> list[Record]:
    """Records of a tab-separated file in which a quote is a character like any other, as in GLUE.

    Only a line feed ends a line: the csv module and ``splitlines`` also break at a lone carriage return or U+2028,
    which occur inside texts. Blank lines are passed over.

    Raises:
        DataError: as read_text.
    """
    lines = (line.removesuffix("\r") for line in read_text(path).split("\n"))
    return [Record(number, line.split("\t")) for number, line in enumerate(lines, start=1) if line]


def csv_records(path: Path) -> list[Record]:
    """Records of a comma-separated file, where a quoted text may run over several lines.

    Raises:
        DataError: as read_text, or quotes that do not close or pair up.
    """
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    records: list[Record] = []
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return records
        except csv.Error as error:
            raise DataError(f"{path} line {line}: {error}; quote the text as CSV does, doubling inner quotes") from None
        if fields:
            records.append(Record(line, fields))


RECORDS: dict[str, Callable[[Path], list[Record]]] = {".tsv": tsv_records, ".csv": csv_records}


def read_delimited(path: Path, columns: Columns, labels: LabelSet) -> Table:
    """The wanted columns of a ``.tsv`` or ``.csv`` file.

    Args:
        path: the file; its suffix picks the format.
        columns: what to read.
        labels: helps to tell a header from a row where ``columns`` leaves that open.

    Raises:
        DataError: the file cannot be read, lacks a column, or has a row of another length than its first.
    """
    records = RECORDS[path.suffix.lower()](path)
    first = records[0]
    where = f"{path} line {first.line}"
    if has_header(records, columns, labels):
        names = [name.strip() for name in first.fields]
        positions = [named_column(column, names, where) for column in columns.wanted]
        records = records[1:]
    else:
        if any(isinstance(column, str) for column in columns.wanted):
            raise DataError(f"{path}: columns of a file without a header have numbers, counted from 0; give numbers")
        width = len(first.fields)
        positions = [numbered_column(int(column), width, where) for column in columns.wanted]
    if not records:
        raise DataError(f"{path} has a header and no rows; give a file with at least one row")
    _check_widths(path, records, first)
    values = ([record.fields[position] for record in records] for position in positions)
    return Table(str(path), *columns.assign(values), numbers=[record.line for record in records])


def has_header(records: list[Record], columns: Columns, labels: LabelSet) -> bool:
    """Whether the first record names the columns.

    Without a word from ``columns``: yes when a column is asked for by name; otherwise only when its label is none,
    for a class set that is still open: when it is no number and the next row's is.
    """
    if columns.header is not None:
        return columns.header
    if any(isinstance(column, str) for column in columns.wanted):
        return True
    label = columns.label
    if not isinstance(label, int) or not 0 <= label < len(records[0].fields):
        return False
    first = records[0].fields[label].strip()
    if labels.names is not None and labels.problem != "regression":
        return first not in labels.names
    if labels.problem == "regression":
        return not is_number(first)
    second = records[1].fields if len(records) > 1 else []
    return not is_number(first) and label < len(second) and is_number(second[label])


def _check_widths(path: Path, records: list[Record], first: Record) -> None:
    expected = len(first.fields)
    for record in records:
        if len(record.fields) != expected:
            given = f"{len(record.fields)} column{'s' * (len(record.fields) != 1)}"
            raise DataError(
                f"{path} line {record.line}: {given} where line {first.line} has {expected}; "
                "complete the line, or take out a separator that belongs to a text"
            )
