"""From shards on disk to encoded blocks in host memory, verified on the way and never decoded here."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hskcache.cache import Cache
from trainer.loading.block import Block, Integers, concatenate

# Stored arrays that divide the others into rows, by the axis that they divide.
_OFFSETS = {"row_offsets": "token", "position_offsets": "position"}
# A row's number in the data: it is its place in the cache too, which the loader knows without reading it.
_UNUSED = frozenset({"row_ids"})


@dataclass(frozen=True)
class Reader:
    """What to read of a cache.

    Attributes:
        cache: an open cache.
        fields: ``inputs`` and whichever others training needs.
        layers: hidden layers among them; the others are not even decompressed.
    """

    cache: Cache
    fields: tuple[str, ...]
    layers: frozenset[int]

    @property
    def num_bytes(self) -> int:
        """Bytes of everything in memory, encoded."""
        return sum(self._shard_bytes(shard) for shard in range(len(self.cache.shards)))

    def read(self, shards: Iterable[int]) -> Block:
        """Encoded rows of some shards.

        Raises:
            DamageError: a shard is not what was written.
        """
        return concatenate([self._read(shard) for shard in shards])

    def constants(self) -> dict[str, Tensor]:
        """``field/array`` -> what all rows share: columns or principal components.

        Raises:
            DamageError: they are not what was written.
        """
        return {
            f"{field}/{name}": _tensor(array)
            for field in self.fields
            for name, array in self.cache.constants(field).items()
            if self._is_wanted(name)
        }

    def _read(self, shard: int) -> Block:
        offsets: dict[str, Integers] = {}
        tensors: dict[str, Tensor] = {}
        for field in self.fields:
            arrays = self.cache.read(field, shard, list(self._names(field, shard)))
            for name, axis in _OFFSETS.items():
                if name in arrays:
                    offsets[axis] = arrays.pop(name).astype(np.int64)
            tensors |= {f"{field}/{name}": _tensor(array) for name, array in arrays.items()}
        return Block(np.arange(*self.cache.shards[shard]), offsets, tensors)

    def _shard_bytes(self, shard: int) -> int:
        return sum(
            int(np.prod(info.shape, dtype=np.int64)) * np.dtype(info.dtype).itemsize
            for field in self.fields
            for name, info in self.cache.manifest.shards[field][shard].arrays.items()
            if self._is_wanted(name)
        )

    def _names(self, field: str, shard: int) -> Iterator[str]:
        return filter(self._is_wanted, self.cache.manifest.shards[field][shard].arrays)

    def _is_wanted(self, name: str) -> bool:
        group, slash, _ = name.partition("/")
        return int(group.removeprefix("layer_")) in self.layers if slash else name not in _UNUSED


def _tensor(array: NDArray[np.generic]) -> Tensor:
    """Unsigned 16-bit as signed bits: torch can move them about but computes little in uint16."""
    return torch.from_numpy(array.view(np.int16) if array.dtype == np.uint16 else array)
