"""The head of a data file: what is wrong with it at a glance, before anything that takes long."""

import codecs
import json
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

from hskcache.errors import DataError
from hskcache.text.compressed import format_of, opened
from hskcache.text.delimited import DIALECTS, DelimitedRow, dialect_of, read_records
from hskcache.text.memory import InMemory, Source
from hskcache.text.table import Columns, Faults, named_column, numbered_column
from hskcache.text.typed import is_saved_set, parse_hub

_HEAD_BYTES = 1 << 20


def check_head(source: Source, columns: Columns) -> None:
    """Refuse a source that is not there, needs a package that is not there, or has no such columns.

    It refuses nothing that can be read: where the head does not tell, reading will. Raises DataError as reading all of
    it would.
    """
    if isinstance(source, InMemory):
        for column in columns.wanted:
            named_column(column, source.column_names, source.name)
        return
    source, path = str(source), Path(source)
    if source.startswith("hub:") or is_saved_set(path):
        if source.startswith("hub:"):
            parse_hub(source)
        _require("datasets", f"{source}: reading a data set")
        return
    if path.is_dir():
        return
    try:
        with opened(path) as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; give the path of a data file") from None
    suffix = format_of(path)
    if suffix == ".parquet":
        _require("pyarrow", f"{path}: reading Parquet")
        return
    try:
        # The last character of the head may be cut.
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head)
    except UnicodeDecodeError:
        return  # of which reading names the line
    if not text.strip() and len(head) < _HEAD_BYTES:
        raise DataError(f"{path} is empty; give a file with at least one row")
    if suffix in DIALECTS:
        _check_delimited(path, text, columns)
    elif suffix == ".jsonl":
        _check_jsonl(path, text, columns)


def _require(package: str, what: str) -> None:
    if find_spec(package) is None:
        raise DataError(f"{what} needs the package {package}; install it with: pip install 'hskcache[hub]'")


def _check_delimited(path: Path, text: str, columns: Columns) -> None:
    if (first := _first(path, text, columns)) is None or columns.header is False:
        return
    where, is_named = f"{path} line {first.line}", any(isinstance(column, str) for column in columns.wanted)
    for column in columns.wanted:
        if is_named or columns.header:
            named_column(column, [name.strip() for name in first.fields], where)
        elif isinstance(column, int):
            numbered_column(column, len(first.fields), where)


def _first(path: Path, text: str, columns: Columns) -> DelimitedRow | None:
    """The first record; None where the head does not show it whole."""
    lines = text.split("\n")
    for end in (1, 2, 8, len(lines) - 1):
        # A quoted name may go over lines, and the last line of the head may be cut.
        part = "\n".join(islice(lines, end)) + "\n"
        try:
            records = read_records(part, dialect_of(path, part, columns), Faults(str(path), "fail"))
        except DataError:
            continue
        if records:
            return records[0]
    return None


def _check_jsonl(path: Path, text: str, columns: Columns) -> None:
    line = next((line for line in text.split("\n") if line.strip()), "")
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return
    names = [column for column in columns.wanted if isinstance(column, str)]
    if isinstance(value, dict) and not any(name in value for name in names):
        # Single lines may lack a key and be left out.
        named_column(names[0] if names else columns.wanted[0], list(value), f"{path} line 1")
