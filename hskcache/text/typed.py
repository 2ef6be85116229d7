"""Sources whose values have types: ``.jsonl`` and ``.parquet`` files, and data sets of the hub or a local folder."""

import json
import re
from pathlib import Path
from textwrap import shorten
from typing import Any, NamedTuple

from hskcache.errors import DataError
from hskcache.text.table import Columns, Table, named_column, read_text

_HUB = re.compile(r"hub:(?P<repo>[^:]+)(?::(?P<config>[^:\[]+))?:(?P<split>[^:\[]+(?:\[[^\]]*\][^:\[]*)*)")
_INSTALL = "install it with: pip install 'hskcache[hub]'"


def read_jsonl(path: Path, columns: Columns) -> Table:
    """The wanted keys of a file with one JSON object a line; blank lines are passed over.

    Raises:
        DataError: the file cannot be read, a line is not an object or lacks a key, or a column is a number.
    """
    for column in columns.wanted:
        if isinstance(column, int):
            raise DataError(f"{path}: column {column} is a number; the columns of a .jsonl file have names")
    rows: list[list[object]] = []
    numbers: list[int] = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            rows.append(_object_values(line, columns, f"{path} line {number}"))
            numbers.append(number)
    return Table(str(path), *columns.assign(zip(*rows, strict=True)), numbers=numbers)


def _object_values(line: str, columns: Columns, where: str) -> list[object]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error}); write one object a line") from None
    if not isinstance(value, dict):
        raise DataError(f"{where}: a JSON {type(value).__name__} where an object was expected; write one object a line")
    for column in columns.wanted:
        if column not in value:
            raise DataError(f"{where}: no key {column!r}; the keys are {', '.join(value)}")
    return [value[column] for column in columns.wanted]


def read_parquet(path: Path, columns: Columns) -> Table:
    """The wanted columns of a Parquet file, with the class names that ``datasets`` leaves in its metadata.

    Raises:
        DataError: pyarrow is missing, the file is no Parquet file or has no rows, or a column is missing.
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
        table = pq.read_table(path, columns=list(dict.fromkeys(names)))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a whole Parquet file ({shorten(str(error), 200)}); write it again") from None
    if not table.num_rows:
        raise DataError(f"{path} has no rows; give a file with at least one row")
    return Table(
        str(path),
        *columns.assign(table.column(name).to_pylist() for name in names),
        numbers=range(1, table.num_rows + 1),
        unit="row",
        class_names=_stored_class_names(schema.metadata, names[-1]) if columns.label is not None else None,
    )


def _stored_class_names(metadata: dict[bytes, bytes] | None, label: str) -> tuple[str, ...] | None:
    try:
        feature = json.loads((metadata or {})[b"huggingface"])["info"]["features"][label]
        return tuple(str(name) for name in feature["names"])
    except (KeyError, TypeError, ValueError):
        return None  # not written by ``datasets``, or the label is not of its ClassLabel type


class HubSource(NamedTuple):
    """The parts of ``hub:REPO[:CONFIG]:SPLIT``; ``repo`` may be a local folder, ``split`` a slice (``train[:100]``)."""

    repo: str
    config: str | None
    split: str


def parse_hub(source: str) -> HubSource:
    """Take ``hub:REPO[:CONFIG]:SPLIT`` apart.

    Raises:
        DataError: not of that form.
    """
    match = _HUB.fullmatch(source)
    if not match:
        raise DataError(f"{source!r} is not of the form hub:REPO[:CONFIG]:SPLIT, such as hub:nyu-mll/glue:sst2:train")
    return HubSource(match["repo"], match["config"], match["split"])


def read_hub(source: str, columns: Columns) -> Table:
    """The wanted columns of a data set that ``datasets.load_dataset`` can load.

    Raises:
        DataError: ``datasets`` is missing, the data set cannot be loaded or has no rows, or a column is missing.
    """
    hub = parse_hub(source)
    try:
        import datasets
    except ImportError:
        raise DataError(f"{source}: reading a data set needs the datasets package; {_INSTALL}") from None
    try:
        data: Any = datasets.load_dataset(hub.repo, hub.config, split=hub.split)
    except (OSError, ValueError, TypeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"{source} cannot be loaded: {shorten(str(error), 200)}") from None
    if not len(data):
        raise DataError(f"{source} has no rows; give a split with at least one row")
    names = list(data.column_names)
    found = [names[named_column(column, names, source)] for column in columns.wanted]
    feature = data.features[found[-1]] if columns.label is not None else None
    return Table(
        source,
        *columns.assign(list(data[name]) for name in found),
        numbers=range(1, len(data) + 1),
        unit="row",
        class_names=tuple(feature.names) if isinstance(feature, datasets.ClassLabel) else None,
        split=hub.split,
    )
