"""The teacher's logits, one vector a row."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field as Key

from hskcache.store.kinds.abc import Array, Kind, Meaning, StoredField

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hskcache.store.request import Request


class LogitsField(StoredField):
    """The teacher's logits, float32 [n, C].

    Attributes:
        num_labels: C, classes; 1 for a regression.
    """

    kind: Literal["logits"] = "logits"
    num_labels: int = Key(ge=1)


class Logits(Kind[LogitsField]):
    """Output of a classifier."""

    name = "logits"
    words = "logits"
    field = LogitsField
    meanings: ClassVar[Mapping[tuple[str, int], Meaning]] = {
        ("logits", 2): Meaning(("row", "class"), "the teacher's logits"),
    }

    def arrays(self, field: LogitsField) -> dict[str, Array]:
        """The logits as they are."""
        return {"logits": Array((field.num_labels,), ("float32",))}

    def value_parts(self, field: LogitsField) -> Collection[str]:
        """The one array."""
        return {"logits"}

    def shape(self, field: LogitsField) -> tuple[int | None, ...]:
        """[C]."""
        return (field.num_labels,)

    def of_row(self, field: LogitsField, arrays: "dict[str, NDArray[Any]]") -> Any:
        """The logits [C]."""
        return arrays["logits"]

    def num_answers(self, field: LogitsField) -> int:
        """A logit a class, or one score."""
        return field.num_labels

    def is_asked(self, request: "Request") -> bool:
        """True of every task; a corpus and texts alone have none."""
        return request.data.has_task
