"""Meaning of a shard's arrays, told in it for readers of Zarr without hskcache, which itself has no need of that."""

from collections.abc import Mapping

from hskcache.encoded import ENCODED
from hskcache.store.fields import KINDS
from hskcache.store.kinds.abc import Meaning

_DECODE = {form.dtype: form.decode for form in ENCODED.values()}


def meanings(num_axes: Mapping[str, int]) -> dict[str, Meaning]:
    """Meanings of a shard's arrays by their names; none where no kind stores them all.

    Args:
        num_axes: of every array of the shard, by name.
    """
    keys = {name: (name.rpartition("/")[2], count) for name, count in num_axes.items()}
    for kind in KINDS.values():
        if kind.meanings.keys() >= set(keys.values()):
            return {name: kind.meanings[key] for name, key in keys.items()}
    return {}


def attributes(name: str, dtype: str, meaning: Meaning) -> dict[str, str]:
    """Attributes of an array: what it holds and, of encoded values, how they are read.

    Args:
        name: of the array in its shard.
        dtype: numpy's name of its type.
        meaning: of the array.
    """
    decode = {"decode": _DECODE[dtype]} if name.rpartition("/")[2] == "values" else {}
    return {"about": meaning.about} | decode
