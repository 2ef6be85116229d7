"""Requests for a cache, or for a field of one: of a command line or in Python. Needs no torch."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hskcache.errors import SpecError
from hskcache.spec import SECTIONS, Spec
from hskcache.text.compressed import format_of
from hskcache.text.layout import Layout
from hskcache.text.memory import InMemory

if TYPE_CHECKING:
    from hskcache.build.nonfinite import OnNonfinite


@dataclass(frozen=True)
class Texts:
    """The texts that a teacher runs over: rows of a data file, a corpus or conversations, one of these.

    Attributes:
        data: a file, a folder of ``save_to_disk``, ``hub:REPO[:CONFIG]:SPLIT``, or rows in memory.
        layout: which of its columns to read.
        corpus: plain text, a sentence a line; for a language model also one JSON object a line.
        copy: column of the numbers of copies, see :func:`~hskcache.text.copies.in_order_of_copies`.
        keep_text: whether the cache keeps the texts of data beside their tokens.
        one_document: whether a language model reads a corpus as one document, blank lines and all.
        chat: conversations for a language model, one JSON object a line.
        roles: whose turns of these it is to predict; None: what the assistant says.
    """

    data: str | InMemory | None = None
    layout: Layout = field(default_factory=Layout)
    corpus: Path | None = None
    copy: str | None = None
    keep_text: bool = False
    one_document: bool = False
    chat: Path | None = None
    roles: tuple[str, ...] | None = None

    @property
    def are_given(self) -> bool:
        """True where there are any."""
        return bool(self.sources)

    @property
    def sources(self) -> list[str]:
        """Options that name some."""
        given = {"--data": self.data, "--corpus": self.corpus, "--chat": self.chat}
        return [flag for flag, source in given.items() if source is not None]

    @property
    def for_language_models(self) -> list[str]:
        """Options that were given of which only a causal language model makes rows."""
        has_column = self.corpus is not None and self.layout.text is not None
        given = {"--chat": self.chat, "--one-document": self.one_document, "--text of a corpus": has_column}
        return [flag for flag, one in given.items() if one]

    def check(self) -> None:
        """Raise unless there is one source, and no columns of a corpus of plain text.

        Raises:
            SpecError: there is none, or both, or columns are named of plain text.
        """
        if len(self.sources) != 1:
            given = f"{' and '.join(self.sources)} were given" if self.sources else "neither was given"
            given = "both were given" if self.sources == ["--data", "--corpus"] else given
            raise SpecError(
                f"give --data FILE for rows of a task, --corpus FILE for plain text or --chat FILE for chats; {given}"
            )
        if self.roles is not None and self.chat is None:
            raise SpecError("--roles says whose turns of --chat are predicted; give that, or leave it out")
        if self.chat is not None and not replace(self.layout, bad_rows=None).is_empty:
            raise SpecError("--chat has messages and no columns; leave out --task, columns and --classes")
        if self.data is None and self.keep_text:
            raise SpecError(
                "--keep-text keeps the texts of --data; rows of a corpus are made of its tokens: leave it out"
            )
        if self.one_document and self.corpus is None:
            raise SpecError("--one-document reads a text file as one document; give --corpus FILE, or leave it out")
        if self.corpus is not None and not self._may_have(self.layout):
            raise SpecError(
                "--corpus is plain text without columns; leave out --task, columns, --classes and what is said of rows"
            )

    def _may_have(self, layout: Layout) -> bool:
        """True if a corpus may have such columns: of JSON objects a text column, and a rule for bad rows."""
        assert self.corpus is not None
        has_columns = format_of(self.corpus) == ".jsonl"
        return (replace(layout, text=None, bad_rows=None) if has_columns else layout).is_empty


class WorkerPart(NamedTuple):
    """A part of the shards of a build, which one worker writes: every ``num_parts``-th group, from ``number`` on.

    Attributes:
        number: of the part, counted from 1.
        num_parts: parts that there are.
    """

    number: int
    num_parts: int

    def __str__(self) -> str:
        """The part as the command line has it, such as ``3/64``."""
        return f"{self.number}/{self.num_parts}"

    @classmethod
    def parse(cls, text: str) -> "WorkerPart":
        """Read ``3/64``.

        Raises:
            SpecError: it is not one of some parts.
        """
        number, _, count = text.partition("/")
        if number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count):
            return cls(int(number), int(count))
        raise SpecError(f"--part {text!r} is not a part of a build; give one such as 3/64, counted from 1")


@dataclass(frozen=True)
class BuildRequest:
    """A cache to build, apart from where.

    Attributes:
        teacher: folder or hub id.
        texts: what it runs over.
        spec: what to keep. Where its ``max_length`` is not set, it is that of the cache that is gone on with, of the
            rows that the teacher was trained on, or of the task; what is not set of its ``packing`` follows from the
            teacher.
        device: where it computes: auto, cpu, cuda or cuda:N.
        on_nonfinite: what becomes of a row with NaN or infinity.
        called: name of the teacher in the manifest and in messages; None: as ``teacher`` has it.
        eval_data: labelled rows to score the teacher on, which do not come into the cache.
        part: of the shards to write; None writes all.

    Raises:
        SpecError: not one source of texts, or rows to score on beside a corpus.
    """

    teacher: str
    texts: Texts
    spec: Spec = field(default_factory=Spec)
    device: str = "auto"
    on_nonfinite: "OnNonfinite" = "fail"
    called: str | None = None
    eval_data: tuple[str | InMemory, ...] = ()
    part: WorkerPart | None = None

    def __post_init__(self) -> None:
        self.texts.check()
        if self.texts.data is None and self.eval_data:
            raise SpecError(
                f"--eval-data {self.eval_data[0]} scores a classifier, and a corpus has no task; leave it out"
            )


@dataclass(frozen=True)
class AdditionRequest:
    """A field to add to a complete cache: what a teacher knows of the rows that it holds.

    Attributes:
        teacher: folder or hub id.
        cache: the directory.
        kind: of knowledge, which is the only one that ``spec`` keeps, see :func:`alone`.
        name: of the field.
        spec: what to keep; the tokens and the rows of a shard are the cache's own, and so is a token budget that is not
            set.
        device: where the teacher computes.
        on_nonfinite: what becomes of a row with NaN or infinity.
        called: name of the teacher in the manifest and in messages; None: as ``teacher`` has it.
    """

    teacher: str
    cache: Path
    kind: str
    name: str
    spec: Spec
    device: str = "auto"
    on_nonfinite: "OnNonfinite" = "fail"
    called: str | None = None


def alone(kind: str) -> Spec:
    """The spec that keeps what a build would by default, of one kind of knowledge alone.

    Nothing is taken from how a cache was built: its layers and heads are those of another teacher.
    """
    return Spec.model_validate({name: section() if name == kind else None for name, section in SECTIONS.items()})
