"""Distance of the values that two caches store of the same rows, layer by layer, as a teacher's columns.

What is stored in different ways is compared too: other encodings, other columns, other positions, components in place
of columns. Only what both have can be: the values of the same column, class or key of the same position of a row.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hskcache.compare.matched import Flags, Matched
from hskcache.decoded import DECODED, Distance, Same, Vectors, decode, layers_of, reconstructed
from hskcache.errors import DamageError
from hskcache.rows import Arrays, Integers, in_pieces, take
from hskcache.store.fields import MAX_HEADS, StoredField

_MOST_VALUES = 1 << 22
"""Decoded values of a layer that are compared at a time: 16 MB on each side, and some copies of them."""


class LayerDistance(NamedTuple):
    """One layer of a field that two caches have.

    Attributes:
        layer: teacher layer; None for logits.
        distance: of the values that both store.
        positions: positions that each keeps of the rows; of attention, once for each head.
        entries: columns, classes or keys that each stores of the positions that both keep.
    """

    layer: int | None
    distance: Distance
    positions: Same
    entries: Same


class _Side(NamedTuple):
    field: StoredField
    constants: Arrays


def distances(matched: Matched, name: str, counts_C: Flags) -> list[LayerDistance]:
    """Compare a field of two caches where their shards are not the same.

    Of fields that store other things of one kind nothing is compared. ``name``: of the field, of one kind in both;
    ``counts_C``: which of the common rows are to be compared. Raises DamageError if a file is missing or altered, or a
    position lies beyond every row.
    """
    ours = matched.here.fields[name]
    if not DECODED[ours.kind].are_comparable(ours, matched.there.fields[name]):
        return []
    sides = tuple(_Side(cache.fields[name], cache.constants(name)) for cache in (matched.here, matched.there))
    theirs = set(layers_of(sides[1].field))
    by_layer = [
        LayerDistance(layer, Distance(), Same(), Same()) for layer in layers_of(sides[0].field) if layer in theirs
    ]
    limits = [cache.manifest.request.spec.max_length for cache in (matched.here, matched.there)]
    for segment, *stored in matched.pairs(name):
        for arrays, limit in zip(stored, limits, strict=True):
            _check(name, arrays, limit)
        rows = np.flatnonzero(counts_C[segment.start : segment.stop])
        for piece in _pieces(sides, stored, rows):
            here, there = (take(side.field, arrays, piece) for side, arrays in zip(sides, stored, strict=True))
            for layer in by_layer:
                _compare(layer, (sides[0], here), (sides[1], there))
    return by_layer


def _check(name: str, arrays: Arrays, limit: int) -> None:
    """Refuse positions that no row has, for which there would be too little memory."""
    for part, positions in arrays.items():
        if part.rpartition("/")[2] == "positions" and int(positions.max(initial=0)) >= limit:
            raise DamageError(f"{name}: {part} points beyond the end of every row; run hskcache verify")


def _pieces(sides: tuple[_Side, ...], stored: list[Arrays], rows: Integers) -> Iterator[Integers]:
    """Rows in pieces of which the decoded values of a layer fit into memory; a single row always is one."""
    sizes = np.maximum.reduce(
        [
            DECODED[side.field.kind].num_values(side.field, arrays)[rows]
            for side, arrays in zip(sides, stored, strict=True)
        ]
    )
    return in_pieces(rows, sizes, _MOST_VALUES)


def _compare(layer: LayerDistance, here: tuple[_Side, Arrays], there: tuple[_Side, Arrays]) -> None:
    (field, _), _ = here
    ours, theirs = (
        reconstructed(side.field, decode(side.field, arrays, layer.layer, side.constants), layer.layer, side.constants)
        for side, arrays in (here, there)
    )
    keys, others = _keys(field, ours), _keys(there[0].field, theirs)
    _, *places = np.intersect1d(keys, others, return_indices=True)
    layer.positions.here += len(keys)
    layer.positions.there += len(others)
    layer.positions.both += len(places[0])
    width = 1 + max(int(vectors.entries_VE.max()) if vectors.entries_VE.numel() else 0 for vectors in (ours, theirs))
    (values, taken_here), (expected, taken_there) = (
        _spread(vectors, torch.from_numpy(place), width) for vectors, place in zip((ours, theirs), places, strict=True)
    )
    layer.entries.add(taken_here, taken_there)
    are_scores = DECODED[field.kind].are_scores(field, width)
    layer.distance.add(values, expected, taken_here & taken_there, are_scores)


def _keys(field: StoredField, vectors: Vectors) -> NDArray[np.int64]:
    """A number for each vector that is the same in both caches: of its row, the teacher's head and the position."""
    heads = DECODED[field.kind].heads(field, vectors)
    keys: NDArray[np.int64] = (((vectors.rows_V * (MAX_HEADS + 1) + heads) << 16) + vectors.positions_V).numpy()
    return keys


def _spread(vectors: Vectors, places: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Vectors with every value at the place of its entry, and flags of the places that are taken: [V, E]."""
    entries = vectors.entries_VE[places]
    # What is not stored goes to one more place, which is cut off.
    entries = entries.masked_fill(entries < 0, width)
    values = torch.zeros(len(places), width + 1).scatter(1, entries, vectors.values_VE[places])
    taken = torch.zeros(len(places), width + 1, dtype=torch.bool).scatter(1, entries, True)
    return values[:, :width], taken[:, :width]
