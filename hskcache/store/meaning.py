"""Meaning of a shard's arrays, told in it for readers of Zarr without hskcache, which itself has no need of that."""

from collections.abc import Mapping

from hskcache.encoded import ENCODED
from hskcache.store.fields import KINDS
from hskcache.store.kinds.abc import Meaning

_DECODE = {form.dtype: form.decode for form in ENCODED.values()}
_PACKED = {form.dtype: form.per_entry for form in ENCODED.values()}


def meanings(num_axes: Mapping[str, int]) -> dict[str, Meaning]:
    """Meanings of a shard's arrays by their names; none of those that no kind knows, such as parts of a new encoding.

    Args:
        num_axes: of every array of the shard, by name.
    """
    keys = {name: (name.rpartition("/")[2], count) for name, count in num_axes.items()}
    kind = max(KINDS.values(), key=lambda kind: len(kind.meanings.keys() & set(keys.values())))
    return {name: kind.meanings[key] for name, key in keys.items() if key in kind.meanings}


def dimensions(name: str, dtype: str, meaning: Meaning) -> tuple[str, ...]:
    """Names of an array's axes, which are different ones where an entry holds several values.

    Args:
        name: of the array in its shard.
        dtype: numpy's name of its type.
        meaning: of the array.
    """
    *others, last = meaning.dimensions
    is_packed = name.rpartition("/")[2] == "values" and _PACKED.get(dtype, 1) > 1
    return (*others, f"{last}_pair") if is_packed else meaning.dimensions


def attributes(name: str, dtype: str, meaning: Meaning) -> dict[str, str]:
    """Attributes of an array: what it holds and, of encoded values, how they are read.

    Args:
        name: of the array in its shard.
        dtype: numpy's name of its type.
        meaning: of the array.
    """
    is_encoded = name.rpartition("/")[2] == "values" and dtype in _DECODE
    return {"about": meaning.about} | ({"decode": _DECODE[dtype]} if is_encoded else {})
