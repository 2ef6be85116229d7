"""The spec itself: all that decides what a cache holds, and its files."""

from collections import ChainMap
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, Field, ValidationError

from hskcache.errors import SpecError
from hskcache.spec.rows import Packing, Windows
from hskcache.spec.sections import SECTIONS, Attention, Embedding, Hidden, Vocabulary
from hskcache.spec.words import ComputeDtype
from hskcache.strict import Extended, Strict, first_problem, parse_yaml


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
    def vocabulary(self) -> Vocabulary | None:
        """Section of next tokens; None: nothing of them is kept, and the spec has no such key."""
        section: Vocabulary | None = (self.__pydantic_extra__ or {}).get("vocabulary")
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


def parse_spec(text: str, source: str) -> Spec:
    """A spec from YAML or JSON text. Raises SpecError naming ``source`` and the first key that does not fit."""
    value = parse_yaml(text, source)
    try:
        return Spec.model_validate({} if value is None else value)
    except ValidationError as error:
        raise SpecError(f"{source}: {first_problem(error, Spec)}") from None
