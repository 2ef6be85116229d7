"""Views of attention scores: fewer layers, and the scores between fewer positions.

The scores of a head and query are one vector that is encoded alone: between fewer positions it is shorter, and where an
encoding has a scale for each vector, a build would give the shorter one another.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hskcache.encoded import ENCODED
from hskcache.resolved import attention_field, layer_pairs
from hskcache.spec import Attention, Spec
from hskcache.store.fields import AttentionField
from hskcache.store.request import LayerKept, TeacherInfo
from hskcache.views.abc import (
    Arrays,
    Narrowed,
    ShardContext,
    ViewedField,
    best_first,
    check_layers,
    check_tokens,
    kept_of,
    narrower_depth,
    spans,
    starts_of,
)
from hskcache.views.view import View

Integers = NDArray[np.int64]


class AttentionNarrowing:
    """The two dimensions of attention scores."""

    def spec(self, view: View, kept: Attention) -> Attention:
        """The spec with the dimensions of the view in place of its own."""
        layers, positions = view.attention_layers, view.attention_positions
        if layers is None and not positions:
            return kept
        length = kept.length.model_copy(update=positions)
        return kept.model_copy(update={"depth": narrower_depth(kept.depth, layers), "length": length})

    def pairs(self, spec: Spec, teacher: TeacherInfo) -> dict[str, list[LayerKept]]:
        """The pairs of layers whose attention is compared."""
        return {"attention_layers": [pair for pair in layer_pairs(spec.attention, teacher) if pair.teacher > 0]}

    def field(self, source: ViewedField, kept: Attention) -> Narrowed:
        """The field of the narrower spec.

        Raises:
            MismatchError: it has layers or positions that are not stored, or scores that a build would store otherwise.
        """
        stored, field, was = source.field, attention_field(kept, source.request.teacher), source.request.spec.attention
        assert isinstance(stored, AttentionField)
        assert was is not None
        if (stored.heads, stored.encoding) != (field.heads, field.encoding):
            source.refuse("it is stored otherwise than it was asked for; build the cache again")
        check_layers(source, field.layers)
        check_tokens(source, kept.length, was.length)
        if field.number_kept != stored.number_kept and ENCODED[field.encoding].beside:
            source.refuse(
                f"{field.encoding} has one scale for the scores of a query, which between fewer positions would be "
                "another; leave its positions out, or build a cache with them or with a float encoding"
            )
        return NarrowedScores(stored, field, kept)


@dataclass(frozen=True)
class NarrowedScores(Narrowed):
    """Attention scores of a view, each stored by itself wherever positions are fewer.

    Attributes:
        kept: section of the narrower spec.
    """

    source: AttentionField
    field: AttentionField
    kept: Attention

    def shard(self, arrays: Arrays, beside: ShardContext) -> Arrays:
        """The scores between the best positions of each row: of every head the first rows and columns."""
        if not self.has_other_positions:
            return arrays
        stored, heads = arrays["position_offsets"], self.field.num_heads
        places, offsets = best_first(stored, kept_of(stored, self.kept.length, beside))
        scores = _scores_between(stored, np.diff(offsets), heads)
        found: Arrays = {"position_offsets": offsets}
        for name, array in arrays.items():
            if name != "position_offsets":
                found[name] = array[places if name.endswith("/positions") else scores]
        return found


def _scores_between(offsets: Integers, kept: Integers, heads: int) -> Integers:
    """The places of the scores between the first positions of each row, int64.

    Args:
        offsets: where the positions of each row begin, int64 [n + 1].
        kept: how many are kept of each row, int64 [n].
        heads: H; a row of K positions has H x K vectors of K scores.
    """
    counts = np.diff(offsets)
    rows = np.repeat(np.arange(len(counts)), heads)
    head = np.tile(np.arange(heads), len(counts))
    # Of a head the first queries; of these the first keys.
    queries = spans(head * counts[rows], kept[rows])
    rows = np.repeat(rows, kept[rows])
    begin = starts_of(heads * counts * counts)[rows] + queries * counts[rows]
    return spans(begin, kept[rows])
