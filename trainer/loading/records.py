"""Arrays of rows as records in one buffer of bytes: what belongs to an entry of an axis stands together in it.

Records are selected, and a buffer sent, with one call however many arrays there are.
"""

from collections.abc import Mapping
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Arrays = Mapping[str, NDArray[Any]]
Shapes = Mapping[str, tuple[tuple[int, ...], torch.dtype]]

# Parts of a buffer begin at multiples of this, so that each can be seen as any type.
_ALIGNED_BYTES = 64


class RecordPlace(NamedTuple):
    """RecordPlace of an array's entries in the records of its axis: the first byte, the type and shape of an entry."""

    axis: str
    start: int
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes of an entry."""
        return prod(self.shape) * self.dtype.itemsize


class RecordLayout(NamedTuple):
    """Form of the records.

    Attributes:
        places: by array.
        widths: by axis, bytes of a record.
    """

    places: dict[str, RecordPlace]
    widths: dict[str, int]


def layout_of(arrays: Arrays, axes: Mapping[str, str]) -> RecordLayout:
    """Layout of some arrays: of an axis the widest types first, and those of the same part of several layers together.

    Args:
        arrays: ``field/array`` -> entries along the first dimension.
        axes: of each array.
    """
    places: dict[str, RecordPlace] = {}
    widths: dict[str, int] = {}
    widest: dict[str, int] = {}
    for name in sorted(arrays, key=lambda one: (-arrays[one].itemsize, one.rpartition("/")[2], len(one), one)):
        array, axis = arrays[name], axes[name]
        place = RecordPlace(axis, widths.get(axis, 0), torch.from_numpy(array[:0]).dtype, array.shape[1:])
        places[name], widths[axis] = place, place.start + place.num_bytes
        widest.setdefault(axis, array.itemsize)
    return RecordLayout(places, {axis: -(-width // widest[axis]) * widest[axis] for axis, width in widths.items()})


def shapes_of(arrays: Arrays) -> Shapes:
    """Shapes and types of arrays as tensors."""
    return {name: (array.shape, torch.from_numpy(array).dtype) for name, array in arrays.items()}


def buffer_of(shapes: Shapes, device: torch.device, pin: bool = False) -> Tensor:
    """Buffer that holds tensors of some shapes, uint8, not filled; pinned memory is of the host."""
    size = sum(-(-_num_bytes(*one) // _ALIGNED_BYTES) * _ALIGNED_BYTES for one in shapes.values())
    return torch.empty(size, dtype=torch.uint8, device=device, pin_memory=pin)


def parts_of(buffer: Tensor, shapes: Shapes) -> dict[str, Tensor]:
    """The tensors that a buffer holds, views of it."""
    parts, start = {}, 0
    for name, (shape, dtype) in shapes.items():
        size = _num_bytes(shape, dtype)
        parts[name] = buffer[start : start + size].view(dtype).view(shape)
        start += -(-size // _ALIGNED_BYTES) * _ALIGNED_BYTES
    return parts


def sent(arrays: Arrays, device: torch.device) -> dict[str, Tensor]:
    """Arrays on a device, with one copy that nothing waits for."""
    pin, shapes = device.type == "cuda", shapes_of(arrays)
    buffer = buffer_of(shapes, torch.device("cpu"), pin)
    fill(parts_of(buffer, shapes), arrays)
    return parts_of(buffer.to(device, non_blocking=pin), shapes)


def fill(parts: Mapping[str, Tensor], arrays: Arrays) -> None:
    """Copy arrays into the parts of a buffer of the host."""
    for name, array in arrays.items():
        np.copyto(parts[name].numpy(), array)


def _num_bytes(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    return prod(shape) * dtype.itemsize
