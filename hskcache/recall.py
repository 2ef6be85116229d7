"""Memory of how the rows of a cache were read: into its manifest, and back for later commands."""

from dataclasses import asdict
from typing import Any

from hskcache.cut import Cut, Reach, tell_cut
from hskcache.store.manifest import DataInfo, Request
from hskcache.store.provenance import MOST_LISTED, BadRow, ColumnsRead, CutRows, LanguageMade, Provenance
from hskcache.text.examples import Reading
from hskcache.text.language.made import MadeRows
from hskcache.text.remembered import Remembered, definition_of, is_preset
from hskcache.text.rows import Examples
from hskcache.text.table import Columns
from hskcache.text.tasks import Task, load_task, parse_task, task_names


def provenance_of(examples: Examples, cut: Cut) -> Provenance:
    """Account of how rows were read, as a manifest tells it. ``cut``: what they lost when they were tokenized."""
    reading, task = examples.reading, examples.reading.task
    return _of_reading(reading, cut).model_copy(
        update={
            "task": definition_of(task) if task is not None and not is_preset(task) else None,
            "num_unlabelled": reading.num_unlabelled,
            "unlabelled": reading.policy.unlabelled,
            "copy_column": None if examples.copies is None else examples.copies.column,
        }
    )


def provenance_of_language(made: MadeRows, cut: Cut, reading: Reading | None) -> Provenance:
    """Account of how rows of a language model were made, as a manifest tells it.

    ``cut``: what they lost; ``reading``: how the rows of a data file were read, None of plain text.
    """
    read = Provenance(cut=CutRows(**asdict(cut))) if reading is None else _of_reading(reading, cut)
    language = LanguageMade(**made._asdict() | {"roles": list(made.roles)})
    return read.model_copy(update={"language": language})


def _of_reading(reading: Reading, cut: Cut) -> Provenance:
    """Account of the columns that were read, and of what was left out or cut."""
    return Provenance(
        columns=None if reading.columns is None else ColumnsRead(**asdict(reading.columns)),
        cut=CutRows(**asdict(cut)),
        num_bad=len(reading.bad),
        bad=[BadRow(number=number, reason=reason) for number, reason in reading.bad[:MOST_LISTED]],
        bad_rows=reading.policy.bad_rows,
    )


def of_cache(where: str, request: Request, source: str | None = None) -> Remembered:
    """Memory of how the rows of a cache were read, as far as its manifest tells.

    ``where``: what to call the cache, such as ``the cache rte.hsk``. ``source``: a data set; where it is one that was
    appended, as that was read. Raises SpecError if the manifest's definition of a task is none.
    """
    data = next((part for part in reversed(request.parts) if part.name == source), request.data)
    max_length, cut = request.spec.max_length, request.cut
    if data.problem == "text":
        return Remembered(where, max_length=max_length)
    provenance = data.provenance
    columns = None if provenance is None or provenance.columns is None else Columns(**provenance.columns.model_dump())
    definition = _definition(data, where)
    is_pairs = None
    if columns is not None:
        is_pairs = columns.text_pair is not None
    elif data.task in task_names():
        is_pairs = load_task(data.task).text_pair is not None
    return Remembered(where, data.task, definition, columns, is_pairs, max_length, cut)


def task_of(data: DataInfo, where: str = "the manifest") -> Task | None:
    """The task that rows were read for, or None. Raises SpecError for a file that is gone, or no task."""
    return _definition(data, where) or (None if data.task is None else load_task(data.task))


def told_rows(data: DataInfo) -> str:
    """Rows in words, as far as they have a task."""
    without = {"text": "a corpus without a task", "none": "texts without a task", "language": "next tokens of texts"}
    return without.get(data.problem, "rows of a task")


def column_flags(data: DataInfo) -> list[str]:
    """The options that read the columns of some rows; empty where that is not known, or only the cache can tell."""
    # A task that is known by its path is nothing to print for others.
    task = data.task if data.task in task_names() else None
    known: dict[str, Any] = {"task_name": task}
    provenance = data.provenance
    if provenance is not None and provenance.task is not None:
        return []
    if provenance is not None and provenance.columns is not None:
        known = Remembered("", task, None, Columns(**provenance.columns.model_dump())).flags(labelled=False, same=True)
    names = {"task_name": "--task", "text": "--text", "text_pair": "--text-pair", "label": "--label"}
    flags = [word for name, flag in names.items() if known.get(name) is not None for word in (flag, known[name])]
    header = known.get("header")
    return flags if header is None else [*flags, "--header" if header else "--no-header"]


def tell_cut_of(request: Request, where: str, reach: Reach) -> None:
    """Say in one line what the rows of a cache lost; nothing where none lost anything, or where that is not known."""
    tell_cut(request.cut, request.num_rows, where, reach)


def _definition(data: DataInfo, where: str) -> Task | None:
    provenance = data.provenance
    return (
        None if provenance is None or provenance.task is None else parse_task(provenance.task, f"the task of {where}")
    )
