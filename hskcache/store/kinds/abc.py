"""A kind of knowledge as it is stored: the model of its fields, their arrays and what each of these counts.

Axes: an array has one entry a row, a token, a kept position, a vector or a value of a row. All but the first are flat
and divided into rows by stored offsets.
"""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypeVar

from pydantic import ConfigDict

from hskcache.errors import DamageError
from hskcache.spec import Kept, Spec
from hskcache.strict import Grown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hskcache.store.request import Added, LayerKept, Request, TeacherInfo

ROW, TOKEN, TEXT, POSITION, VECTOR, VALUE = "row", "token", "text", "position", "vector", "value"

AXES: dict[str, str | None] = {
    ROW: None,
    TOKEN: "row_offsets",
    TEXT: "text_offsets",
    POSITION: "position_offsets",
    VECTOR: "position_offsets",
    VALUE: "position_offsets",
}
"""Stored array that divides each axis into rows, directly or by way of the kept positions."""

OFFSETS = frozenset(name for name in AXES.values() if name is not None)
"""Arrays that divide others into rows."""


def layer_name(layer: int) -> str:
    """Group of a teacher layer's arrays: ``layer_06``."""
    return f"layer_{layer:02d}"


class StoredField(Grown):
    """Content of a field; every kind has a model of its own."""

    # Older pydantic cannot write a model within another one that is not built.
    model_config = ConfigDict(defer_build=False)

    kind: str

    @property
    def stored_layers(self) -> list[int]:
        """Teacher layers, ascending; empty where none is told apart."""
        return []

    @property
    def keeps_all(self) -> bool:
        """True unless the best positions of each row are kept alone."""
        return self.number_kept == (None, None)

    @property
    def number_kept(self) -> tuple[int | None, float | None]:
        """Number of positions that are kept of each row, or the share of them; None twice where neither is said."""
        return getattr(self, "max_tokens", None), getattr(self, "share", None)


FieldModel = TypeVar("FieldModel", bound=StoredField)


class Array(NamedTuple):
    """A stored array: its shape beyond the axis that its name has, and the numpy types that it may have."""

    shape: tuple[int, ...]
    dtypes: tuple[str, ...]


class Meaning(NamedTuple):
    """Meaning of an array: names of its axes, and what it holds."""

    dimensions: tuple[str, ...]
    about: str


class Kind(Generic[FieldModel]):
    """Stored content of one kind. An object of it stands in the table of kinds under its name.

    Attributes:
        name: the word of manifests and commands; also the name of a cache's own field of the kind.
        words: what it holds, for messages; empty where it is no knowledge of a teacher.
        field: the model of its fields.
        first_layer: the lowest layer that the kind has; 0 is the embedding output.
        meanings: of its arrays, those of HDF5 alone and those that all rows share among them, by the last part of the
            name and the number of axes.
        derived: axes whose entries a row follow from its tokens or positions without being as many, see ``entries``.
    """

    name: ClassVar[str]
    words: ClassVar[str] = ""
    field: type[FieldModel]
    first_layer: ClassVar[int] = 0
    meanings: ClassVar[Mapping[tuple[str, int], Meaning]] = {}
    derived: ClassVar[tuple[str, ...]] = ()

    def arrays(self, field: FieldModel) -> dict[str, Array]:
        """The arrays of a shard, by name, offsets among them."""
        raise NotImplementedError

    def constants(self, field: FieldModel) -> dict[str, Array]:
        """Arrays that all rows share, by name, each with its whole shape; empty where they share nothing."""
        return {}

    def axis(self, name: str) -> str:
        """The axis of which an array has an entry each, along its first dimension."""
        return ROW

    def value_parts(self, field: FieldModel) -> Collection[str]:
        """Last parts of the names of the arrays that hold values of the teacher."""
        return ()

    def entries(self, field: FieldModel, axis: str, counts: "NDArray[np.int64]") -> "NDArray[np.int64]":
        """Entries of each row along an axis, int64 [n].

        Args:
            field: how it is stored.
            axis: one of those that offsets divide.
            counts: tokens or kept positions of each row, as the offsets of the axis say, int64 [n].
        """
        return counts

    def shape(self, field: FieldModel) -> tuple[int | None, ...]:
        """Shape of a row's decoded values of one layer; None where it differs from row to row."""
        return (None,)

    def of_row(self, field: FieldModel, arrays: "dict[str, NDArray[Any]]") -> Any:
        """A row's part of a field as readers of a row get it: by layer where there are layers, else the arrays.

        Args:
            field: how it is stored.
            arrays: the row's part of every array, offsets left out.
        """
        if not field.stored_layers:
            return arrays
        layers = {layer: f"{layer_name(layer)}/" for layer in field.stored_layers}
        return {
            layer: {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
            for layer, prefix in layers.items()
        }

    def num_answers(self, field: FieldModel) -> int | None:
        """Outputs of each row that answer what its label does, classes or one score; None where there are none."""
        return None

    def is_asked(self, request: "Request") -> bool:
        """True if a build of a request writes a field of this kind under the name of the kind."""
        return self.kept(request.spec) is not None

    def kept(self, spec: Spec) -> Kept | None:
        """Layers and positions that a spec keeps; None where it keeps none of the kind, or there is no choice."""
        kept = spec.sections.get(self.name)
        return kept if isinstance(kept, Kept) else None

    def pairs(self, asked: "Request | Added") -> "list[LayerKept]":
        """The student layers, each with the teacher layer that it learns from."""
        return []

    def check_teacher(self, name: str, field: FieldModel, teacher: "TeacherInfo") -> None:
        """Raise unless a teacher can have given what a field stores.

        Raises:
            DamageError: it cannot; names the field.
        """

    def check_content(self, request: "Request", field: FieldModel, arrays: "Mapping[str, NDArray[Any]]") -> None:
        """Raise unless every integer of some arrays of a shard, or of its constants, is one that its rows can have.

        Raises:
            DamageError: one is not; names the array, but not the file.
        """


def check_below(name: str, array: "NDArray[Any]", limit: int, what: str) -> None:
    """Raise unless all integers of an array lie in [0, limit).

    Raises:
        DamageError: one does not.
    """
    if array.size and not (array.min() >= 0 and array.max() < limit):
        odd = int(array.min()) if array.min() < 0 else int(array.max())
        raise DamageError(f"{name} holds {odd}, of {limit} {what} counted from 0")


def check_positions(arrays: "Mapping[str, NDArray[Any]]", lengths: "NDArray[np.int64]") -> None:
    """Raise unless every kept position lies within its row.

    Args:
        arrays: of a shard, ``position_offsets`` and the positions of any layers among them.
        lengths: tokens of each of its rows, int64 [n].

    Raises:
        DamageError: one does not, so states would be compared that are not of the row.
    """
    for name, positions in arrays.items():
        if name.rpartition("/")[2] == "positions" and "position_offsets" in arrays:
            offsets = arrays["position_offsets"]
            if bool((positions >= lengths.repeat(offsets[1:] - offsets[:-1])).any()):
                raise DamageError(f"{name} points beyond the end of its row")


def check_words(field: StoredField, arrays: "Mapping[str, NDArray[Any]]", offsets: "NDArray[Any] | None") -> None:
    """Raise unless a field that holds something of each word holds it of the words that its rows have.

    Args:
        field: how it is stored.
        arrays: of a shard.
        offsets: of the words of its rows, as the inputs have them; None where rows are texts.

    Raises:
        DamageError: it does not, so answers would be compared that are not of the word.
    """
    found = arrays.get("position_offsets") if getattr(field, "of_words", False) else None
    if found is not None and (offsets is None or not (found == offsets).all()):
        raise DamageError("position_offsets are not those of the words of its rows")
