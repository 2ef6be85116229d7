"""Read labelled rows from any source: checked texts, numeric labels, and what was left out or is worth telling."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np

from hskcache.classes import has_gold
from hskcache.counted import counted
from hskcache.errors import DataError, SpecError
from hskcache.text.class_values import has_class_values, resolve_class_values
from hskcache.text.compressed import format_of
from hskcache.text.delimited import DIALECTS, read_delimited
from hskcache.text.examples import Examples, Reading, fingerprint
from hskcache.text.labels import LabelSet, Resolved, resolve_labels
from hskcache.text.memory import InMemory, Source
from hskcache.text.strings import column
from hskcache.text.table import Columns, Faults, RawTable, RowPolicy, Values
from hskcache.text.tagged import WORD_FORMATS, check_words, has_words, joined, read_word_lines, resolve_tags
from hskcache.text.tasks import Task
from hskcache.text.typed import is_saved_set, read_hub, read_json, read_jsonl, read_parquet, read_saved_set
from hskcache.timeline import span

_TYPED = (".jsonl", ".json", ".parquet")
FORMATS = (*DIALECTS, *_TYPED, *WORD_FORMATS)

__all__ = ["FORMATS", "Columns", "Examples", "Overrides", "Reading", "examples_for", "fingerprint", "read_examples"]


@dataclass(frozen=True)
class Overrides:
    """Columns a user names in place of a task's; None keeps the task's, an empty string reads none.

    A string of digits is a column's number, so that what stands on a command line can be given as it is.
    """

    text: str | int | None = None
    text_pair: str | int | None = None
    label: str | int | None = None
    header: bool | None = None


def read_examples(
    source: Source, columns: Columns, labels: LabelSet | None = None, policy: RowPolicy | None = None
) -> Examples:
    """Read ``source``, whose suffix picks the format.

    Raises DataError (``FILE line N: ...``) if the source or a row cannot be read as asked.

    Args:
        source: a ``.tsv`` (unquoted, as in GLUE), ``.csv``, ``.jsonl``, ``.json`` or ``.parquet`` file, the first four
            also with ``.gz``, a folder that a data set of ``datasets`` was saved to, ``hub:REPO[:CONFIG]:SPLIT``, where
            REPO may be a local folder, or rows in memory.
        labels: what the labels may be; None infers it from the column.
        policy: what becomes of rows that cannot be used or have no gold label; None fails.
    """
    labels, policy = labels or LabelSet(), policy or RowPolicy()
    table = read_table(source, columns, labels, policy)
    is_tagging = labels.problem == "tagging" or (labels.problem is None and has_words(table.texts))
    if is_tagging:
        check_words(table)
        if table.pairs is not None:
            raise DataError(f"{table.source}: rows of words have no second text; leave its column out")
    else:
        _check_texts(table, table.texts, "text")
    if table.pairs is not None:
        _check_texts(table, table.pairs, "second text")
    table = _without_faults(table)
    if table.labels is None:
        problem = "tagging" if is_tagging else labels.problem or "classification"
        resolved = Resolved(None, labels.names or (), problem, ())
        return _examples(table, resolved, Reading(policy=policy))
    if is_tagging:
        resolved = resolve_tags(table, labels, policy)
    elif has_class_values(table, labels):
        resolved = resolve_class_values(table, labels)
    else:
        resolved = resolve_labels(table, labels, policy)
    usable, values = _without_faults(table), resolved.labels
    if values is not None and len(usable.numbers) < len(table.numbers):
        values = values[_good(table)]
    return _with_policy(usable, resolved._replace(labels=values), policy)


def _with_policy(table: RawTable, resolved: Resolved, policy: RowPolicy) -> Examples:
    """The rows with what becomes of those that have no gold label."""
    total, values = len(table.numbers), resolved.labels
    is_gold = np.zeros(total, bool) if values is None else has_gold(values)
    missing = total - int(is_gold.sum())
    assert table.columns.label is not None
    reading = Reading(num_unlabelled=missing, policy=policy)
    if not missing:
        return _examples(table, resolved, reading)
    first = f"{table.faults.unit} {table.numbers[int(np.argmin(is_gold))]}"
    many, be = (f"{missing:,} of {total:,} rows have", "are") if missing > 1 else (f"1 of {total:,} rows has", "is")
    if missing == total and policy.unlabelled not in {"fail", "skip"}:
        note = f"{table.source}: no row has a gold label in the column {table.columns.label}; read without labels"
        return _examples(table, resolved._replace(labels=None), replace(reading, notes=(note,)))
    if missing == total or policy.unlabelled in {"fail", None}:
        settled = (
            "give labelled rows"
            if missing == total or policy.unlabelled
            else ("give --unlabelled skip to leave such rows out, or keep to distil them without a label")
        )
        raise DataError(f"{table.source}: {many} no gold label, the first in {first}; {settled}")
    if policy.unlabelled == "keep":
        note = f"{table.source}: {many} no gold label and {be} kept without one"
        return _examples(table, resolved, replace(reading, notes=(note,)))
    assert values is not None
    note = f"{table.source}: {many} no gold label and {be} left out"
    labelled = resolved._replace(labels=values[is_gold])
    return _examples(_taken(table, np.flatnonzero(is_gold).tolist()), labelled, replace(reading, notes=(note,)))


def _examples(table: RawTable, found: Resolved, reading: Reading) -> Examples:
    """Rows all of which stay, with what is to be told of them."""
    texts, pairs = cast("Sequence[str]", table.texts), cast("Sequence[str] | None", table.pairs)
    words = None
    if found.problem == "tagging":
        words = cast("Sequence[Sequence[str]]", table.texts)
        texts = joined(words)
    bad = tuple(sorted(table.faults.found.items()))
    remarks = [*found.remarks, *table.remarks]
    notes = [f"{table.source}: {counted(len(texts), 'row')}, {', '.join(remarks)}"] if remarks else []
    if bad:
        notes.append(_left_out(table, bad))
    reading = replace(
        reading,
        columns=table.columns,
        numbers=table.numbers,
        unit=table.faults.unit,
        bad=bad,
        notes=(*notes, *reading.notes),
    )
    digest = fingerprint(texts, pairs, found.labels, found.names, words)
    source = (table.source, table.split)
    return Examples(texts, pairs, found.labels, found.names, found.problem, *source, digest, reading, words=words)


def _left_out(table: RawTable, bad: Sequence[tuple[int, str]]) -> str:
    rows = "1 bad row is" if len(bad) == 1 else f"{len(bad):,} bad rows are"
    number, problem = bad[0]
    return f"{table.source}: {rows} left out, the first in {table.faults.unit} {number}: {problem}"


def _without_faults(table: RawTable) -> RawTable:
    """The rows that can be used. Raises DataError if there is none."""
    good = _good(table)
    if not good:
        number, problem = min(table.faults.found.items())
        raise DataError(f"{table.source}: no row can be used; {table.faults.unit} {number}: {problem}")
    return table if len(good) == len(table.numbers) else _taken(table, good)


def _good(table: RawTable) -> Sequence[int]:
    """Indices of the rows that can be used."""
    if not table.faults.found:
        return range(len(table.numbers))
    return [index for index, number in enumerate(table.numbers) if number not in table.faults.found]


def _taken(table: RawTable, indices: Sequence[int]) -> RawTable:
    texts, pairs, labels = (
        None if values is None else column(values[index] for index in indices)
        for values in (table.texts, table.pairs, table.labels)
    )
    assert texts is not None
    numbers = [table.numbers[index] for index in indices]
    return replace(table, texts=texts, pairs=pairs, labels=labels, numbers=numbers)


@span("read rows")
def examples_for(
    source: Source,
    task: Task | None = None,
    overrides: Overrides | None = None,
    labels: Sequence[str] | LabelSet | None = None,
    policy: RowPolicy | None = None,
) -> Examples:
    """Read ``source`` as ``task`` lays it out, apart from what the user names.

    ``task``: a preset; None needs ``overrides.text``. ``overrides``: columns in place of the task's. ``labels``:
    classes in place of the task's, in the order of their indices, or what is known of the labels. Raises SpecError if
    there is neither a task nor a text column, or label names cannot be; DataError if the source or a row cannot be read
    as asked.
    """
    columns = columns_of(source, task, overrides or Overrides())
    wanted = labels if isinstance(labels, LabelSet) else LabelSet(names=tuple(labels) if labels else None)
    if task is None:
        return read_examples(source, columns, wanted, policy)
    names = wanted.names
    if names is None and task.problem != "regression":
        names = tuple(task.labels)
    known = LabelSet(task.problem, names, separator=task.separator)
    examples = read_examples(source, columns, known, policy)
    return replace(examples, reading=replace(examples.reading, task=task))


def preset_of(source: Source, task: Task) -> Columns:
    """The columns of a task as they are called in a source: as on the hub, or as in the task's files."""
    if isinstance(source, InMemory):
        is_hub = set(source.column_names).issuperset(map(str, task.hub_columns.wanted))
        return task.hub_columns if is_hub else task.columns
    # Where columns have names, numbers are none.
    is_named = isinstance(task.text, int) and format_of(Path(source)) in {".jsonl", ".json"}
    return task.hub_columns if is_named or has_hub_layout(source) else task.columns


def has_hub_layout(source: str | Path) -> bool:
    """True if the columns of a task are called in a source as they are on the hub."""
    return str(source).startswith("hub:") or Path(source).suffix.lower() == ".parquet" or Path(source).is_dir()


def columns_of(source: Source, task: Task | None, given: Overrides) -> Columns:
    """A task's columns, apart from what the user names. Raises SpecError if there is neither a task nor a text."""
    layout = Overrides() if task is None else preset_of(source, task)
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


def read_table(source: Source, columns: Columns, labels: LabelSet, policy: RowPolicy) -> RawTable:
    """Some columns of a source as they are written, unchecked; errors as in :func:`read_examples`."""
    if isinstance(source, InMemory):
        return source.read(columns, policy.bad_rows)
    if str(source).startswith("hub:"):
        return read_hub(str(source), columns, policy.bad_rows)
    path = Path(source)
    suffix = format_of(path)
    if is_saved_set(path):
        return read_saved_set(path, columns, policy.bad_rows)
    if path.is_dir():
        raise DataError(f"{path} is a folder; give a file in it, or hub:{path}:SPLIT for a data set's folder")
    if suffix in WORD_FORMATS or (labels.problem == "tagging" and suffix not in _TYPED):
        return read_word_lines(path, columns, Faults(str(path), policy.bad_rows))
    if suffix in DIALECTS:
        return read_delimited(path, columns, labels, Faults(str(path), policy.bad_rows))
    if suffix == ".jsonl":
        return read_jsonl(path, columns, policy.bad_rows)
    if suffix == ".json":
        return read_json(path, columns, policy.bad_rows)
    if suffix == ".parquet":
        return read_parquet(path, columns, policy.bad_rows)
    raise DataError(f"{path}: unknown format {suffix!r}; give one of {', '.join(FORMATS)}, or hub:REPO[:CONFIG]:SPLIT")


def _check_texts(table: RawTable, values: Values, what: str) -> None:
    """Find the rows whose text is none, or none that a tokenizer can read."""
    for index, value in enumerate(values):
        if isinstance(value, list | tuple | np.ndarray):
            hint = "give a column of texts; lists of words are for a model and a task that answer for each word"
            table.fault(index, f"the {what} is a list, not a string", hint)
        elif not isinstance(value, str):
            kind = "missing" if value is None else f"a {type(value).__name__}, not a string"
            table.fault(index, f"the {what} is {kind}", "correct or remove the row")
        elif not value.strip():
            table.fault(index, f"the {what} is empty", "fill it in or remove the row")
        elif not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            # JSON can spell half of a pair; a byte that is not UTF-8 is one where bad rows are left out.
            is_byte = any("\udc80" <= character <= "\udcff" for character in value)
            held = "a byte that is not UTF-8" if is_byte else "half of a surrogate pair"
            table.fault(index, f"the {what} holds {held}", "write the whole character")
