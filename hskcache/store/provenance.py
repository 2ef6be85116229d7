"""Account of how the rows of a cache were read; told to readers and to later commands, never digested."""

from typing import ClassVar, Literal

from pydantic import Field as Key
from pydantic import JsonValue

from hskcache.strict import Grown, Strict

MOST_LISTED = 1000
"""Bad rows that are listed by their lines at most; all are counted."""


class ColumnsRead(Strict):
    """The columns that were read, by name or by number counted from 0; ``header`` is whether the first line named them.

    ``header`` is None for formats whose columns always have names.
    """

    text: str | int
    text_pair: str | int | None = None
    label: str | int | None = None
    header: bool | None = None


class CutRows(Strict):
    """Rows that were longer than they may be.

    Attributes:
        num_rows: how many were cut.
        num_tokens: tokens that they lost.
        num_whole_tokens: tokens of the same rows before they were cut.
        longest: tokens of the longest row, uncut: the ``--max-length`` that keeps all.
    """

    num_rows: int = Key(default=0, ge=0)
    num_tokens: int = Key(default=0, ge=0)
    num_whole_tokens: int = Key(default=0, ge=0)
    longest: int = Key(default=0, ge=0)


class BadRow(Strict):
    """A row of the data that was left out: its line or row in the file, counted from 1, and why."""

    number: int = Key(ge=1)
    reason: str


class LanguageMade(Strict):
    """Account of how rows of a causal language model were made.

    Attributes:
        form: what each document was: a text, a prompt with its completion, or a conversation.
        num_documents: that rows were made of; None of a part of the rows.
        num_targets: tokens of all rows that are to be predicted; None of a part of the rows.
        one_document: whether a whole file was read as one.
        roles: whose turns of a conversation are predicted.
        by: how these were found: by the template's own tag, or by what the first turns alone are rendered as.
    """

    form: Literal["documents", "completions", "conversations"]
    num_documents: int | None = Key(default=None, ge=0)
    num_targets: int | None = Key(default=None, ge=0)
    one_document: bool = False
    roles: list[str] = Key(default=[])
    by: Literal["tag", "prefixes"] | None = None

    @property
    def told(self) -> str:
        """Description for a person."""
        count = "" if self.num_documents is None else f"{self.num_documents:,} "
        if self.form == "documents":
            one = "parts of 1 document" if self.num_documents == 1 else f"parts of {count}documents"
            return "all of a file as one document" if self.one_document else one
        if self.form == "completions":
            return f"{count}prompts with their completions, which are predicted"
        how = "as the chat template marks it" if self.by == "tag" else "found by rendering the first turns alone"
        return f"{count}conversations, of which is predicted what {' and '.join(self.roles)} says, {how}"


class Provenance(Grown):
    """Account of how rows came from a data set into a cache.

    Attributes:
        columns: that were read; None for a corpus, and for caches from before this was kept.
        task: the definition of a task of one's own, which no preset says; None for presets.
        cut: rows that lost tokens.
        num_bad: rows that could not be used and were left out.
        bad: the first ``MOST_LISTED`` of them.
        bad_rows: what was to become of them; None for a corpus.
        num_unlabelled: rows without a gold label: left out, or kept without one.
        unlabelled: what became of them; None where nothing was said.
        copy_column: of the numbers of copies, see :mod:`hskcache.text.copies`; None where none was read.
        language: how rows of a causal language model were made; None of all others.
    """

    later: ClassVar[frozenset[str]] = frozenset({"copy_column", "language"})

    columns: ColumnsRead | None = None
    task: dict[str, JsonValue] | None = None
    cut: CutRows = CutRows.defaults()
    num_bad: int = Key(default=0, ge=0)
    bad: list[BadRow] = Key(default=[], max_length=MOST_LISTED)
    bad_rows: Literal["fail", "skip"] | None = None
    num_unlabelled: int = Key(default=0, ge=0)
    unlabelled: Literal["fail", "skip", "keep"] | None = None
    copy_column: str | int | None = None
    language: LanguageMade | None = None
