"""A kind of knowledge as it is loaded: from stored targets to those of a batch, on the device where they are."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from numpy.typing import NDArray
from torch import Tensor

from hskcache.ragged import Integers
from hskcache.store.fields import StoredField
from trainer.loading.block import Block, Cuts
from trainer.loading.records import Arrays

FieldModel = TypeVar("FieldModel", bound=StoredField)


class StoredTargets(NamedTuple):
    """Form in which targets are stored before they are decoded.

    Attributes:
        weights: by name of a field, what it counts in the mean; one field with 1 where nothing is averaged.
        field: how they are stored, those of all fields alike.
        layers: teacher layers to decode; empty where the kind has none.
        constants: ``field/array`` -> what all rows share, on the device of the batches.
    """

    weights: Mapping[str, float]
    field: Any
    layers: tuple[int, ...]
    constants: Mapping[str, Tensor]

    @property
    def name(self) -> str:
        """The field, of a kind that is not averaged."""
        return next(iter(self.weights))


class AskedRows(NamedTuple):
    """Rows of a shard, and what is asked of them.

    Attributes:
        input_ids: of all rows.
        offsets: where the tokens of each row begin, [n + 1].
        positions: place in its row of each token that is answered for; None where rows are answered for as a whole.
        position_offsets: where those of each row begin, likewise.
    """

    input_ids: NDArray[Any]
    offsets: Integers
    positions: NDArray[Any] | None
    position_offsets: Integers | None


class Decoder:
    """Decodes the targets of one kind, of several batches at once; nothing waits for the device."""

    def tables(self, offsets: Mapping[str, Integers], cuts: Cuts) -> Arrays:
        """Tables that decoding needs, made on the host, by names of its own.

        Args:
            offsets: of the rows of all batches, see :class:`~trainer.loading.block.Block`.
            cuts: how they are divided into batches.
        """
        return {}

    def decode(self, block: Block, cuts: Cuts) -> Iterable[Any]:
        """Targets of each batch, as it holds them.

        Args:
            block: encoded rows of all batches, with the tables among its parts.
            cuts: how they are divided into batches.
        """
        raise NotImplementedError


class LoadedKind(Generic[FieldModel]):
    """Loader of one kind. An object of it stands in the table under the kind's name.

    Attributes:
        is_averaged: whether several fields may be loaded, as the weighted mean of theirs.
        of_layer, of_layers: what a layer is, or several are, of, for messages; empty where there are none.
        axis: of which the losses divide by a total of the global batch; empty where they divide by its rows.
    """

    is_averaged: ClassVar[bool] = False
    of_layer: ClassVar[str] = ""
    of_layers: ClassVar[str] = ""
    axis: ClassVar[str] = ""

    def decoder(self, stored: StoredTargets) -> Decoder:
        """Decoder of a batch's targets."""
        raise NotImplementedError

    def resident(self, field: FieldModel, arrays: Arrays) -> Arrays:
        """Arrays of a shard in a form that takes more memory and less time to decode, epoch after epoch on the host."""
        return arrays

    def check(self, field: FieldModel, arrays: Arrays, rows: AskedRows, constants: Arrays) -> None:
        """Raise unless what a shard holds is about what its rows ask.

        Args:
            field: how it is stored.
            arrays: of the shard.
            rows: of the shard.
            constants: of the field.

        Raises:
            DamageError: it is not, so that answers would be compared that are not of the token.
        """

    def total(self, counts: Integers) -> int:
        """Divisor of losses, from the entries of each row of the global batch along the axis."""
        return int(counts.sum())


class OfLayers(LoadedKind[FieldModel]):
    """A kind whose targets are by teacher layer."""

    axis = "position"
