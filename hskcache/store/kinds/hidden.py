"""Hidden states: of every kept position a vector of some columns, layer by layer."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator
from pydantic import Field as Key

from hskcache.encoded import ENCODED
from hskcache.errors import DamageError
from hskcache.spec import EncodingName
from hskcache.store.kinds.abc import POSITION, ROW, Array, Kind, Meaning, StoredField, check_below, layer_name
from hskcache.store.kinds.layers import POSITIONS, ascending, by_layer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hskcache.store.request import Added, LayerKept, Request, TeacherInfo

Columns = Literal["all", "shared", "indices", "bitmask", "pca"]


class HiddenField(StoredField):
    """Hidden states of some teacher layers at the kept positions of each row.

    Attributes:
        width: D, the teacher's hidden width.
        num_columns: W, values stored of each position.
        columns: which they are: ``all``; ``shared`` by all positions (constants); per position as ``indices`` or
            ``bitmask``; or ``pca``, coordinates along components (constants).
        encoding: how the values are stored.
        layers: teacher layers, ascending.
        max_tokens: K; None where it differs from row to row.
        share: of the positions of a row that are kept; None with ``max_tokens`` None, too: every one is.
    """

    later: ClassVar[frozenset[str]] = frozenset({"share"})

    kind: Literal["hidden"] = "hidden"
    width: int = Key(ge=1)
    num_columns: int = Key(ge=1)
    columns: Columns
    encoding: EncodingName
    layers: Annotated[list[Annotated[int, Key(ge=0)]], Key(min_length=1), AfterValidator(ascending)]
    max_tokens: int | None = Key(default=None, ge=1)
    share: float | None = Key(default=None, gt=0.0, le=1.0)

    @property
    def stored_layers(self) -> list[int]:
        """Teacher layers; 0 is the embedding output."""
        return self.layers


class HiddenStates(Kind[HiddenField]):
    """Positions, values and, where each position has its own, columns."""

    name = "hidden"
    words = "hidden states"
    field = HiddenField
    meanings: ClassVar[Mapping[tuple[str, int], Meaning]] = {
        **POSITIONS,
        ("values", 2): Meaning(("position", "column"), "hidden states, encoded"),
        ("scales", 1): Meaning(("position",), "what the integers of values are multiplied by"),
        ("columns", 2): Meaning(("position", "column"), "which columns of the state values holds"),
        ("bitmask", 2): Meaning(
            ("position", "byte"), "which columns values holds: column c is bit c % 8, low first, of byte c // 8"
        ),
        ("columns", 1): Meaning(("column",), "which columns of the state values holds, in all positions"),
        ("mean", 1): Meaning(("width",), "mean of the states, which was taken off before the projection"),
        ("basis", 2): Meaning(("column", "width"), "values @ basis + mean is the state"),
    }

    def arrays(self, field: HiddenField) -> dict[str, Array]:
        """The parts of the encoding, and which columns they are of."""
        encoded = ENCODED[field.encoding].of(field.num_columns)
        parts = {name: Array(part.shape, (part.dtype,)) for name, part in encoded.items()}
        if field.columns == "indices":
            parts["columns"] = Array((field.num_columns,), ("uint16",))
        if field.columns == "bitmask":
            parts["bitmask"] = Array((-(-field.width // 8),), ("uint8",))
        return by_layer(field.layers, parts)

    def constants(self, field: HiddenField) -> dict[str, Array]:
        """The columns that all positions share, or the principal components."""
        own = {
            "shared": {"columns": Array((field.num_columns,), ("uint16",))},
            "pca": {
                "mean": Array((field.width,), ("float32",)),
                "basis": Array((field.num_columns, field.width), ("float32",)),
            },
        }
        parts = own.get(field.columns, {})
        return {f"{layer_name(layer)}/{part}": array for layer in field.layers for part, array in parts.items()}

    def axis(self, name: str) -> str:
        """Every array of a layer has an entry a kept position."""
        return POSITION if "/" in name else ROW

    def value_parts(self, field: HiddenField) -> Collection[str]:
        """The parts of the encoding."""
        return ENCODED[field.encoding].of(1)

    def shape(self, field: HiddenField) -> tuple[int | None, ...]:
        """[K, D]."""
        return (None, field.width)

    def pairs(self, asked: "Request | Added") -> "list[LayerKept]":
        """Pairs of hidden layers, 0 the embedding outputs."""
        return asked.layers

    def check_teacher(self, name: str, field: HiddenField, teacher: "TeacherInfo") -> None:
        """Compare the layers with the teacher's."""
        if field.layers[-1] > teacher.num_layers:
            raise DamageError(f"{name} has layer {field.layers[-1]}, but the teacher has {teacher.num_layers}")

    def check_content(self, request: "Request", field: HiddenField, arrays: "Mapping[str, NDArray[Any]]") -> None:
        """Compare the columns with the width."""
        for name, array in arrays.items():
            if name.rpartition("/")[2] == "columns":
                check_below(name, array, field.width, "columns")
