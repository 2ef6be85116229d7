"""Embeddings: one vector a row, the teacher's last hidden states pooled."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field as Key
from pydantic import model_validator

from hskcache.encoded import ENCODED
from hskcache.spec import EncodingName, PoolingName
from hskcache.store.kinds.abc import Array, Kind, Meaning, StoredField

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hskcache.store.request import Request


class EmbeddingField(StoredField):
    """Embeddings of whole rows.

    Attributes:
        width: values of the teacher's embedding.
        num_dims: W, the first of them, which are stored.
        pooling: which states of a row became its embedding.
        is_normalized: whether a vector was divided by its length before it was encoded.
        encoding: how the values are stored.
        num_encoded: values of the vectors that these are the first ones of, where more were encoded together and what
            that lost of them differs from what encoding these alone loses; None: these alone were.
    """

    kind: Literal["embedding"] = "embedding"
    width: int = Key(ge=1)
    num_dims: int = Key(ge=1)
    pooling: PoolingName
    is_normalized: bool
    encoding: EncodingName
    num_encoded: int | None = Key(default=None, ge=1)

    @model_validator(mode="after")
    def _check_dims(self) -> "EmbeddingField":
        if self.num_dims > self.width:
            raise ValueError("more values are stored than there are")
        if self.num_encoded is not None and not self.num_dims < self.num_encoded <= self.width:
            raise ValueError("as many values were not encoded together")
        return self


class Embeddings(Kind[EmbeddingField]):
    """A vector a row, each encoded alone."""

    name = "embedding"
    words = "embeddings"
    field = EmbeddingField
    meanings: ClassVar[Mapping[tuple[str, int], Meaning]] = {
        ("values", 2): Meaning(("row", "column"), "embedding of the row, encoded"),
        ("scales", 1): Meaning(("row",), "what the integers of values are multiplied by"),
    }

    def arrays(self, field: EmbeddingField) -> dict[str, Array]:
        """The parts of the encoding."""
        encoded = ENCODED[field.encoding].of(field.num_dims)
        return {name: Array(part.shape, (part.dtype,)) for name, part in encoded.items()}

    def value_parts(self, field: EmbeddingField) -> Collection[str]:
        """The parts of the encoding."""
        return ENCODED[field.encoding].of(1)

    def shape(self, field: EmbeddingField) -> tuple[int | None, ...]:
        """[W]."""
        return (field.num_dims,)

    def of_row(self, field: EmbeddingField, arrays: "dict[str, NDArray[Any]]") -> Any:
        """The parts of the encoding, by name: ``values`` [W], and one number each of the others."""
        return arrays

    def is_asked(self, request: "Request") -> bool:
        """True if the spec has a section of them."""
        return request.spec.embedding is not None
