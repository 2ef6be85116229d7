"""Names of the axes of stored arrays in a shard: for readers of Zarr, which ours has no need of."""

from collections.abc import Mapping

_NAMES: dict[tuple[str, int], tuple[str, ...]] = {
    ("row_ids", 1): ("row",),
    ("row_offsets", 1): ("row_boundary",),
    ("position_offsets", 1): ("row_boundary",),
    ("input_ids", 1): ("token",),
    ("token_type_ids", 1): ("token",),
    ("labels", 1): ("row",),
    ("logits", 2): ("row", "class"),
    ("positions", 1): ("position",),
    ("values", 2): ("position", "column"),
    ("values", 1): ("value",),
    ("scales", 1): ("position",),
    ("columns", 2): ("position", "column"),
    ("columns", 1): ("column",),
    ("bitmask", 2): ("position", "byte"),
    ("mean", 1): ("width",),
    ("basis", 2): ("column", "width"),
}


def dimension_names(num_axes: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
    """Names of the axes of a shard's arrays, by the arrays' names; of what no field stores there are none.

    Args:
        num_axes: of every array of the shard, by name.
    """
    named = {}
    for name, count in num_axes.items():
        group, _, part = name.rpartition("/")
        if (names := _NAMES.get((part, count))) is not None:
            # Attention has a scale for each vector of scores, hidden states one for each position.
            is_of_vectors = part == "scales" and num_axes.get(f"{group}/values") == 1
            named[name] = ("vector",) if is_of_vectors else names
    return named
