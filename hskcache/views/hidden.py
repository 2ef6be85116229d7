"""Views of hidden states: fewer layers, positions and columns.

A position is encoded alone, so that fewer positions are stored as they are. Of fewer columns the largest are kept, and
the scale of a position, which is that of its largest value, stays what it is.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from hskcache.encoded import ENCODED
from hskcache.errors import DamageError
from hskcache.resolved import hidden_field, layer_pairs
from hskcache.selection.columns import uniform_columns
from hskcache.spec import Hidden, Spec, Width
from hskcache.store.fields import HiddenField, layer_name
from hskcache.store.request import LayerKept, TeacherInfo
from hskcache.views.abc import (
    Arrays,
    Narrowed,
    ReadConstants,
    Stored,
    ViewedField,
    best_first,
    check_layers,
    check_tokens,
    narrower_depth,
)
from hskcache.views.view import View


class HiddenNarrowing:
    """The three dimensions of hidden states."""

    def spec(self, view: View, kept: Hidden) -> Hidden:
        """The spec with the dimensions of the view in place of its own."""
        if view.layers is None and view.tokens is None and view.width is None:
            return kept
        changes: dict[str, Any] = {"depth": narrower_depth(kept.depth, view.layers)}
        if view.tokens is not None:
            changes["length"] = kept.length.model_copy(update={"tokens": view.tokens})
        if view.width is not None:
            # Where every column is stored, some of them are the largest.
            scheme = "magnitude" if kept.width.scheme == "all" and view.width < 1.0 else kept.width.scheme
            changes["width"] = kept.width.model_copy(update={"fraction": view.width, "scheme": scheme})
        return kept.model_copy(update=changes)

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
        assert isinstance(stored, HiddenField)
        check_layers(source, field.layers)
        check_tokens(source, kept, stored.max_tokens)
        if field.columns == "pca" and field.max_tokens != stored.max_tokens:
            source.refuse(
                "principal components are fitted to the positions that are kept, so fewer would have others; leave the "
                "positions out, or build a cache with them"
            )
        _check_columns(source, kept.width, stored, field)
        return NarrowedStates(stored, field, kept.width)


@dataclass(frozen=True)
class NarrowedStates(Narrowed):
    """Hidden states of a view.

    Attributes:
        width: which columns there are.
    """

    source: HiddenField
    field: HiddenField
    width: Width

    @property
    def has_fewer_columns(self) -> bool:
        """True if the cache has columns that the view has not."""
        return self.field.num_columns < self.source.num_columns

    def shard(self, arrays: Arrays, constants: ReadConstants) -> Arrays:
        """Positions first, then columns, as a build has it."""
        if self.field.max_tokens is not None and self.field.max_tokens != self.source.max_tokens:
            places, offsets = best_first(arrays["position_offsets"], self.field.max_tokens)
            arrays = {name: offsets if name == "position_offsets" else array[places] for name, array in arrays.items()}
        if not self.has_fewer_columns:
            return arrays
        found: Arrays = {"position_offsets": arrays["position_offsets"]}
        for layer in map(layer_name, self.field.layers):
            prefix = f"{layer}/"
            parts = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
            if parts:
                kept = self._shared(parts, layer, constants) if self.field.columns == "shared" else self._largest(parts)
                found |= {f"{prefix}{name}": array for name, array in kept.items()}
        return found

    def constants(self, arrays: Stored) -> Arrays:
        """The columns that all positions share, or the components of the layers."""
        if self.field.columns != "shared" or not self.has_fewer_columns:
            return super().constants(arrays)
        return {f"{layer_name(layer)}/columns": self._columns() for layer in self.field.layers}

    def _columns(self) -> Any:
        """The columns that all positions of the view share, uint16 [W]."""
        if self.width.scheme == "uniform":
            return np.array(uniform_columns(self.field.width, self.width.fraction), np.uint16)
        from hskcache.views.columns import drawn

        return drawn(self.field, self.width.seed)

    def _shared(self, parts: Arrays, layer: str, constants: ReadConstants) -> Arrays:
        """The parts of a layer at the columns that all positions share."""
        columns, stored = self._columns(), constants()[f"{layer}/columns"]
        slots = np.searchsorted(stored, columns)
        if not np.array_equal(stored[np.minimum(slots, len(stored) - 1)], columns):
            raise DamageError(f"the constants hold other columns of {layer} than a build chooses")
        return parts | {"values": parts["values"].take(slots, axis=1)}

    def _largest(self, parts: Arrays) -> Arrays:
        """The parts of a layer at the largest columns of each position."""
        from hskcache.views.columns import largest

        return largest(self.source, self.field, parts)


def _check_columns(source: ViewedField, width: Width, stored: HiddenField, field: HiddenField) -> None:
    """Raise unless the columns of a view are stored, each with the value that a build of the view would store.

    Raises:
        MismatchError: they are not; tells why.
    """
    if (stored.width, stored.encoding) != (field.width, field.encoding):
        source.refuse("it is stored otherwise than it was asked for; build the cache again")
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
    if field.columns == "shared":
        if ENCODED[field.encoding].beside:
            source.refuse(
                f"{of} that need not be the largest, and {field.encoding} has one scale a position, which is that of "
                "the largest column kept; leave the share of columns out, or build a cache with it"
            )
        if stored.columns != "shared" or not _nests(source, width):
            source.refuse(
                f"{of} that all positions share and that are not among those stored as shared; leave the share of "
                "columns out, or build a cache with it"
            )


def _nests(source: ViewedField, width: Width) -> bool:
    """True if the columns that all positions of a view share are among those that are stored."""
    kept = source.request.spec.hidden
    if width.scheme == "random" or kept is None:
        # Fewer columns are the first of those that are drawn.
        return kept is not None
    columns = source.request.teacher.width
    return set(uniform_columns(columns, width.fraction)) <= set(uniform_columns(columns, kept.width.fraction))
