"""Sections of a spec: what is kept of each kind of knowledge."""

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field, model_validator

from hskcache.spec.words import (
    EncodingName,
    LayerMapName,
    PoolingWord,
    ScoreLayer,
    ScoreName,
    VocabularyForm,
    WidthName,
)
from hskcache.strict import Grown, Strict


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


class Length(Grown):
    """Positions: the ``tokens`` best of each row by ``score`` [MUD 3.2], or a share of them.

    Attributes:
        tokens: how many; None with ``share`` None, too: every position, in the order of the row.
        share: of those of a row that may be kept, rounded half to even, and one at least.
        score: what ranks positions, a word of :data:`SCORES`: ``attention`` (of the first token, mean over heads),
            ``attention-logit`` (the same before the softmax), ``received``, ``left``, ``right``, ``random``, ``cls``
            (the first alone) or ``all``; of a language model's rows ``entropy`` of the next token, ``loss`` on it, or
            ``last``.
        score_layer: whose attention: ``producing``, the layer that made the states; ``last``, the teacher's;
            ``mapped``, the one that the top student layer learns from.
        seed: of ``random``.
        targets: True keeps those positions alone whose next token is to be predicted, of rows of a language model.
    """

    # Older pydantic cannot write a model that adds a serializer of its own before it is built.
    model_config = ConfigDict(defer_build=False)

    later: ClassVar[frozenset[str]] = frozenset({"share", "targets"})

    tokens: int | None = Field(default=None, ge=1)
    share: float | None = Field(default=None, gt=0.0, le=1.0)
    score: ScoreName = "attention"
    score_layer: ScoreLayer = "producing"
    specials: bool = Field(default=True, description="False never keeps a special token but the first")
    seed: int = Field(default=0, ge=0)
    targets: bool = False

    @model_validator(mode="after")
    def _check(self) -> "Length":
        if self.tokens is not None and self.share is not None:
            raise ValueError("a number of tokens and a share of them are two ways to say the same; give one")
        return self

    @property
    def is_whole(self) -> bool:
        """True if every position is kept, in the order of the row."""
        return self.tokens is None and self.share is None


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


MOST_TOKENS = 1 << 12
"""Most tokens that are kept, or drawn, at a position: of more, states are smaller."""


class Vocabulary(Grown):
    """Knowledge of next tokens, at positions that have one to be predicted: the teacher's distribution over them.

    Attributes:
        form: ``top``, the likeliest tokens and, as one bucket, all others; ``sampled``, draws ["Sparse Logit Sampling",
            Anshumann et al., 2025, arXiv 2503.16870]; ``head``, the states that go into the teacher's output layer,
            and that layer: the whole distribution.
        count: tokens kept, or drawn, at a position; None: 32 likeliest, or 50 draws. Of ``head`` there is none.
        seed: of ``sampled``.
        encoding: how the states of ``head`` are stored, as of :class:`Hidden`.
        length: which positions of each row.
    """

    model_config = ConfigDict(defer_build=False)

    later: ClassVar[frozenset[str]] = frozenset({"length"})

    form: VocabularyForm = "top"
    count: int | None = Field(default=None, ge=1, le=MOST_TOKENS)
    seed: int = Field(default=0, ge=0)
    encoding: EncodingName = "int8"
    length: Length = Length.defaults()


VOCABULARY_COUNTS = {"top": 32, "sampled": 50}
"""Tokens kept, or drawn, at a position where nobody says how many."""

SECTIONS: dict[str, type[Strict]] = {
    "hidden": Hidden,
    "attention": Attention,
    "embedding": Embedding,
    "vocabulary": Vocabulary,
}
"""Keys of :class:`Spec` that say what is kept of a kind of knowledge."""
