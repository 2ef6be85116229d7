"""Columns that a view has of hidden states, as far as torch tells; the rest of a view needs none."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hskcache.counted import counted
from hskcache.encoded import ENCODED
from hskcache.encoding import get_encoding
from hskcache.encoding.bitmask import pack_columns
from hskcache.errors import DamageError
from hskcache.selection.width import magnitude_columns, random_columns
from hskcache.store.fields import HiddenField

Arrays = dict[str, NDArray[Any]]


def drawn(field: HiddenField, seed: int) -> NDArray[np.uint16]:
    """The columns that a seed draws, ascending, uint16 [W]."""
    return random_columns(field.width, field.num_columns, seed).numpy().astype(np.uint16)


def largest(source: HiddenField, field: HiddenField, parts: Arrays) -> Arrays:
    """The largest columns of each position, as they are stored; of equal ones the lowest.

    Values that differ by less than the encoding tells apart are equal here, where a build still knows which is larger.

    Args:
        source: how the parts are stored.
        field: the same with fewer columns.
        parts: arrays of one layer.
    """
    encoding, names = get_encoding(source.encoding), ENCODED[source.encoding].of(source.num_columns)
    encoded = {name: _tensor(parts[name]) for name in names}
    slots = magnitude_columns(encoding.decode(encoded, source.num_columns), field.num_columns)
    columns = _stored(source, parts)
    chosen = slots if columns is None else columns.gather(-1, slots)
    kept = {name: part.numpy() for name, part in encoding.take(encoded, slots).items()}
    if field.columns == "bitmask":
        told = {"bitmask": pack_columns(chosen, field.width).numpy()}
    else:
        told = {"columns": chosen.numpy().astype(np.uint16)}
    return {"positions": parts["positions"]} | kept | told


def encoded_anew(encoding: str, field: HiddenField, parts: Arrays) -> Arrays:
    """The parts of a layer, whose values are encoded in one way, with these in the encoding of a field."""
    names = ENCODED[encoding].of(field.num_columns)
    values = get_encoding(encoding).decode({name: _tensor(parts[name]) for name in names}, field.num_columns)
    others = {name: array for name, array in parts.items() if name not in names}
    encoded = get_encoding(field.encoding).encode(values)
    return others | {name: part.contiguous().numpy() for name, part in encoded.items()}


def _stored(source: HiddenField, parts: Arrays) -> Tensor | None:
    """The columns of each position, ascending, int64 [P, W]; None where all are stored.

    Raises:
        DamageError: as :func:`_set_bits`.
    """
    match source.columns:
        case "bitmask":
            return torch.from_numpy(_set_bits(parts["bitmask"], source))
        case "indices":
            return _tensor(parts["columns"].astype(np.int64))
    return None


def _set_bits(bitmask: NDArray[np.uint8], source: HiddenField) -> NDArray[np.int64]:
    """The columns of bitmasks [P, ceil(D / 8)], ascending, int64 [P, W].

    On the host this takes a fifth of the time of ``unpack_columns``, which waits for no device.

    Raises:
        DamageError: one is not of W columns.
    """
    bits = np.unpackbits(bitmask, axis=1, count=source.width, bitorder="little")
    if not np.all(np.count_nonzero(bits, axis=1) == source.num_columns):
        raise DamageError(f"holds a bitmask of other than {counted(source.num_columns, 'column')}")
    return np.flatnonzero(bits).reshape(-1, source.num_columns) % source.width


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
