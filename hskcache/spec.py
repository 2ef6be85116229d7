"""Knowledge to keep of a teacher, as one frozen, strict model; and the dimension letters used everywhere.

Dimension key: N rows, B batch, L positions of a row, K kept positions, D hidden width, W kept columns, H heads,
C classes, V vocabulary, P kept positions of a whole batch (the sum of every row's K), T teacher layers.
Hidden layer 0 is the embedding output after its LayerNorm; hidden layer i is the output of transformer layer i.
"""

import re
from collections import ChainMap
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, get_args

from pydantic import BaseModel, Field, ValidationError

from hskcache.counted import counted
from hskcache.encoded import ENCODED
from hskcache.errors import SpecError
from hskcache.strict import Extended, Strict, first_problem, parse_yaml
from hskcache.table import OneOf, Table


class Admitted(NamedTuple):
    """Positions that a score lets be kept: all, the first alone, or all of them without a choice."""

    first_alone: bool = False
    without_choice: bool = False


SCORES: Table[Admitted] = Table(
    "a score of positions",
    {
        **dict.fromkeys(("attention", "attention-logit", "received", "left", "right", "random"), Admitted()),
        "cls": Admitted(first_alone=True),
        "all": Admitted(without_choice=True),
    },
)
"""Scores by the word that ranks positions; how, ``hskcache.selection.scores`` says."""
ScoreName = Annotated[str, OneOf(SCORES)]
ScoreLayer = Literal["producing", "last", "mapped"]
WidthName = Literal["magnitude", "uniform", "random", "pca", "all"]
EncodingName = Annotated[str, OneOf(ENCODED)]
CodecName = Literal["zstd"]
LayerMapName = Literal["uniform", "top", "bottom"]
PoolingName = Literal["cls", "mean", "max", "last"]
PoolingWord = Literal["model", "cls", "mean", "max", "last"]
PairsName = Literal["none", "next", "random", "mixed"]
_PAIRS: dict[PairsName, str] = {
    "none": "single texts",
    "next": "pairs of a text and what follows it",
    "random": "pairs of texts of two documents",
    "mixed": "pairs, half with what follows the first text, half with one of another document",
}
ComputeDtype = Literal["float32", "bfloat16", "float16"]

_COUNT = re.compile(r"[0-9]{1,9}")


class Keep(NamedTuple):
    """The short form ``{k}l_{K}t_{p}h`` in parts; ``None`` keeps everything along that dimension."""

    layers: int | None
    tokens: int | None
    fraction: float


class Depth(Strict):
    """Layers: the top ``num_layers`` of the map from ``student_layers`` to the teacher's [MUD 3.1].

    Which layers are stored is another question than which a student learns from: those pairs of its map whose teacher
    layer is stored.

    Attributes:
        student_layers: layers of the student.
        kept: student layers in place of the top ones, 0 the embedding output.
        mapping: name of a map [TinyBERT 4.5]: ``uniform``, student layer i to teacher layer round(i * target /
            student_layers), ``top`` or ``bottom``.
        layers: a map written down: the teacher layers of student layers 1 to ``student_layers``.
        stored: ``mapped``, those of the map that are kept; ``all``, for students of other maps; or teacher layers.
    """

    student_layers: int = Field(default=4, ge=1)
    target: int | None = Field(default=None, ge=1, description="teacher layer of the top student layer; None: the last")
    num_layers: int | None = Field(default=None, ge=1, description="None keeps all student_layers + 1")
    kept: list[Annotated[int, Field(ge=0)]] | None = Field(default=None, min_length=1)
    mapping: LayerMapName = "uniform"
    layers: list[Annotated[int, Field(ge=1)]] | None = Field(default=None, min_length=1)
    stored: Literal["mapped", "all"] | list[Annotated[int, Field(ge=0)]] = "mapped"


class Length(Strict):
    """Positions: the ``tokens`` best of each row by ``score`` [MUD 3.2].

    Attributes:
        score: what ranks positions, a word of :data:`SCORES`: ``attention`` (of the first token, mean over heads),
            ``attention-logit`` (the same before the softmax), ``received``, ``left``, ``right``, ``random``, ``cls``
            (the first alone) or ``all``.
        score_layer: whose attention: ``producing``, the layer that made the states; ``last``, the teacher's;
            ``mapped``, the one that the top student layer learns from.
        seed: of ``random``.
    """

    tokens: int | None = Field(default=None, ge=1, description="None keeps every position")
    score: ScoreName = "attention"
    score_layer: ScoreLayer = "producing"
    specials: bool = Field(default=True, description="False never keeps a special token but the first")
    seed: int = Field(default=0, ge=0)


class Width(Strict):
    """Columns: ``fraction`` of the hidden width by ``scheme`` [MUD 3.3].

    Attributes:
        scheme: ``magnitude``, the largest of each position; ``uniform`` and ``random``, the same of all positions;
            ``pca``, principal components; ``all``.
        fraction: share of the columns, above 0 and at most 1.
        seed: of ``random``.
    """

    scheme: WidthName = "magnitude"
    fraction: float = Field(default=1.0, gt=0.0, le=1.0)
    seed: int = Field(default=0, ge=0)


class Kept(Strict):
    """Parts kept of a kind of knowledge that has layers and positions; every such kind has a model of its own.

    Attributes:
        depth: which layers.
        length: which positions of each row.
    """

    depth: Depth = Depth.defaults()
    length: Length = Length.defaults()


class Hidden(Kept):
    """Hidden-state knowledge along its three dimensions.

    Attributes:
        width: which columns.
        encoding: how the values of a position are stored, a word of :data:`~hskcache.encoded.ENCODED`: ``float32``,
            ``float16``, ``bfloat16``, ``int8`` or ``int4``.
    """

    width: Width = Width.defaults()
    encoding: EncodingName = "int8"


class Attention(Kept):
    """Attention scores, before the mask and the softmax, between the kept positions of each row [TinyBERT 3.1, eq. 7].

    The attention of layer i is the one inside transformer layer i, counted from 1: what a map says of hidden layers
    holds for it too, the embedding output left out.

    Attributes:
        heads: all heads, their mean, or some, counted from 0.
        encoding: how the scores of one head and query are stored, as of :class:`Hidden`.
    """

    heads: Literal["all", "mean"] | list[Annotated[int, Field(ge=0)]] = "all"
    encoding: EncodingName = "int8"


class Embedding(Strict):
    """One vector of each row: the last hidden states, pooled ["Sentence-BERT", Reimers and Gurevych, 2019, section 3].

    What is left open is as the folder of the teacher says, if it is one of sentence-transformers.

    Attributes:
        pooling: of the real tokens of a row, special ones included: the first (``cls``), the ``mean``, the largest
            value of each column (``max``) or the ``last``; ``model``: as the teacher's folder says.
        normalize: whether the vector is divided by its length; None: as the folder says, of other teachers not.
        dims: the first so many values ["Matryoshka Representation Learning", Kusupati et al., 2022, section 3], divided
            by their own length if vectors are; None keeps all.
        prompt: text before each row, or the name of one in the folder; None: the one that the folder takes, if any.
        encoding: how the vector is stored, as of :class:`Hidden`.
    """

    pooling: PoolingWord = "model"
    normalize: bool | None = None
    dims: int | None = Field(default=None, ge=1)
    prompt: str | None = None
    encoding: EncodingName = "float16"


SECTIONS: dict[str, type[Strict]] = {"hidden": Hidden, "attention": Attention, "embedding": Embedding}
"""Keys of :class:`Spec` that say what is kept of a kind of knowledge."""


class Packing(Strict):
    """Rule by which a corpus becomes rows of tokens [TinyBERT 3.3]; it says nothing of the rows of a task.

    Attributes:
        pairs: ``none``: rows are single texts; ``next``: two texts, the second what follows the first in its document;
            ``random``: the second is of another document; ``mixed``: each of these in half of the rows.
        short_rows: share of rows whose length is drawn instead of as long as it may be.
        copies: how often the corpus is packed, with other cuts and partners each time.
        mask: share of words that are masked; 0 masks none.
        seed: of all that is drawn.
    """

    pairs: PairsName = "none"
    short_rows: float = Field(default=0.0, ge=0.0, le=1.0)
    copies: int = Field(default=1, ge=1)
    mask: float = Field(default=0.0, ge=0.0, lt=1.0)
    seed: int = Field(default=0, ge=0)

    @property
    def resolved(self) -> "Packing":
        """The same without a seed where nothing is drawn: the same rows have the same digest."""
        return Packing() if self == Packing(seed=self.seed) else self

    @property
    def told(self) -> str:
        """Description for a person."""
        words = [_PAIRS[self.pairs]]
        if self.short_rows:
            words.append(f"{self.short_rows:.4g} of the rows shortened")
        if self.copies > 1:
            words.append(counted(self.copies, "copy", "copies"))
        if self.mask:
            words.append(f"{self.mask:.4g} of the words masked")
        if self.resolved != Packing():
            words.append(f"seed {self.seed}")
        return "; ".join(words)


class Windows(Strict):
    """Windows in which a teacher reads rows that are longer than it reads at once, see :mod:`hskcache.text.windows`.

    Attributes:
        overlap: tokens of a text that neighbouring windows share at least.
        length: tokens of a window, special tokens included; None: as many as the teacher reads.
    """

    overlap: int = Field(ge=0)
    length: int | None = Field(default=None, ge=3)

    @property
    def told(self) -> str:
        """Description for a person, of a resolved spec."""
        return f"of more than {self.length} tokens read in windows that share {counted(self.overlap, 'token')}"


class Spec(Extended):
    """Everything that decides what a cache holds, apart from the teacher and the rows.

    The logits of a teacher with a classifier are always kept.

    Attributes:
        hidden: what is kept of hidden states; None: nothing.
        attention: what is kept of attention scores; None: nothing.
        token_budget: padded tokens of one teacher batch, at most; it belongs to the spec because the grouping of rows
            moves the last bits of the teacher's floats.
        compute_dtype: numbers that the teacher computes in.
    """

    # A view of the table, to which kinds may be added.
    further: ClassVar[Mapping[str, type[BaseModel]]] = ChainMap[str, Any](SECTIONS, {"windows": Windows})

    hidden: Hidden | None = Hidden.defaults()
    attention: Attention | None = None
    max_length: int = Field(default=128, ge=3, description="tokens of a row, special tokens included")
    token_budget: int = Field(default=4096, ge=1)
    compute_dtype: ComputeDtype = "float32"
    shard_rows: int | None = Field(default=None, ge=1, description="rows of a shard; None: from the size of a row")
    packing: Packing = Field(default=Packing.defaults(), description="of a corpus")

    @property
    def embedding(self) -> Embedding | None:
        """Section of embeddings of whole rows; None: nothing of them is kept, and the spec has no such key."""
        section: Embedding | None = (self.__pydantic_extra__ or {}).get("embedding")
        return section

    @property
    def windows(self) -> Windows | None:
        """Windows in which long rows are read; None: all rows are read whole, and the spec has no such key."""
        windows: Windows | None = (self.__pydantic_extra__ or {}).get("windows")
        return windows

    def with_sections(self, changes: Mapping[str, Strict | None]) -> "Spec":
        """The same with other sections, by kind; None where nothing of it is kept any more."""
        spec = self.model_copy(update=dict(changes))
        further = spec.__pydantic_extra__ or {}
        for name in [name for name, section in further.items() if section is None]:
            del further[name]
        return spec

    @property
    def sections(self) -> dict[str, Strict | None]:
        """Sections of the spec by kind; None where nothing of it is kept."""
        return {name: getattr(self, name, None) for name in SECTIONS}


def parse_keep(text: str, flag: str = "--keep") -> Keep | None:
    """Read ``1l_10t_0.1h``, any part of it, ``full`` (all three dimensions) or ``none``.

    Returns the three counts, or None for ``none``. Raises SpecError if not of that form, a count below 1, or a
    fraction outside (0, 1].
    """
    if text == "none":
        return None
    if text == "full":
        return Keep(None, None, 1.0)
    what = f"{flag} {text!r}"
    parts = {part[-1:]: part[:-1] for part in text.split("_")}
    # Each letter at most once and in this order; an empty part has no letter.
    if "_".join(f"{parts[letter]}{letter}" for letter in "lth" if letter in parts) != text or not all(parts.values()):
        raise SpecError(f"{what} is not of the form 1l_10t_0.1h (layers, tokens, share of columns), full or none")
    return Keep(
        _count(what, parts.get("l"), "layers"), _count(what, parts.get("t"), "tokens"), _fraction(what, parts.get("h"))
    )


def _count(what: str, digits: str | None, name: str) -> int | None:
    if digits is None:
        return None
    if not _COUNT.fullmatch(digits):
        raise SpecError(f"{what}: {digits!r} is not a number of {name}; write a whole number such as 10")
    if int(digits) == 0:
        raise SpecError(f"{what}: 0 {name}; give at least 1, leave the part out to keep all, or use none")
    return int(digits)


def _fraction(what: str, digits: str | None) -> float:
    try:
        fraction = float(digits or "1")
    except ValueError:
        raise SpecError(f"{what}: {digits!r} is not a number; write a share such as 0.1h") from None
    if not 0.0 < fraction <= 1.0:
        raise SpecError(f"{what}: the share of columns is {fraction:g}; give one above 0 and at most 1")
    return fraction


def layer_map_changes(text: str) -> dict[str, Any]:
    """The keys of :class:`Depth` that ``uniform`` or ``3,6,9,12`` sets. Raises SpecError for another form."""
    value = numbers_or_word(text, "--layer-map", get_args(LayerMapName))
    return {"mapping": value, "layers": None} if isinstance(value, str) else {"mapping": "uniform", "layers": value}


def numbers_or_word(text: str, flag: str, words: Sequence[str]) -> str | list[int]:
    """One of some words, or whole numbers between commas. Raises SpecError for anything else; names ``flag``."""
    if text in words:
        return text
    try:
        return numbers(text, flag)
    except SpecError:
        raise SpecError(f"{flag} {text!r} is not {', '.join(words)} or numbers such as 3,6,9") from None


def numbers(text: str, flag: str) -> list[int]:
    """Whole numbers between commas. Raises SpecError for something else; names ``flag``."""
    parts = text.split(",")
    if not all(_COUNT.fullmatch(part) for part in parts):
        raise SpecError(f"{flag} {text!r} is not numbers such as 3,6,9")
    return [int(part) for part in parts]


def format_keep(kept: Strict | None) -> str:
    """The short form of what is kept, which :func:`parse_keep` reads: ``1l_10t_0.1h``, ``full`` or ``none``.

    It tells how many layers, not which.
    """
    if kept is None:
        return "none"
    if isinstance(kept, Embedding):
        return kept.pooling if kept.dims is None else f"{kept.pooling} {kept.dims}"
    assert isinstance(kept, Kept)
    parts = []
    num_layers = kept.depth.num_layers if kept.depth.kept is None else len(kept.depth.kept)
    if num_layers is not None:
        parts.append(f"{num_layers}l")
    if kept.length.tokens is not None:
        parts.append(f"{kept.length.tokens}t")
    if isinstance(kept, Hidden) and kept.width.fraction < 1.0:
        parts.append(f"{kept.width.fraction!r}h")
    return "_".join(parts) or "full"


def parse_spec(text: str, source: str) -> Spec:
    """A spec from YAML or JSON text. Raises SpecError naming ``source`` and the first key that does not fit."""
    value = parse_yaml(text, source)
    try:
        return Spec.model_validate({} if value is None else value)
    except ValidationError as error:
        raise SpecError(f"{source}: {first_problem(error, Spec)}") from None
