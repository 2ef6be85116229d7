"""Pairs of layers: which of a student's learn from which of the teacher's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hskcache.selection.depth import LayerPair
from hskcache.store.fields import StoredField


@dataclass(frozen=True)
class Matches:
    """Pairs of layers that learn from each other, and the parts of the teacher's shape that the losses need.

    ``pairs``: by kind of knowledge, its pairs of layers. ``fields``: by kind, how it is stored. ``max_length``: tokens
    of a row at most; None where that is not known.
    """

    pairs: Mapping[str, Sequence[LayerPair]] = field(default_factory=dict)
    fields: Mapping[str, StoredField] = field(default_factory=dict)
    max_length: int | None = None

    def of(self, kind: str) -> tuple[LayerPair, ...]:
        """The pairs of a kind."""
        return tuple(self.pairs.get(kind, ()))
