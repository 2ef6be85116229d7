"""Attention scores: of every kept position and head a vector of one score for each kept key, layer by layer."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import AfterValidator, model_validator
from pydantic import Field as Key

from hskcache.encoded import ENCODED
from hskcache.errors import DamageError
from hskcache.spec import EncodingName
from hskcache.store.kinds.abc import POSITION, ROW, VALUE, VECTOR, Array, Kind, Meaning, StoredField
from hskcache.store.kinds.layers import POSITIONS, ascending, by_layer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hskcache.store.request import Added, LayerKept, Request, TeacherInfo

MAX_HEADS = 1 << 12
"""More than any teacher has; the number of scores of a row stays far from the limits of its integers."""


class AttentionField(StoredField):
    """Attention scores before mask and softmax, of some teacher layers, between the kept positions of each row.

    A row with K positions has, for every layer, K positions (best first), and H x K vectors of K scores: head by
    head, query by query, one score for each kept key in the order of the positions. Each vector is encoded alone.

    Attributes:
        num_heads: H, maps stored of each layer; 1 where the heads are averaged.
        heads: the teacher's heads they come from, counted from 0 and in the order stored, or ``mean``.
        teacher_heads: heads of the teacher.
        encoding: how the scores are stored.
        layers: teacher layers, ascending, counted from 1.
        max_tokens: K; None where it differs from row to row.
        share: of the positions of a row that are kept; None with ``max_tokens`` None, too: every one is.
    """

    later: ClassVar[frozenset[str]] = frozenset({"share"})

    kind: Literal["attention"] = "attention"
    num_heads: int = Key(ge=1)
    heads: Literal["mean"] | list[int]
    teacher_heads: int = Key(ge=1, le=MAX_HEADS)
    encoding: EncodingName
    layers: Annotated[list[Annotated[int, Key(ge=1)]], Key(min_length=1), AfterValidator(ascending)]
    max_tokens: int | None = Key(default=None, ge=1)
    share: float | None = Key(default=None, gt=0.0, le=1.0)

    @property
    def stored_layers(self) -> list[int]:
        """Teacher layers, counted from 1."""
        return self.layers

    @model_validator(mode="after")
    def _check_heads(self) -> "AttentionField":
        if isinstance(self.heads, str):
            if self.num_heads != 1:
                raise ValueError("the mean of the heads is one map a layer")
        elif len(self.heads) != self.num_heads or len(set(self.heads)) < self.num_heads:
            raise ValueError("heads are not as many as num_heads, each once")
        elif min(self.heads) < 0 or max(self.heads) >= self.teacher_heads:
            raise ValueError("heads are not among those of the teacher")
        return self


class AttentionScores(Kind[AttentionField]):
    """Positions, and vectors whose length follows from the number of positions; what belongs where the offsets tell."""

    name = "attention"
    words = "attention scores"
    field = AttentionField
    first_layer = 1
    derived = (VALUE, VECTOR)
    meanings: ClassVar[Mapping[tuple[str, int], Meaning]] = {
        **POSITIONS,
        ("value_offsets", 1): Meaning(
            ("row_boundary",), "entries [i, i + 1) of values are those of row i, in every layer"
        ),
        ("vector_offsets", 1): Meaning(("row_boundary",), "scales [i, i + 1) are those of row i, in every layer"),
        ("values", 1): Meaning(
            ("value",),
            "scores before mask and softmax, encoded: head by head, query by query, a score for each kept key",
        ),
        ("scales", 1): Meaning(
            ("vector",), "what the integers of each vector (the scores of one head and query) are multiplied by"
        ),
    }

    def arrays(self, field: AttentionField) -> dict[str, Array]:
        """The parts of the encoding, flat: an entry of ``values`` each, and a number a vector of the others."""
        encoded = ENCODED[field.encoding]
        parts = {"values": Array((), (encoded.dtype,))}
        return by_layer(field.layers, parts | {name: Array((), (dtype,)) for name, dtype in encoded.beside.items()})

    def axis(self, name: str) -> str:
        """Axis of a layer's array: the kept positions, the values, or the vectors that something is stored beside."""
        if "/" not in name:
            return ROW
        return {"positions": POSITION, "values": VALUE}.get(name.rpartition("/")[2], VECTOR)

    def value_parts(self, field: AttentionField) -> Collection[str]:
        """The parts of the encoding."""
        return ENCODED[field.encoding].of(1)

    def entries(self, field: AttentionField, axis: str, counts: "NDArray[np.int64]") -> "NDArray[np.int64]":
        """H vectors a position, each as long as there are positions."""
        if axis == POSITION:
            return counts
        vectors: NDArray[np.int64] = field.num_heads * counts
        return vectors if axis == VECTOR else vectors * ENCODED[field.encoding].entries(counts)

    def shape(self, field: AttentionField) -> tuple[int | None, ...]:
        """[H, K, K]: head, query, key."""
        return (field.num_heads, None, None)

    def pairs(self, asked: "Request | Added") -> "list[LayerKept]":
        """Pairs of layers whose attention is compared, counted from 1."""
        return asked.attention_layers

    def check_teacher(self, name: str, field: AttentionField, teacher: "TeacherInfo") -> None:
        """Compare layers and heads with the teacher's."""
        if field.layers[-1] > teacher.num_layers:
            raise DamageError(f"{name} has layer {field.layers[-1]}, but the teacher has {teacher.num_layers}")
        if field.teacher_heads != teacher.num_heads:
            raise DamageError(f"{name} is of {field.teacher_heads} heads, but the teacher has {teacher.num_heads}")
