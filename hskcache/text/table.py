"""Table that every format is read into: the wanted columns, as written, and where each row stands in its file."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from hskcache.counted import counted
from hskcache.errors import ColumnError, DataError
from hskcache.text.compressed import content, opened
from hskcache.text.strings import column

Values: TypeAlias = Sequence[object]
Unlabelled: TypeAlias = Literal["fail", "skip", "keep"]
BadRows: TypeAlias = Literal["fail", "skip"]


@dataclass(frozen=True)
class Columns:
    """Columns to read, by name or by number counted from 0.

    Attributes:
        text: the sentence, or the first of a pair.
        text_pair: the second of a pair; None reads single sentences.
        label: the class or the score; columns between commas hold a value for each class. None reads no labels.
        header: whether a delimited file's first line names its columns. None lets the file decide: a column given
            by name needs a header; among numbers alone, a first line whose label is none of the labels is one.
    """

    text: str | int
    text_pair: str | int | None = None
    label: str | int | None = None
    header: bool | None = None

    @property
    def wanted(self) -> tuple[str | int, ...]:
        """The columns in the order text, pair, label, without those that are not read."""
        return (*self.text_columns, *self.label_columns)

    @property
    def text_columns(self) -> tuple[str | int, ...]:
        """The columns of texts."""
        return tuple(column for column in (self.text, self.text_pair) if column is not None)

    @property
    def label_columns(self) -> tuple[str | int, ...]:
        """The columns of labels: none, one, or one a class."""
        if not isinstance(self.label, str) or "," not in self.label:
            return () if self.label is None else (self.label,)
        return tuple(
            int(one) if one.isascii() and one.isdigit() else one for one in map(str.strip, self.label.split(","))
        )


@dataclass(frozen=True)
class RowPolicy:
    """Fate of rows that are not as they should be.

    ``unlabelled``: rows without a gold label among others that have one. None fails, too, but reads a column in which
    no row has a gold label as no labels. ``bad_rows``: rows that cannot be used, such as one without a text.
    """

    unlabelled: Unlabelled | None = None
    bad_rows: BadRows = "fail"


@dataclass
class Faults:
    """Rows of one source that cannot be used: the first ends the reading, or all are left out and remembered.

    ``source``: the file or data set, as the user named it. ``policy``: which of the two. ``unit``: what numbers count:
    lines of a text file, rows of a typed one. ``found``: what is wrong, by line or row, counted from 1.
    """

    source: str
    policy: BadRows
    unit: str = "line"
    found: dict[int, str] = field(default_factory=dict)

    def where(self, number: int) -> str:
        """The place of a row, in the form ``FILE line N``."""
        return f"{self.source} {self.unit} {number}"

    def add(self, number: int, problem: str, advice: str, kind: type[DataError] = DataError) -> None:
        """Remember what is wrong with a row. Raises DataError if such rows are not to be left out; of this ``kind``."""
        if self.policy == "fail":
            raise kind(f"{self.where(number)}: {problem}; {advice}, or give --bad-rows skip to leave out such rows")
        self.found.setdefault(number, problem)


class RowsRead:
    """The wanted columns while a source is read row by row; labels, of which there are few, are kept once each."""

    def __init__(self, columns: Columns) -> None:
        self._wanted = columns
        self._texts: list[Any] = [column() for _ in columns.text_columns]
        self._labels: list[object] = []

    def __len__(self) -> int:
        return len(self._texts[0])

    def append(self, row: Iterable[object]) -> None:
        """Add a row's values, in the order of the wanted columns."""
        given = iter(row)
        for values in self._texts:
            values.append(next(given))
        label = tuple(sys.intern(one) if type(one) is str else one for one in given)
        if self._wanted.label is not None:
            self._labels.append(label[0] if len(self._wanted.label_columns) == 1 else label)

    def extend(self, *columns: Iterable[object]) -> None:
        """Add the values of several rows, a column each."""
        for row in zip(*columns, strict=True):
            self.append(row)

    @property
    def columns(self) -> tuple[Values, Values | None, Values | None]:
        """Texts, pairs and labels; None for what is not read."""
        texts, *pairs = self._texts
        return texts, pairs[0] if pairs else None, None if self._wanted.label is None else self._labels


def compact(numbers: Sequence[int]) -> Sequence[int]:
    """The same ascending numbers, as a range where none is left out, which takes no memory."""
    whole = range(numbers[0], numbers[-1] + 1) if numbers else range(0)
    return whole if len(whole) == len(numbers) else numbers


@dataclass(frozen=True)
class RawTable:
    """Raw columns of one source; values are strings, or what a typed format gave.

    Attributes:
        faults: the source, and its rows that cannot be used.
        columns: that were read; their ``header`` is None for a format whose columns always have names.
        texts: [N] values of the text column.
        pairs: [N] values of the pair column, or None.
        labels: [N] values of the label column, a tuple where there are several, or None.
        numbers: [N] line or row of each entry, counted from 1.
        class_names: names of the classes where the source itself declares them, as a header does that has a column for
            each; labels of one column are then indices.
        split: the part of a data set; None for a file.
        remarks: how the source was read where that was not told, each a few words.
    """

    faults: Faults
    columns: Columns
    texts: Values
    pairs: Values | None
    labels: Values | None
    numbers: Sequence[int]
    class_names: tuple[str, ...] | None = None
    split: str | None = None
    remarks: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """The file or data set, as the user named it."""
        return self.faults.source

    def fault(self, index: int, problem: str, advice: str) -> None:
        """Remember what is wrong with entry ``index``; as :meth:`Faults.add`."""
        self.faults.add(self.numbers[index], problem, advice)


def text_lines(path: Path, policy: BadRows = "fail") -> Iterator[tuple[int, str]]:
    """Lines of a UTF-8 file with their numbers from 1, ended by line feeds alone; errors as in :func:`read_text`."""
    errors = "strict" if policy == "fail" else "surrogateescape"
    blank: list[tuple[int, str]] | None = []
    try:
        with opened(path) as file:
            for number, data in enumerate(file, start=1):
                line = data.decode("utf-8-sig" if number == 1 else "utf-8", errors).removesuffix("\n")
                if blank is not None and line.strip():
                    yield from blank
                    blank = None
                if blank is None:
                    yield number, line
                else:
                    blank.append((number, line))
    except (OSError, UnicodeDecodeError):
        read_text(path, policy)
        raise
    if blank is not None:
        read_text(path, policy)


def read_text(path: Path, policy: BadRows = "fail") -> str:
    """The text of a UTF-8 file, without a byte order mark.

    ``policy``: ``skip`` reads bytes that are not UTF-8 as halves of surrogate pairs, which no text may hold. Raises
    DataError if the file is missing, unreadable, empty, or not UTF-8 (naming the line).
    """
    try:
        data = content(path)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; give the path of a data file") from None
    try:
        text = data.decode("utf-8-sig", "strict" if policy == "fail" else "surrogateescape")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = data[error.start]
        raise DataError(f"{path} line {line}: byte 0x{byte:02x} is not UTF-8; save the file as UTF-8") from None
    if not text.strip():
        raise DataError(f"{path} is empty; give a file with at least one row")
    return text


def named_column(column: str | int, names: Sequence[str], where: str) -> int:
    """Number of a column, from 0. Raises ColumnError if none or several have the name, or it is out of range."""
    if isinstance(column, int):
        return numbered_column(column, len(names), where)
    positions = [position for position, name in enumerate(names) if name == column]
    if len(positions) == 1:
        return positions[0]
    listed = ", ".join(names)
    if positions:
        raise ColumnError(
            f"{where}: {counted(len(positions), 'column')} are called {column!r} ({listed}); give its number instead"
        )
    raise ColumnError(f"{where}: no column {column!r}; the columns are {listed}")


def numbered_column(column: int, width: int, where: str) -> int:
    """``column`` itself when a row of ``width`` columns has it. Raises ColumnError if the number is out of range."""
    if 0 <= column < width:
        return column
    have = "is 1 column, number 0" if width == 1 else f"are {counted(width, 'column')}, numbers 0 to {width - 1}"
    raise ColumnError(f"{where}: no column number {column}; there {have}")
