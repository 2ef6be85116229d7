"""Encoded rows held in memory as flat tensors, and the selection of some of them without decoding anything."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hskcache.cache import Cache

Integers = NDArray[np.int64]

# Which axis the first dimension of a stored array is.
_PER_ROW = frozenset({"labels", "row_ids", "logits"})
_PER_TOKEN = frozenset({"input_ids", "token_type_ids"})


def axis_of(name: str) -> str:
    """``row``, ``token`` or ``position``: what the first dimension of a stored array counts."""
    inner = name.partition("/")[2]
    if inner in _PER_ROW:
        return "row"
    return "token" if inner in _PER_TOKEN else "position"


@dataclass(frozen=True)
class Block:
    """Encoded rows.

    Attributes:
        rows: row of the cache that stands at each place, [n].
        offsets: for ``token`` and ``position``, where each row's entries begin, [n + 1], always on the host.
        tensors: ``field/array`` -> encoded tensor; 16-bit unsigned types as signed bits.
        constants: arrays that all rows share, on the same device.
    """

    rows: Integers
    offsets: dict[str, Integers]
    tensors: dict[str, Tensor]
    constants: dict[str, Tensor]

    @property
    def num_bytes(self) -> int:
        """Bytes of the encoded tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def lengths(self, rows: Integers) -> Integers:
        """Tokens of some rows of the cache."""
        place = self._place(rows)
        offsets = self.offsets["token"]
        return offsets[place + 1] - offsets[place]

    def counts(self, rows: Integers) -> Integers:
        """Kept positions of some rows of the cache; zeros where the block has none."""
        if "position" not in self.offsets:
            return np.zeros(len(rows), np.int64)
        place = self._place(rows)
        offsets = self.offsets["position"]
        return offsets[place + 1] - offsets[place]

    def take(self, rows: Integers) -> "Block":
        """Some rows as a block of their own, on the same device; nothing waits for the device."""
        place = self._place(rows)
        device = next(iter(self.tensors.values())).device
        index = {"row": torch.from_numpy(place).to(device, non_blocking=True)}
        offsets = {}
        for axis, begin in self.offsets.items():
            counts = begin[place + 1] - begin[place]
            offsets[axis] = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
            index[axis] = ragged_index(begin[place], counts, device)
        tensors = {name: tensor.index_select(0, index[axis_of(name)]) for name, tensor in self.tensors.items()}
        return Block(rows, offsets, tensors, self.constants)

    def to(self, device: torch.device, pin: bool = False) -> "Block":
        """The block on another device; from pinned memory the copy does not wait."""
        if device == next(iter(self.tensors.values())).device:
            return self
        tensors = {
            name: (tensor.pin_memory() if pin else tensor).to(device, non_blocking=pin)
            for name, tensor in self.tensors.items()
        }
        constants = {name: tensor.to(device, non_blocking=pin) for name, tensor in self.constants.items()}
        return Block(self.rows, self.offsets, tensors, constants)

    def _place(self, rows: Integers) -> Integers:
        return self._order[np.searchsorted(self.rows, rows, sorter=self._order)]

    @cached_property
    def _order(self) -> Integers:
        return np.argsort(self.rows, kind="stable")


def ragged_index(begin: Integers, counts: Integers, device: torch.device) -> Tensor:
    """Places of the entries of some rows in a flat array: ``begin[i] ... begin[i] + counts[i]``, row after row."""
    total = int(counts.sum())
    shift = begin - (np.cumsum(counts) - counts)
    table = torch.from_numpy(np.stack([counts, shift])).to(device, non_blocking=True)
    return torch.repeat_interleave(table[1], table[0], output_size=total) + torch.arange(total, device=device)


def concatenate(blocks: Sequence[Block]) -> Block:
    """Several blocks as one, row after row."""
    if len(blocks) == 1:
        return blocks[0]
    offsets = {}
    for axis in blocks[0].offsets:
        counts = np.concatenate([np.diff(block.offsets[axis]) for block in blocks])
        offsets[axis] = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    tensors = {name: torch.cat([block.tensors[name] for block in blocks]) for name in blocks[0].tensors}
    return Block(np.concatenate([block.rows for block in blocks]), offsets, tensors, blocks[0].constants)


def read_block(cache: Cache, shards: Iterable[int], fields: Sequence[str], layers: frozenset[int]) -> Block:
    """Read shards from the disk, verified, still encoded.

    Args:
        cache: to read from.
        shards: which of its row ranges.
        fields: ``inputs`` and whichever of ``logits`` and ``hidden`` training needs.
        layers: hidden layers to keep; the others are not decompressed.
    """
    blocks = [_read_shard(cache, shard, fields, layers) for shard in shards]
    constants = {}
    for field in fields:
        for name, array in cache.constants(field).items():
            constants[f"{field}/{name}"] = _tensor(array)
    joined = concatenate(blocks)
    return Block(joined.rows, joined.offsets, joined.tensors, constants)


def _read_shard(cache: Cache, shard: int, fields: Sequence[str], layers: frozenset[int]) -> Block:
    start, stop = cache.shards[shard]
    offsets: dict[str, Integers] = {}
    tensors: dict[str, Tensor] = {}
    for field in fields:
        names = None
        if field == "hidden":
            known = cache.manifest.shards[field][shard].arrays
            names = [name for name in known if "/" not in name or int(name[6:8]) in layers]
        arrays = cache.read(field, shard, names)
        if "row_offsets" in arrays:
            offsets["token"] = arrays.pop("row_offsets").astype(np.int64)
        if "position_offsets" in arrays:
            offsets["position"] = arrays.pop("position_offsets").astype(np.int64)
        tensors |= {f"{field}/{name}": _tensor(array) for name, array in arrays.items()}
    return Block(np.arange(start, stop), offsets, tensors, {})


def _tensor(array: NDArray[np.generic]) -> Tensor:
    """Unsigned 16-bit as signed bits: torch can move them about but computes little in uint16."""
    return torch.from_numpy(array.view(np.int16) if array.dtype == np.uint16 else array)
