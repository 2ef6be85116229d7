"""The teacher's logits, one vector a row, or one a word."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field as Key

from hskcache.store.kinds.abc import POSITION, ROW, Array, Kind, Meaning, StoredField

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hskcache.store.request import Request


class LogitsField(StoredField):
    """The teacher's logits, float32 [n, C], or of rows of words [sum of words, C].

    Attributes:
        num_labels: C, classes; 1 for a regression.
        of_words: whether there are logits of each word, at its first piece, which the inputs name.
    """

    later: ClassVar[frozenset[str]] = frozenset({"of_words"})

    kind: Literal["logits"] = "logits"
    num_labels: int = Key(ge=1)
    of_words: bool = False

    @property
    def array(self) -> str:
        """Name of the array that holds them."""
        return "tag_logits" if self.of_words else "logits"


class Logits(Kind[LogitsField]):
    """Output of a classifier."""

    name = "logits"
    words = "logits"
    field = LogitsField
    meanings: ClassVar[Mapping[tuple[str, int], Meaning]] = {
        ("logits", 2): Meaning(("row", "class"), "the teacher's logits"),
        ("position_offsets", 1): Meaning(("row_boundary",), "words [i, i + 1) are those of row i"),
        ("tag_logits", 2): Meaning(("word", "class"), "the teacher's logits at the first piece of each word"),
    }

    def arrays(self, field: LogitsField) -> dict[str, Array]:
        """The logits as they are, and of words where those of a row begin."""
        offsets = {"position_offsets": Array((), ("int64",))} if field.of_words else {}
        return offsets | {field.array: Array((field.num_labels,), ("float32",))}

    def axis(self, name: str) -> str:
        """Words, or rows."""
        return POSITION if name == "tag_logits" else ROW

    def value_parts(self, field: LogitsField) -> Collection[str]:
        """The one array."""
        return {field.array}

    def shape(self, field: LogitsField) -> tuple[int | None, ...]:
        """[C], or of words [words, C]."""
        return (None, field.num_labels) if field.of_words else (field.num_labels,)

    def of_row(self, field: LogitsField, arrays: "dict[str, NDArray[Any]]") -> Any:
        """The logits [C], or of words [words, C]."""
        return arrays[field.array]

    def num_answers(self, field: LogitsField) -> int:
        """A logit a class, or one score; of a row, or of each of its words."""
        return field.num_labels

    def is_asked(self, request: "Request") -> bool:
        """True of every task; a corpus and texts alone have none."""
        return request.data.has_task
