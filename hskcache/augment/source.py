"""The rows to augment with all of their columns, and the lines of the file that takes their copies.

A delimited file or JSON lines stay what they are, with two more columns: ``origin``, the row in the source, counted
from 0, and ``copy``, 0 for the row itself. Parquet and data sets of the hub become JSON lines of the columns that were
read. Whatever is told of the columns to read the source reads the output.
"""

import csv
import io
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hskcache.classes import has_gold
from hskcache.errors import DataError, SpecError
from hskcache.store.files import file_sha256, sha256_hex
from hskcache.text import Examples, Task
from hskcache.text.copies import COPY, ORIGIN
from hskcache.text.delimited import DIALECTS, Dialect, dialect_of, read_records
from hskcache.text.layout import Layout
from hskcache.text.table import Faults, named_column, numbered_column, read_text

_TYPED = ".jsonl"


class RewritableRows(Protocol):
    """Rows that can be written again with other texts."""

    @property
    def facts(self) -> dict[str, Any]:
        """Facts that tell these rows and columns from others."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks on the output for the user."""
        ...

    @property
    def head(self) -> str:
        """Beginning of the file, line end included; empty for a file without a header."""
        ...

    def __len__(self) -> int: ...

    def texts(self, row: int) -> tuple[str, ...]:
        """The text, or both texts of a pair."""
        ...

    def line(self, row: int, texts: Sequence[str], copy: int) -> str:
        """A row with other texts, line end included."""
        ...


def output_suffix(source: str) -> str:
    """Suffix of the augmented file's name."""
    suffix = "" if source.startswith("hub:") else Path(source).suffix.lower()
    return suffix if suffix in DIALECTS else _TYPED


def open_source(source: str, layout: Layout) -> RewritableRows:
    """Read and check rows as every command does.

    ``source``: a data file or ``hub:REPO[:CONFIG]:SPLIT``. Raises SpecError if two of the columns are the same one, or
    have numbers where names are needed; DataError if a row cannot be read, or the source has a column ``origin`` or
    ``copy`` of its own.
    """
    examples = layout.read(source)
    examples.require_texts("augmentation")
    suffix = Path(source).suffix.lower()
    if source.startswith("hub:") or suffix in {".parquet", ".json", ".gz"} or Path(source).is_dir():
        return _typed(examples, layout)
    if suffix == _TYPED:
        return _json_lines(Path(source), examples, layout)
    return _delimited(Path(source), examples, layout)


@dataclass(frozen=True, eq=False)
class Delimited:
    """A ``.tsv`` or ``.csv`` file.

    ``header``: the names of its columns, or None; ``records``: [N] the fields of every row; ``columns``: positions of
    the text columns.
    """

    facts: dict[str, Any]
    header: list[str] | None
    records: list[list[str]]
    columns: tuple[int, ...]
    dialect: Dialect
    notes: tuple[str, ...] = ()

    @property
    def head(self) -> str:
        """The header with two more names."""
        return "" if self.header is None else self._joined([*self.header, ORIGIN, COPY])

    def __len__(self) -> int:
        return len(self.records)

    def texts(self, row: int) -> tuple[str, ...]:
        """The fields that hold text."""
        return tuple(self.records[row][column] for column in self.columns)

    def line(self, row: int, texts: Sequence[str], copy: int) -> str:
        """All fields of a row, the texts replaced, and where it comes from."""
        fields = list(self.records[row])
        for column, text in zip(self.columns, texts, strict=True):
            fields[column] = text
        return self._joined([*fields, str(row), str(copy)])

    def _joined(self, fields: Sequence[str]) -> str:
        if not self.dialect.quoted:
            return self.dialect.separator.join(fields) + "\n"
        line = io.StringIO(newline="")
        # The writer quotes a text with a line end only where it is one of its own, so these must be both kinds.
        csv.writer(line, delimiter=self.dialect.separator, lineterminator="\r\n").writerow(fields)
        return line.getvalue()


@dataclass(frozen=True, eq=False)
class JsonLines:
    """A ``.jsonl`` file, or the read columns of a typed source: ``rows`` [N] are JSON, ``keys`` those of texts."""

    facts: dict[str, Any]
    rows: Sequence[str]
    keys: tuple[str, ...]
    notes: tuple[str, ...] = ()
    head: str = ""

    def __len__(self) -> int:
        return len(self.rows)

    def texts(self, row: int) -> tuple[str, ...]:
        """The values that are text."""
        value = json.loads(self.rows[row])
        return tuple(value[key] for key in self.keys)

    def line(self, row: int, texts: Sequence[str], copy: int) -> str:
        """All keys of a row, the texts replaced, and where it comes from."""
        value = json.loads(self.rows[row]) | dict(zip(self.keys, texts, strict=True)) | {ORIGIN: row, COPY: copy}
        return _json(value) + "\n"


def _json(value: dict[str, Any]) -> str:
    line = json.dumps(value, ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError:
        # A column that nobody reads may hold half of a surrogate pair.
        return json.dumps(value)
    return line


def _delimited(path: Path, examples: Examples, layout: Layout) -> Delimited:
    reading = examples.reading
    assert reading.columns is not None
    text, policy = read_text(path, reading.policy.bad_rows), reading.policy.bad_rows
    dialect = dialect_of(path, text, reading.columns)
    records = read_records(text, dialect, Faults(str(path), policy))
    first = records[0]
    where = f"{path} line {first.line}"
    header = [name.strip() for name in first.fields] if reading.columns.header else None
    if header is not None:
        _check_names(header, where)
    names = [] if header is None else header
    columns = tuple(
        numbered_column(column, len(first.fields), where)
        if isinstance(column, int)
        else named_column(column, names, where)
        for column in layout.file_columns
    )
    _check_distinct(columns)
    facts = _facts(path, examples) | {"columns": columns, "header": header is not None}
    numbers = frozenset(reading.numbers)
    rows = [record.fields for record in records if record.line in numbers]
    return Delimited(facts, None if header is None else first.fields, rows, columns[: _num_texts(examples)], dialect)


def _json_lines(path: Path, examples: Examples, layout: Layout) -> JsonLines:
    rows, numbers = [], frozenset(examples.reading.numbers)
    for number, line in enumerate(read_text(path, examples.reading.policy.bad_rows).split("\n"), start=1):
        if number in numbers:
            _check_names(json.loads(line), f"{path} line {number}")
            rows.append(line)
    # Numbers were refused when the rows were read.
    keys = tuple(map(str, layout.file_columns))
    _check_distinct(keys)
    return JsonLines(_facts(path, examples) | {"columns": keys}, rows, keys[: _num_texts(examples)])


def _typed(examples: Examples, layout: Layout) -> JsonLines:
    columns = layout.file_columns
    notes: list[str] = []
    if layout.task is not None and (layout.text, layout.text_pair, layout.label) == (None, None, None):
        columns, notes = _named(layout.task, str(layout.task_name), columns)
    if numbers := [column for column in columns if isinstance(column, int)]:
        raise SpecError(
            f"{examples.source}: column {numbers[0]} is a number, but the rows are written as JSON lines, whose "
            "columns have names; give --text, --text-pair and --label by name"
        )
    if len(columns) > _num_texts(examples) + 1:
        raise SpecError(
            f"{examples.source} has a column of labels for each class, and rows are written as JSON lines with one; "
            "give a .csv, .tsv or .jsonl file, which keeps its columns"
        )
    keys = tuple(map(str, columns))
    _check_distinct(keys)
    _check_names(keys, examples.source)
    values, label_notes = _labels(examples, layout)
    present = [column for column in (examples.texts, examples.pairs, values) if column is not None]
    rows = [_json(dict(zip(keys, row, strict=True))) for row in zip(*present, strict=True)]
    # Labels may be spelled in more ways than one: what is written decides.
    facts = {"fingerprint": examples.fingerprint, "sha256": sha256_hex("\n".join(rows).encode()), "columns": keys}
    return JsonLines(facts, rows, keys[: _num_texts(examples)], (*notes, *label_notes))


def _named(task: Task, name: str, columns: tuple[str | int, ...]) -> tuple[tuple[str | int, ...], list[str]]:
    """Columns of a task by name, for JSON lines; its files may know them by number alone."""
    if all(isinstance(column, str) for column in columns):
        return columns, []
    hub = task.hub_columns
    flags = {"--text": hub.text, "--text-pair": hub.text_pair, "--label": hub.label}
    given = [word for flag, column in flags.items() if column is not None for word in (flag, str(column))]
    options = shlex.join(["--task", name, *given])
    return hub.wanted, [f"the files of {task.name} have no column names: read this one with {options}"]


def _labels(examples: Examples, layout: Layout) -> tuple[list[Any] | None, list[str]]:
    """Labels so that a reader of JSON lines, who sees no declared classes, numbers them as they are numbered here."""
    if examples.labels is None:
        columns = examples.reading.columns
        return None if columns is None or columns.label is None else [None] * len(examples), []
    is_gold = has_gold(examples.labels)
    if examples.problem == "regression":
        # By way of its shortest spelling: 3.8, not 3.799999952316284.
        return [
            float(str(score)) if is_one else None for score, is_one in zip(examples.labels, is_gold, strict=True)
        ], []
    if examples.labels.ndim == 2:
        return _class_values(examples, is_gold)
    names = examples.label_names
    numeric = all(name.lstrip("+-").isdecimal() for name in names)
    inferred = tuple(sorted(names, key=int if numeric else None))
    given: Sequence[str | int] = range(len(names))
    if layout.task is not None or layout.classes is not None or names == inferred:
        given, note = names, None
    else:
        note = f"classes are written as numbers in the order {', '.join(names)}; read this file with --classes"
    values = [given[label] if is_one else None for label, is_one in zip(examples.labels, is_gold, strict=True)]
    return values, [] if note is None else [note]


def _class_values(examples: Examples, is_gold: NDArray[np.bool_]) -> tuple[list[Any], list[str]]:
    """Labels with a value for each class, as lists of values; a class of its own is nothing that they can tell."""
    assert examples.labels is not None
    # Fractions, so that a reader does not take 0 and 1 for numbers of classes.
    rows = [[float(str(one)) for one in row] for row in examples.labels]
    note = f"labels are written as values of the classes {', '.join(examples.label_names)}, in this order"
    if examples.problem == "multilabel":
        note += "; read this file with a task of problem multilabel, or with a model of such answers"
    return [row if is_one else None for row, is_one in zip(rows, is_gold, strict=True)], [note]


def _facts(path: Path, examples: Examples) -> dict[str, Any]:
    # The fingerprint leaves out the columns that are only passed on.
    return {"fingerprint": examples.fingerprint, "sha256": file_sha256(path)}


def _num_texts(examples: Examples) -> int:
    return 1 if examples.pairs is None else 2


def _check_distinct(columns: Sequence[str | int]) -> None:
    if len(set(columns)) < len(columns):
        listed = ", ".join(map(str, columns))
        raise SpecError(f"the columns of text and label are {listed}; give every one a column of its own")


def _check_names(names: Any, where: str) -> None:
    for name in (ORIGIN, COPY):
        if name in names:
            raise DataError(
                f"{where}: there is a column {name!r} already, which augmentation adds; give rows that are not "
                "augmented, or rename it"
            )
