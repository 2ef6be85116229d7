"""Storage of knowledge by teacher layer, whatever its kind: groups of arrays, a layer each, over the kept positions."""

from collections.abc import Mapping
from itertools import pairwise

from hskcache.store.kinds.abc import Array, Meaning, layer_name

POSITIONS: Mapping[tuple[str, int], Meaning] = {
    ("position_offsets", 1): Meaning(("row_boundary",), "kept positions [i, i + 1) are those of row i, in every layer"),
    ("positions", 1): Meaning(("position",), "place of the token in its row, counted from 0; the best first"),
}
"""Meanings of the arrays of every kind that keeps positions."""


def ascending(layers: list[int]) -> list[int]:
    """The layers, if they rise.

    Raises:
        ValueError: they do not.
    """
    if any(low >= high for low, high in pairwise(layers)):
        raise ValueError("layers do not rise")
    return layers


def by_layer(layers: list[int], parts: dict[str, Array]) -> dict[str, Array]:
    """Arrays of a shard: the offsets of the kept positions and, of every layer, where these are and some parts."""
    parts = {"positions": Array((), ("uint16",))} | parts
    return {"position_offsets": Array((), ("int64",))} | {
        f"{layer_name(layer)}/{part}": array for layer in layers for part, array in parts.items()
    }
