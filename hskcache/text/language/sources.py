"""Rows of a causal language model from whatever a user names: a text file, or the rows of a data file."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hskcache import console
from hskcache.errors import DataError, SpecError
from hskcache.text.compressed import format_of
from hskcache.text.language.rows import LanguageRows
from hskcache.text.language.texts import completions, documents_of_file, documents_of_rows
from hskcache.text.layout import Layout
from hskcache.text.memory import Source
from hskcache.text.regular import check_corpus

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_OF_ROWS = (".tsv", ".csv", ".jsonl", ".json", ".parquet")


def is_text(source: Source) -> bool:
    """True if a source is a file of text, and not one of rows, a data set or rows in memory."""
    if not isinstance(source, str | Path) or str(source).startswith("hub:") or Path(source).is_dir():
        return False
    return format_of(Path(source)) not in _OF_ROWS


def check_language(source: Source, layout: Layout, one_document: bool = False) -> None:
    """Refuse a source that cannot be read as rows of a language model, by its head.

    ``layout``: the columns of rows; of ``.jsonl`` the text is the column ``text`` where none is named. Raises SpecError
    if a task or labels are asked for, or no column of the text is; DataError if there is no such file or column.
    """
    _refuse_task(layout)
    if is_text(source):
        if layout.text is not None:
            raise SpecError(f"--text {layout.text}: {source} is plain text, without columns; leave it out")
        assert isinstance(source, str | Path)
        check_corpus(source)
        return
    if one_document:
        raise SpecError(f"--one-document reads a text file as one, and {source} has rows; leave it out")
    columns = _with_text(source, layout)
    check_columns(columns)
    columns.check(source)


def check_columns(layout: Layout) -> None:
    """Raise SpecError unless columns of rows are of texts alone."""
    _refuse_task(layout)
    if layout.text is None:
        raise SpecError("give the column of the texts with --text COLUMN, and what is to follow with --completion")


def _refuse_task(layout: Layout) -> None:
    for flag, value in (("--task", layout.task_name), ("--label", layout.label), ("--classes", layout.classes)):
        if value:
            raise SpecError(
                f"{flag}: rows of a causal language model are texts, and have no task; give --text COLUMN alone, or "
                "with --completion COLUMN what it is to say next"
            )


def read_language(
    source: Source,
    layout: Layout,
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    one_document: bool = False,
) -> LanguageRows:
    """Rows of a source, with a progress bar.

    ``layout``: as of :func:`check_language`; ``max_length``: tokens of a row at most; ``one_document``: reads a text
    file as one. Raises SpecError, DataError as that does, and as the functions of
    :mod:`hskcache.text.language.texts`.
    """
    check_language(source, layout, one_document)
    if is_text(source):
        return rows_of_file(Path(str(source)), tokenizer, max_length, one_document)
    return rows_of_data(source, _with_text(source, layout), tokenizer, max_length)


def rows_of_file(path: Path, tokenizer: "PreTrainedTokenizerBase", max_length: int, one_document: bool) -> LanguageRows:
    """:func:`~hskcache.text.language.texts.documents_of_file` with a progress bar."""
    with console.advancing("tokenize", path.stat().st_size, "bytes") as advance:
        return documents_of_file(path, tokenizer, max_length, one_document, advance)


def rows_of_data(source: Source, layout: Layout, tokenizer: "PreTrainedTokenizerBase", max_length: int) -> LanguageRows:
    """Rows of texts of a data file, or of prompts with their completions, with a progress bar.

    Raises DataError if the texts are lists of words, or as the functions of :mod:`hskcache.text.language.texts`.
    """
    examples = replace(layout, label="").read(source)
    if examples.words is not None:
        raise DataError(f"{source}: the texts are lists of words; give a column of texts")
    make = documents_of_rows if examples.pairs is None else completions
    with console.advancing("tokenize", len(examples)) as advance:
        return make(examples, tokenizer, max_length, advance)


def _with_text(source: Source, layout: Layout) -> Layout:
    is_lines = isinstance(source, str | Path) and format_of(Path(source)) == ".jsonl"
    return replace(layout, text="text") if layout.text is None and is_lines else layout
