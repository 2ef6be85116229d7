"""Views of hidden states: fewer layers, positions and columns, other ones of these, and another encoding.

A position is encoded alone, so that fewer positions are stored as they are. Of fewer columns the largest are kept, and
the scale of a position, which is that of its largest value, stays what it is. What is stored whole and as it came can
also be selected anew: positions by what the rows tell, columns in other ways, values in other encodings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hskcache.encoded import ENCODED
from hskcache.errors import DamageError
from hskcache.resolved import hidden_field, layer_pairs
from hskcache.selection.columns import uniform_columns
from hskcache.spec import Hidden, Spec, Width
from hskcache.store.fields import HiddenField, layer_name
from hskcache.store.files import canonical_json
from hskcache.store.request import LayerKept, TeacherInfo
from hskcache.views.abc import (
    Arrays,
    Narrowed,
    ShardContext,
    Stored,
    ViewedField,
    check_layers,
    first_positions,
    narrower_depth,
)
from hskcache.views.anew import RankedAnew, ranking
from hskcache.views.view import View

_PARTS = ("layers", "tokens", "share", "width", "target", "score", "specials", "columns", "encoding")
"""Parts of a view that are about hidden states."""


class HiddenNarrowing:
    """The three dimensions of hidden states."""

    def spec(self, view: View, kept: Hidden) -> Hidden:
        """The spec with the dimensions of the view in place of its own."""
        if all(getattr(view, name) is None for name in _PARTS):
            return kept
        changes: dict[str, Any] = {"depth": narrower_depth(kept.depth, view.layers, view.target)}
        changes["length"] = kept.length.model_copy(update=view.length)
        # Where every column is stored, some of them are the largest.
        largest = "magnitude" if kept.width.scheme == "all" and view.width not in {None, 1.0} else None
        width = {"fraction": view.width, "scheme": view.columns or largest}
        changes["width"] = kept.width.model_copy(update=_given(width))
        return kept.model_copy(update=changes | _given({"encoding": view.encoding}))

    def pairs(self, spec: Spec, teacher: TeacherInfo) -> dict[str, list[LayerKept]]:
        """The pairs of hidden layers."""
        return {"layers": layer_pairs(spec.hidden, teacher)}

    def field(self, source: ViewedField, kept: Hidden) -> Narrowed:
        """The field of the narrower spec.

        Raises:
            MismatchError: it has layers, positions or columns that are not stored, or columns that a build would store
                with other values.
        """
        stored, field = source.field, hidden_field(kept, source.request.teacher)
        was = source.request.spec.hidden
        assert isinstance(stored, HiddenField)
        assert was is not None
        check_layers(source, field.layers)
        anew = ranking(source, kept.length, was.length)
        if field.columns == "pca" and field.number_kept != stored.number_kept:
            source.refuse(
                "principal components are fitted to the positions that are kept, so fewer would have others; leave the "
                "positions out, or build a cache with them"
            )
        _check_columns(source, kept.width, stored, field)
        return NarrowedStates(stored, field, kept, anew)


@dataclass(frozen=True)
class NarrowedStates(Narrowed):
    """Hidden states of a view.

    Attributes:
        kept: section of the narrower spec.
        anew: how positions are chosen; None: as in the cache, fewer of them at most.
    """

    source: HiddenField
    field: HiddenField
    kept: Hidden
    anew: RankedAnew | None = None

    @property
    def told(self) -> list[str]:
        """The positions, where they are others, and columns that are shared where the cache has all."""
        positions = [] if self.anew is None else [self.anew.told]
        shares = self.field.columns == "shared" and self.source.columns == "all"
        return positions + ([canonical_json(self.kept.width.model_dump(mode="json")).decode()] if shares else [])

    @property
    def has_fewer_columns(self) -> bool:
        """True if the cache has columns that the view has not."""
        return self.field.num_columns < self.source.num_columns

    def shard(self, arrays: Arrays, beside: ShardContext) -> Arrays:
        """Positions first, then columns, then the encoding, as a build has it."""
        if self.anew is not None:
            arrays = self._ranked(arrays, self.anew, beside)
        elif self.has_other_positions:
            arrays = first_positions(arrays, self.kept.length, beside)
        if not self.has_fewer_columns and self.field.encoding == self.source.encoding:
            return arrays
        found: Arrays = {"position_offsets": arrays["position_offsets"]}
        for layer, parts in _by_layer(arrays, self.field.layers).items():
            kept = parts
            if self.has_fewer_columns:
                is_shared = self.field.columns == "shared"
                kept = self._shared(parts, layer, beside) if is_shared else self._largest(parts)
            if self.field.encoding != self.source.encoding:
                kept = self._encoded(kept)
            found |= {f"{layer}/{name}": array for name, array in kept.items()}
        return found

    def _ranked(self, arrays: Arrays, anew: RankedAnew, beside: ShardContext) -> Arrays:
        """The arrays of the positions that the view has, best first."""
        from hskcache.views.ranking import RankedPositions

        ranked = RankedPositions(anew.length, anew.ranks, beside.tokens())
        found: Arrays = {"position_offsets": ranked.offsets}
        for layer, parts in _by_layer(arrays, self.field.layers).items():
            places = ranked.places(parts["positions"], arrays["position_offsets"])
            found |= {f"{layer}/{name}": array[places] for name, array in parts.items()}
        return found

    def constants(self, arrays: Stored) -> Arrays:
        """The columns that all positions share, or the components of the layers."""
        if self.field.columns != "shared" or not self.has_fewer_columns:
            return super().constants(arrays)
        return {f"{layer_name(layer)}/columns": self._columns() for layer in self.field.layers}

    def _columns(self) -> Any:
        """The columns that all positions of the view share, uint16 [W]."""
        width = self.kept.width
        if width.scheme == "uniform":
            return np.array(uniform_columns(self.field.width, width.fraction), np.uint16)
        from hskcache.views.columns import drawn

        return drawn(self.field, width.seed)

    def _shared(self, parts: Arrays, layer: str, beside: ShardContext) -> Arrays:
        """The parts of a layer at the columns that all positions share."""
        columns = self._columns()
        if self.source.columns == "all":
            return parts | {"values": parts["values"].take(columns, axis=1)}
        stored = beside.constants()[f"{layer}/columns"]
        slots = np.searchsorted(stored, columns)
        if not np.array_equal(stored[np.minimum(slots, len(stored) - 1)], columns):
            raise DamageError(f"the constants hold other columns of {layer} than a build chooses")
        return parts | {"values": parts["values"].take(slots, axis=1)}

    def _largest(self, parts: Arrays) -> Arrays:
        """The parts of a layer at the largest columns of each position."""
        from hskcache.views.columns import largest

        # In the encoding of the cache: what is chosen is encoded anew.
        field = self.field.model_copy(update={"encoding": self.source.encoding})
        return largest(self.source, field, parts)

    def _encoded(self, parts: Arrays) -> Arrays:
        """The parts of a layer with the values in the encoding of the view."""
        from hskcache.views.columns import encoded_anew

        return encoded_anew(self.source.encoding, self.field, parts)


def _by_layer(arrays: Arrays, layers: Sequence[int]) -> dict[str, Arrays]:
    """The parts of every layer that is there, by its name."""
    found: dict[str, Arrays] = {}
    for layer in map(layer_name, layers):
        prefix = f"{layer}/"
        parts = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        if parts:
            found[layer] = parts
    return found


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _check_columns(source: ViewedField, width: Width, stored: HiddenField, field: HiddenField) -> None:
    """Raise unless the columns of a view are stored, each with the value that a build of the view would store.

    Raises:
        MismatchError: they are not; tells why.
    """
    asked = source.request.spec.hidden
    if stored.width != field.width or (asked is not None and stored.encoding != asked.encoding):
        source.refuse("it is stored otherwise than it was asked for; build the cache again")
    if field.encoding != stored.encoding != "float32":
        source.refuse(
            f"{field.encoding} is asked for, and {stored.encoding}, in which it is stored, has lost digits already; "
            "leave the encoding out, or build a cache with float32"
        )
    if (stored.num_columns, stored.columns) == (field.num_columns, field.columns):
        return
    of = f"of {field.width} columns {field.num_columns} are asked for"
    if field.num_columns >= stored.num_columns:
        source.refuse(f"{of}, and {stored.num_columns} are stored; ask for fewer, or leave the share out")
    if field.columns == "pca":
        source.refuse(
            "coordinates along fewer principal components are another product, whose last digits need not be the same; "
            "leave the share of columns out, or build a cache with it"
        )
    if stored.columns == "pca" or (stored.columns == "shared" and field.columns != "shared"):
        source.refuse(f"{of}, chosen by {width.scheme}, and the stored ones were chosen otherwise; leave columns out")
    if field.columns == "shared":
        if ENCODED[stored.encoding].beside:
            source.refuse(
                f"{of} that need not be the largest, and {stored.encoding} has one scale a position, which is that of "
                "the largest column kept; leave the share of columns out, or build a cache with it"
            )
        if stored.columns != "all" and (stored.columns != "shared" or not _nests(source, width)):
            source.refuse(
                f"{of} that all positions share and that are not among those stored as shared; leave the share of "
                "columns out, or build a cache with it"
            )


def _nests(source: ViewedField, width: Width) -> bool:
    """True if the columns that all positions of a view share are among those that are stored."""
    kept = source.request.spec.hidden
    if kept is None or kept.width.scheme != width.scheme:
        return False
    if width.scheme == "random":
        # Fewer columns are the first of those that are drawn.
        return True
    columns = source.request.teacher.width
    return set(uniform_columns(columns, width.fraction)) <= set(uniform_columns(columns, kept.width.fraction))
