"""Request for a cache, or for a field added to one: teacher, tokenizer, rows and what to keep."""

from itertools import accumulate, pairwise
from typing import Any, ClassVar, Literal

from pydantic import Field as Key
from pydantic import JsonValue

from hskcache.cut import NOTHING, Cut
from hskcache.difference import first_difference
from hskcache.spec import Spec
from hskcache.store.files import canonical_json, sha256_hex
from hskcache.store.kinds import KINDS
from hskcache.store.provenance import Provenance
from hskcache.store.record import Sha256
from hskcache.store.row_ranges import RowRanges
from hskcache.strict import Grown, Strict

# Where something came from is told to readers, but the same content under another name is the same cache.
_DATA_NAMES = {"name": True, "split": True, "task": True, "provenance": True}
_NAMES: dict[str, Any] = {
    "teacher": {"name": True, "revision": True, "config": {"_name_or_path": True, "transformers_version": True}},
    "data": _DATA_NAMES,
    "appended": {"__all__": _DATA_NAMES},
}


class TeacherInfo(Strict):
    """The model whose knowledge is stored; ``config`` is its configuration as JSON."""

    name: str
    revision: str | None = None
    weights_sha256: Sha256
    config: dict[str, JsonValue]
    model_type: str
    num_layers: int = Key(ge=0)
    num_heads: int = Key(ge=0)
    width: int = Key(ge=1)
    vocab_size: int = Key(ge=1)


class TokenizerInfo(Strict):
    """The tokenizer, whose files stand in the cache; ``sha256`` is that of ``files.tokenizer_digest``."""

    sha256: Sha256
    vocab_size: int = Key(ge=1)
    pad_token_id: int = Key(ge=0)
    has_token_types: bool


class DataInfo(Grown):
    """The rows; ``fingerprint`` is a digest of their texts and labels.

    The problem ``text`` is a corpus, ``none`` are texts of a data file, and ``language`` are rows of which a causal
    language model says the next tokens: none has a task. Of ``tagging`` every word of a row has a class.
    ``provenance`` is None in caches from before it was kept. ``copies`` are the numbers of rows that are originals,
    then first copies, and so on, in the order of the rows; empty where it is not known which are copies. ``has_text``
    is whether the cache keeps the texts.
    """

    later: ClassVar[frozenset[str]] = frozenset({"copies", "has_text"})

    name: str
    split: str | None = None
    fingerprint: str
    num_rows: int = Key(ge=0)
    task: str | None = None
    problem: Literal["classification", "multilabel", "regression", "tagging", "text", "none", "language"]
    label_names: list[str]
    provenance: Provenance | None = None
    copies: list[int] = Key(default=[])
    has_text: bool = False

    @property
    def has_task(self) -> bool:
        """True if the rows ask what a classifier answers."""
        return self.problem not in {"text", "none", "language"}

    @property
    def num_originals(self) -> int:
        """Rows that are no copies of others, as far as that is known."""
        return self.copies[0] if self.copies else self.num_rows

    def of_some(self, rows: range) -> "DataInfo":
        """The same of some neighbouring rows: what was counted over all of them is left out."""
        provenance, nothing = self.provenance, Provenance()
        counted = ("cut", "num_bad", "bad", "num_unlabelled")
        told = provenance and provenance.model_copy(update={name: getattr(nothing, name) for name in counted})
        if told is not None and told.language is not None:
            language = told.language.model_copy(update={"num_documents": None, "num_targets": None})
            told = told.model_copy(update={"language": language})
        ends = [min(max(end, rows.start), rows.stop) for end in accumulate(self.copies)]
        copies = [end - begin for begin, end in pairwise([rows.start, *ends])]
        while copies and not copies[-1]:
            copies.pop()
        return self.model_copy(update={"num_rows": len(rows), "provenance": told, "copies": copies})


class LayerKept(Strict):
    """A student layer and the teacher layer it learns from."""

    student: int = Key(ge=0)
    teacher: int = Key(ge=0)


class Request(Strict):
    """Everything that decides the content of a cache, resolved before the teacher runs.

    Rows come in parts: ``data``, and what was ``appended`` later. Each part has shards of its own of ``shard_rows``
    rows, the last of which may be shorter.

    Attributes:
        spec: what to keep, a :class:`~hskcache.spec.Spec`.
        teacher: the model: name, SHA-256 of its weights, configuration and shape.
        tokenizer: SHA-256 of its files, and the size of its vocabulary.
        data: the rows of the build: fingerprint, number, task and names of the labels.
        appended: rows that came later.
        shard_rows: rows of a shard.
        layers: pairs of a student layer and the teacher layer that it learns from, of hidden states.
    """

    spec: Spec
    teacher: TeacherInfo
    tokenizer: TokenizerInfo
    data: DataInfo
    appended: list[DataInfo] = Key(default=[])
    shard_rows: int = Key(ge=1)
    layers: list[LayerKept]
    attention_layers: list[LayerKept] = Key(default=[], description="counted from 1")

    @property
    def digest(self) -> str:
        """The request digest; names, paths and revisions do not count."""
        return sha256_hex(canonical_json(self.model_dump(mode="json", exclude=_NAMES, exclude_defaults=True)))

    @property
    def parts(self) -> list[DataInfo]:
        """The rows in order: those of the build, then what was appended."""
        return [self.data, *self.appended]

    @property
    def num_rows(self) -> int:
        """Rows N of all parts."""
        return sum(part.num_rows for part in self.parts)

    @property
    def num_originals(self) -> int:
        """Rows of all parts that are no copies of others, as far as that is known."""
        return sum(part.num_originals for part in self.parts)

    @property
    def num_shards(self) -> int:
        """Shards of each field."""
        return sum(self.shards_of(part) for part in self.parts)

    @property
    def shards(self) -> RowRanges:
        """Row ranges [start, stop) of the shards."""
        return RowRanges([part.num_rows for part in self.parts], self.shard_rows)

    @property
    def cut(self) -> Cut:
        """Parts that rows lost when they were tokenized, as far as that is known."""
        known = (part.provenance.cut for part in self.parts if part.provenance is not None)
        return sum((Cut(**dict(cut)) for cut in known), NOTHING)

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields that a build of this request writes."""
        return tuple(name for name, kind in KINDS.items() if kind.is_asked(self))

    def shards_of(self, part: DataInfo) -> int:
        """Shards that a part of the rows has."""
        return -(-part.num_rows // self.shard_rows)

    def between(self, start: int, stop: int) -> "Request":
        """The same of the rows [start, stop) alone, which begin and end with a shard."""
        parts, begin = [], 0
        for part in self.parts:
            kept = range(max(start, begin), min(stop, begin + part.num_rows))
            if kept:
                rows = range(kept.start - begin, kept.stop - begin)
                parts.append(part if len(kept) == part.num_rows else part.of_some(rows))
            begin += part.num_rows
        return self.model_copy(update={"data": parts[0], "appended": parts[1:]})

    def difference(self, other: "Request") -> tuple[str, Any, Any] | None:
        """First difference of two requests, names aside: the key's path, the value here, the value there."""
        return first_difference(*(request.model_dump(mode="json", exclude=_NAMES) for request in (self, other)))


class BuildDraft(Request):
    """A request as a build that has begun tells it; ``environment`` is how it batches rows, for those that go on."""

    environment: dict[str, str] = Key(default={})

    @property
    def request(self) -> Request:
        """The request alone."""
        return Request.model_construct(**{name: getattr(self, name) for name in Request.model_fields})


class Added(Strict):
    """Origin of a field that was added to a finished cache: another run of a teacher over the same rows.

    Attributes:
        spec: what was kept, of the field's kind alone; limits of the rows are those of the cache.
        layers, attention_layers: pairs of layers, as in a request.
        teacher: the model that ran.
        environment: package versions and device; told to readers, not digested.
    """

    spec: Spec
    layers: list[LayerKept] = Key(default=[])
    attention_layers: list[LayerKept] = Key(default=[])
    teacher: TeacherInfo
    environment: dict[str, str] = Key(default={})

    @property
    def identity(self) -> dict[str, Any]:
        """Facts that decide the field's content, as JSON; names, paths and revisions do not count."""
        names = {"teacher": _NAMES["teacher"], "environment": True}
        return self.model_dump(mode="json", exclude=names, exclude_defaults=True)

    def difference(self, other: "Added") -> tuple[str, Any, Any] | None:
        """First difference of two additions, names aside: the key's path, the value here, the value there."""
        return first_difference(self.identity, other.identity)
