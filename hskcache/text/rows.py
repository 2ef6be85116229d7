"""Read labelled rows from any source: checked texts, numeric labels and a fingerprint of the content."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hskcache.errors import DataError, SpecError
from hskcache.text.delimited import RECORDS, read_delimited
from hskcache.text.labels import Labels, LabelSet, Problem, resolve_labels
from hskcache.text.table import Columns, Table, Values
from hskcache.text.tasks import Task
from hskcache.text.typed import read_hub, read_jsonl, read_parquet

FORMATS = (*RECORDS, ".jsonl", ".parquet")

__all__ = ["FORMATS", "Columns", "Examples", "Overrides", "examples_for", "fingerprint", "read_examples"]


@dataclass(frozen=True, eq=False)
class Examples:
    """N rows of text with what is known about them.

    Attributes:
        texts: [N] sentences, or the first of each pair, as written.
        pairs: [N] the second of each pair, or None.
        labels: int64 [N] class indices, float32 [N] scores, or None when no label was read.
        label_names: the classes in the order of their indices; empty for a regression or unlabelled rows of no task.
        problem: ``classification`` or ``regression``.
        source: the file or data set, as the user named it.
        split: the part of a data set; None for a file.
        fingerprint: SHA-256 of the content, see fingerprint().
    """

    texts: list[str]
    pairs: list[str] | None
    labels: Labels | None
    label_names: tuple[str, ...]
    problem: Problem
    source: str
    split: str | None
    fingerprint: str

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class Overrides:
    """Columns a user names in place of a task's; None keeps the task's, an empty string reads none.

    A string of digits is a column's number, so that what stands on a command line can be given as it is.
    """

    text: str | int | None = None
    text_pair: str | int | None = None
    label: str | int | None = None
    header: bool | None = None


def read_examples(source: str | Path, columns: Columns, labels: LabelSet | None = None) -> Examples:
    """Read ``source``, whose suffix picks the format.

    Args:
        source: a ``.tsv`` (unquoted, as in GLUE), ``.csv``, ``.jsonl`` or ``.parquet`` file, or
            ``hub:REPO[:CONFIG]:SPLIT``, where REPO may be a local folder.
        columns: what to read.
        labels: what the labels may be; None infers it from the column.

    Raises:
        DataError: ``FILE line N: ...``: the source or a row cannot be read as asked.
    """
    labels = labels or LabelSet()
    table = _read_table(source, columns, labels)
    texts = _checked(table, table.texts, "text")
    pairs = None if table.pairs is None else _checked(table, table.pairs, "second text")
    if table.labels is None:
        values, names, problem = None, labels.names or (), labels.problem or "classification"
    else:
        values, names, problem = resolve_labels(table, labels)
    return Examples(
        texts, pairs, values, names, problem, table.source, table.split, fingerprint(texts, pairs, values, names)
    )


def examples_for(
    source: str | Path,
    task: Task | None = None,
    overrides: Overrides | None = None,
    label_names: Sequence[str] | None = None,
) -> Examples:
    """Read ``source`` as ``task`` lays it out, apart from what the user names.

    Args:
        source: as for read_examples.
        task: a preset; None needs ``overrides.text``.
        overrides: columns in place of the task's.
        label_names: classes in place of the task's, in the order of their indices.

    Raises:
        SpecError: neither a task nor a text column, or label names that cannot be.
        DataError: the source or a row cannot be read as asked.
    """
    layout = Overrides() if task is None else task.hub_columns if _has_hub_layout(source) else task.columns
    columns = _merge(source, layout, overrides or Overrides())
    names = tuple(label_names) if label_names else None
    if task is None:
        return read_examples(source, columns, LabelSet(None, names))
    if names is None and task.problem == "classification":
        names = tuple(task.labels)
    return read_examples(source, columns, LabelSet(task.problem, names))


def _has_hub_layout(source: str | Path) -> bool:
    return str(source).startswith("hub:") or Path(source).suffix.lower() == ".parquet"


def _merge(source: str | Path, layout: Columns | Overrides, given: Overrides) -> Columns:
    text, text_pair, label = (
        _column(getattr(layout, name) if getattr(given, name) is None else getattr(given, name))
        for name in ("text", "text_pair", "label")
    )
    if text is None:
        raise SpecError(f"{source}: no task and no text column; give one of them, for example the column 'sentence'")
    # Other columns are another layout, of whose header the task's says nothing.
    same = (given.text, given.text_pair, given.label) == (None, None, None)
    return Columns(text, text_pair, label, layout.header if same and given.header is None else given.header)


def _column(column: str | int | None) -> str | int | None:
    if column is None or column == "":
        return None
    return int(column) if isinstance(column, str) and column.isascii() and column.isdigit() else column


def _read_table(source: str | Path, columns: Columns, labels: LabelSet) -> Table:
    if str(source).startswith("hub:"):
        return read_hub(str(source), columns)
    path = Path(source)
    suffix = path.suffix.lower()
    if path.is_dir():
        raise DataError(f"{path} is a folder; give a file in it, or hub:{path}:SPLIT for a data set's folder")
    if suffix in RECORDS:
        return read_delimited(path, columns, labels)
    if suffix == ".jsonl":
        return read_jsonl(path, columns)
    if suffix == ".parquet":
        return read_parquet(path, columns)
    raise DataError(f"{path}: unknown format {suffix!r}; give one of {', '.join(FORMATS)}, or hub:REPO[:CONFIG]:SPLIT")


def _checked(table: Table, values: Values, what: str) -> list[str]:
    texts: list[str] = []
    for index, value in enumerate(values):
        if not isinstance(value, str):
            kind = "missing" if value is None else f"a {type(value).__name__}, not a string"
            raise table.error(index, f"the {what} is {kind}; correct or remove the row")
        if not value.strip():
            raise table.error(index, f"the {what} is empty; fill it in or remove the row")
        texts.append(value)
        # JSON can spell half of a surrogate pair, which no tokenizer can read.
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise table.error(index, f"the {what} holds half of a surrogate pair; write the whole character")
    return texts


def fingerprint(texts: list[str], pairs: list[str] | None, labels: Labels | None, names: tuple[str, ...]) -> str:
    """SHA-256 of rows' content, the same for the same rows in any format.

    Covers texts, pairs, labels and label names, each string preceded by its length in bytes so that no two contents
    run together; file names, splits and column names do not enter.
    """
    digest = hashlib.sha256(b"hskcache rows 1\n")
    for kind, strings in (("texts", texts), ("pairs", pairs), ("names", names)):
        if strings is not None:
            digest.update(f"{kind} {len(strings)}\n".encode())
            for string in strings:
                data = string.encode()
                digest.update(len(data).to_bytes(8, "little") + data)
    if labels is not None:
        stored = labels.astype(labels.dtype.newbyteorder("<"))
        digest.update(f"labels {labels.dtype.name}\n".encode() + np.ascontiguousarray(stored).tobytes())
    return digest.hexdigest()
