"""Rows that a program holds in memory, in the place of a file: a data set, a frame, or lists."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from hskcache.errors import DataError
from hskcache.text.table import BadRows, Columns, Faults, RawTable, RowsRead, named_column
from hskcache.text.typed import class_columns, of_data_set

KINDS = "a datasets.Dataset, a pandas DataFrame, a pyarrow Table, lists by column, a list of rows, or a list of texts"


@dataclass(frozen=True, eq=False)
class InMemory:
    """Rows in memory; made by :func:`in_memory`.

    Attributes:
        columns: a ``datasets.Dataset``, or values by the name of the column.
        name: of the rows in messages and manifests.
        split: the part of a data set that they are, where they tell.
    """

    columns: Any
    name: str
    split: str | None = None

    def __str__(self) -> str:
        return self.name

    @property
    def column_names(self) -> list[str]:
        """Names of the columns, in order."""
        return list(self.columns if isinstance(self.columns, dict) else self.columns.column_names)

    def read(self, columns: Columns, policy: BadRows) -> RawTable:
        """The wanted columns. Raises DataError if there is no row, or a column is missing."""
        faults = Faults(self.name, policy, "row")
        if not isinstance(self.columns, dict):
            return of_data_set(self.columns, faults, columns, self.split)
        names = self.column_names
        wanted = [self.columns[names[named_column(column, names, self.name)]] for column in columns.wanted]
        if not len(wanted[0]):
            raise DataError(f"{self.name} have no rows; give at least one row")
        rows = RowsRead(columns)
        rows.extend(*wanted)
        numbers = range(1, len(rows) + 1)
        return RawTable(faults, columns, *rows.columns, numbers, class_columns(columns, columns.wanted))


Source: TypeAlias = str | Path | InMemory
"""Rows to read: a file, a folder of ``save_to_disk``, ``hub:REPO[:CONFIG]:SPLIT``, or rows in memory."""


def in_memory(rows: Any, name: str = "the rows in memory") -> str | InMemory:
    """Rows as a source; the name of a file stays what it is.

    The same rows are the same whichever of these holds them, and the same as in a file. Of a frame, what it marks as
    missing is missing.

    Args:
        rows: a ``datasets.Dataset``, a pandas DataFrame, a pyarrow Table, a mapping of columns, a sequence of mappings,
            a sequence of strings (which are the column ``text``), or a path.
        name: of the rows in messages.

    Raises:
        DataError: they are something else, a data set in several parts, or columns of different lengths.
    """
    if isinstance(rows, str | Path | InMemory):
        return rows if isinstance(rows, InMemory) else str(rows)
    if hasattr(rows, "select_columns") and hasattr(rows, "features") and hasattr(rows, "__len__"):
        return InMemory(rows, name, None if rows.split is None else str(rows.split))
    columns = _columns(rows)
    if columns is None:
        raise DataError(f"rows are {KINDS}, or the path of a file; a {type(rows).__name__} was given")
    counts = {column: len(values) for column, values in columns.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{column} {count:,}" for column, count in counts.items())
        raise DataError(f"{name}: columns are of different lengths ({listed}); give every row a value in each")
    return InMemory(columns, name)


def _columns(rows: Any) -> dict[str, Sequence[Any]] | None:
    """Values by column; None of what has none."""
    if isinstance(rows, Mapping):
        if any(hasattr(part, "select_columns") for part in rows.values()):
            raise DataError(f"the data set has the parts {', '.join(map(str, rows))}; give one, such as data['train']")
        return {str(column): _plain(values) for column, values in rows.items()}
    if hasattr(rows, "to_pydict"):
        return dict(rows.to_pydict())
    if hasattr(rows, "columns") and hasattr(rows, "iloc"):
        # Of a frame, NaN and its like are no values.
        return {str(column): _plain(rows[column].astype(object).where(rows[column].notna(), None)) for column in rows}
    if isinstance(rows, Sequence) and all(isinstance(row, str) for row in rows):
        return {"text": rows}
    if isinstance(rows, Sequence) and all(isinstance(row, Mapping) for row in rows):
        names = dict.fromkeys(str(column) for row in rows for column in row)
        return {column: _plain([row.get(column) for row in rows]) for column in names}
    return None


def _plain(values: Iterable[Any]) -> list[Any]:
    """Values of Python's own types."""
    plain = values.tolist() if hasattr(values, "tolist") else list(values)
    return [value.item() if isinstance(value, np.generic) else value for value in plain]
