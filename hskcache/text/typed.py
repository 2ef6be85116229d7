"""Sources whose values have types: ``.jsonl``, ``.json`` and ``.parquet`` files, data sets of the hub or a folder."""

import json
import re
from array import array
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any, NamedTuple

from hskcache.errors import ColumnError, DataError
from hskcache.hub import looked_up
from hskcache.text.compressed import format_of
from hskcache.text.table import (
    BadRows,
    Columns,
    Faults,
    RawTable,
    RowsRead,
    compact,
    named_column,
    read_text,
    text_lines,
)

_HUB = re.compile(r"hub:(?P<repo>[^:]+)(?::(?P<config>[^:\[]+))?:(?P<split>[^:\[]+(?:\[[^\]]*\][^:\[]*)*)")
_BATCH_ROWS = 1000
_INSTALL = "install it with: pip install 'hskcache[hub]'"


def read_jsonl(path: Path, columns: Columns, policy: BadRows) -> RawTable:
    """The wanted keys of a file with one JSON object a line; blank lines are passed over.

    Raises DataError if the file cannot be read, a column is a number, or a line is not an object or lacks a key and may
    not be left out.
    """
    _require_names(path, columns)
    faults = Faults(str(path), policy)
    rows, numbers = RowsRead(columns), array("q")
    for number, line in text_lines(path, policy):
        if line.strip():
            # A line that cannot be read is a row all the same, so that all are counted in one place.
            rows.append(_object_values(line, columns, faults, number))
            numbers.append(number)
    return RawTable(faults, columns, *rows.columns, compact(numbers), class_columns(columns, columns.wanted))


def read_json(path: Path, columns: Columns, policy: BadRows) -> RawTable:
    """The wanted keys of a file that is one JSON array of objects, counted from 1.

    Raises DataError if the file cannot be read or holds something else, or as :func:`read_jsonl`.
    """
    _require_names(path, columns)
    try:
        values = json.loads(read_text(path, policy))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({error}); a file of one object a line is called .jsonl") from None
    if not isinstance(values, list) or not values:
        raise DataError(f"{path} holds no array of objects; write [{{...}}, ...], or one object a line as .jsonl")
    faults, rows = Faults(str(path), policy, "row"), RowsRead(columns)
    for number, value in enumerate(values, start=1):
        rows.append(_values(value, columns, faults, number))
    names = class_columns(columns, columns.wanted)
    return RawTable(faults, columns, *rows.columns, range(1, len(values) + 1), names)


def _require_names(path: Path, columns: Columns) -> None:
    for column in columns.wanted:
        if isinstance(column, int):
            raise ColumnError(
                f"{path}: column {column} is a number; the columns of a {format_of(path)} file have names"
            )


def _object_values(line: str, columns: Columns, faults: Faults, number: int) -> list[object]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        faults.add(number, f"not JSON ({error})", "write one object a line")
        return [None for _ in columns.wanted]
    return _values(value, columns, faults, number)


def _values(value: Any, columns: Columns, faults: Faults, number: int) -> list[object]:
    none: list[object] = [None for _ in columns.wanted]
    if not isinstance(value, dict):
        faults.add(number, f"a JSON {type(value).__name__} where an object was expected", "write one object a line")
        return none
    for column in columns.wanted:
        if column not in value:
            problem, advice = f"no key {column!r}; the keys are {', '.join(value)}", "give every line the same keys"
            faults.add(number, problem, advice, ColumnError)
            return none
    return [value[column] for column in columns.wanted]


def read_parquet(path: Path, columns: Columns, policy: BadRows) -> RawTable:
    """The wanted columns of a Parquet file, with the class names that ``datasets`` leaves in its metadata.

    Raises DataError if pyarrow is missing, the file is no Parquet file or has no rows, or a column is missing.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise DataError(f"{path}: reading Parquet needs pyarrow; {_INSTALL}") from None
    if not path.is_file():
        raise DataError(f"{path}: No such file; give the path of a data file")
    try:
        schema = pq.read_schema(path)
        positions = [named_column(column, schema.names, str(path)) for column in columns.wanted]
        names = [schema.names[position] for position in positions]
        file, rows = pq.ParquetFile(path), RowsRead(columns)
        for batch in file.iter_batches(columns=list(dict.fromkeys(names))):
            rows.extend(*(batch.column(name).to_pylist() for name in names))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a whole Parquet file ({shorten(str(error), 200)}); write it again") from None
    if not len(rows):
        raise DataError(f"{path} has no rows; give a file with at least one row")
    return RawTable(
        Faults(str(path), policy, "row"),
        columns,
        *rows.columns,
        numbers=range(1, len(rows) + 1),
        class_names=class_columns(columns, names)
        or (_stored_class_names(schema.metadata, names[-1]) if columns.label is not None else None),
    )


def class_columns(columns: Columns, names: Sequence[str | int]) -> tuple[str, ...] | None:
    """The classes of labels of which each has a column; None where it is one column. ``names``: of those wanted."""
    return tuple(map(str, names[len(columns.text_columns) :])) if len(columns.label_columns) > 1 else None


def _stored_class_names(metadata: dict[bytes, bytes] | None, label: str) -> tuple[str, ...] | None:
    try:
        feature = json.loads((metadata or {})[b"huggingface"])["info"]["features"][label]
        # Of rows of words it is a list of classes.
        feature = feature.get("feature", feature)
        return tuple(str(name) for name in feature["names"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return None  # not written by ``datasets``, or the label is not of its ClassLabel type


class HubSource(NamedTuple):
    """The parts of ``hub:REPO[:CONFIG]:SPLIT``; ``repo`` may be a local folder, ``split`` a slice (``train[:100]``)."""

    repo: str
    config: str | None
    split: str


def parse_hub(source: str) -> HubSource:
    """Take ``hub:REPO[:CONFIG]:SPLIT`` apart. Raises DataError if it is not of that form."""
    match = _HUB.fullmatch(source)
    if not match:
        raise DataError(f"{source!r} is not of the form hub:REPO[:CONFIG]:SPLIT, such as hub:nyu-mll/glue:sst2:train")
    return HubSource(match["repo"], match["config"], match["split"])


def read_hub(source: str, columns: Columns, policy: BadRows) -> RawTable:
    """The wanted columns of a data set that ``datasets.load_dataset`` can load, or of a part of a saved one.

    Raises DataError if ``datasets`` is missing, the data set cannot be loaded or has no rows, or a column is missing.
    """
    hub = parse_hub(source)
    datasets = _datasets(source)
    part = Path(hub.repo) / hub.split
    with looked_up(hub.repo):
        try:
            if hub.config is None and is_saved_set(part):
                data: Any = datasets.load_from_disk(str(part))
            else:
                data = datasets.load_dataset(hub.repo, hub.config, split=hub.split)
        except (OSError, ValueError, TypeError, datasets.exceptions.DatasetsError) as error:
            raise DataError(f"{source} cannot be loaded: {shorten(str(error), 200)}") from None
    return of_data_set(data, Faults(source, policy, "row"), columns, hub.split)


def is_saved_set(path: Path) -> bool:
    """True if ``save_to_disk`` of ``datasets`` wrote this folder, of one part or of several."""
    return (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()


def read_saved_set(path: Path, columns: Columns, policy: BadRows) -> RawTable:
    """The wanted columns of a data set that ``save_to_disk`` wrote.

    Raises DataError if ``datasets`` is missing, the folder holds several parts or is not whole, or as :func:`read_hub`.
    """
    datasets = _datasets(str(path))
    if not (path / "state.json").is_file():
        parts = sorted(part.name for part in path.iterdir() if is_saved_set(part))
        like = f"{path / parts[0]}" if parts else "a folder that save_to_disk wrote"
        raise DataError(f"{path} holds the parts {', '.join(parts)} of a data set; give one, such as {like}")
    try:
        data = datasets.load_from_disk(str(path))
    except (OSError, ValueError, TypeError, KeyError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"{path} is not a whole data set: {shorten(str(error), 200)}; save it again") from None
    return of_data_set(data, Faults(str(path), policy, "row"), columns, None)


def _datasets(source: str) -> Any:
    try:
        import datasets
    except ImportError:
        raise DataError(f"{source}: reading a data set needs the datasets package; {_INSTALL}") from None
    return datasets


def of_data_set(data: Any, faults: Faults, columns: Columns, split: str | None) -> RawTable:
    """The wanted columns of a ``datasets.Dataset``. Raises DataError if it has no rows, or a column is missing."""
    if not len(data):
        raise DataError(f"{faults.source} has no rows; give a split with at least one row")
    names = list(data.column_names)
    wanted = [names[named_column(column, names, faults.source)] for column in columns.wanted]
    feature = data.features[wanted[-1]] if columns.label is not None else None
    feature = getattr(feature, "feature", feature)
    is_class = type(feature).__name__ == "ClassLabel"
    rows = RowsRead(columns)
    for batch in data.select_columns(list(dict.fromkeys(wanted))).iter(_BATCH_ROWS):
        rows.extend(*(batch[name] for name in wanted))
    return RawTable(
        faults,
        columns,
        *rows.columns,
        numbers=range(1, len(data) + 1),
        class_names=class_columns(columns, wanted)
        or (tuple(feature.names) if is_class and feature is not None else None),
        split=split,
    )
