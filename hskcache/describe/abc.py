"""A kind of knowledge as it is told: in HDF5's attributes, in a row that is viewed, in a line of ``info``."""

from collections.abc import Iterable
from typing import Any, Generic, TypeVar

from hskcache.counted import counted
from hskcache.encoded import ENCODED
from hskcache.store.fields import StoredField

FieldModel = TypeVar("FieldModel", bound=StoredField)


class Description(Generic[FieldModel]):
    """Description of one kind. An object of it stands in the table of descriptions under the kind's name.

    Attributes:
        holds: what a field holds, for the data card.
        key: under which a viewed row tells the cache's own field; empty where it is told token by token.
        heading: of the columns of a viewed row that tell positions, before the layer's number.
        noun: what the option below keeps, in words.
        flag: option that says what is kept of the kind, and key of it in facts; empty where there is nothing to say.
        pairs: key of the pairs of layers in facts.
        entries: what a vector has one value of each.
    """

    holds: str
    key: str = ""
    heading: str = ""
    noun: str = ""
    flag: str = ""
    pairs: str = ""
    entries: str = "columns"

    def attributes(self, field: FieldModel) -> dict[str, Any]:
        """Attributes of a field's group in HDF5: what the manifest says of it; what is not set is left out."""
        found = field.model_dump(exclude_none=True)
        if "encoding" in found:
            found["decode"] = ENCODED[found["encoding"]].decode
        return found

    def told(self, field: FieldModel) -> str:
        """Content of a field, in a few words."""
        raise NotImplementedError

    def shown(self, stored: Any) -> Any:
        """A row's part of a field, see :meth:`hskcache.cache.Cache.row`, as plain values; empty of None."""
        raise NotImplementedError

    def facts(self, stored: Any, label_names: list[str]) -> dict[str, Any]:
        """Entries of a viewed row on the cache's own field; None where it has none."""
        return {self.key: self.shown(stored)} if self.key else {}

    def line(self, shown: Any, label_names: list[str]) -> str | None:
        """Line for people out of what :meth:`shown` gave; None where positions tell it all."""
        return None

    def positions(self, shown: Any) -> dict[str, list[int]]:
        """Kept positions by teacher layer, best first, out of what :meth:`shown` gave."""
        return {}

    def following(self, shown: Any) -> dict[int, list[dict[str, Any]]]:
        """Tokens that are known of the next one, by position, out of what :meth:`shown` gave: ``id`` and ``p`` each."""
        return {}


def told_positions(field: StoredField) -> str:
    """Number of positions of each row that a field keeps, in words; of all an empty word."""
    tokens, share = field.number_kept
    if share is not None:
        return f"{share:g} of the positions"
    return "" if tokens is None else counted(tokens, "position")


class OfPositions(Description[FieldModel]):
    """A kind whose layers keep positions: these are what a row tells."""

    def shown(self, stored: Any) -> dict[str, list[int]]:
        """Kept positions by teacher layer, best first."""
        layers: Iterable[tuple[int, Any]] = (stored or {}).items()
        return {str(layer): [int(position) for position in arrays["positions"]] for layer, arrays in layers}

    def positions(self, shown: Any) -> dict[str, list[int]]:
        """All of them."""
        layers: dict[str, list[int]] = shown
        return layers
