"""Reading of shards on disk as encoded blocks in host memory, verified on the way and never decoded here."""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hskcache import processes
from hskcache.cache import Cache, check_positions, row_offsets
from hskcache.errors import DamageError
from hskcache.ragged import Integers
from hskcache.store.fields import INPUTS, OFFSETS, check_words
from hskcache.store.targets import places_of_targets
from trainer.loading.block import ROW, TOKEN, Block, StoredRows, axis_of, joined
from trainer.loading.kinds import LOADED
from trainer.loading.kinds.abc import AskedRows
from trainer.loading.spool import RecordSpool, spool_of

# A row's number in the data: it is its place in the cache too, which the loader knows without reading it. Nothing is
# learned from whose copy a row is, or from its text but by way of its tokens.
_UNUSED = frozenset({"row_ids", "copies", "origins", "text", "text_offsets", "text_splits", "documents"})
_IDS, _POSITIONS, _ANSWER = f"{INPUTS}/input_ids", f"{INPUTS}/positions", f"{INPUTS}/position"
_MOST_THREADS = 4


@dataclass(frozen=True)
class Reader:
    """Reader of the parts of a cache that training needs.

    Attributes:
        cache: an open cache.
        fields: ``inputs`` and whichever others training needs.
        layers: by field, the teacher layers among its own; the others are not even decompressed.
        num_shards: how many are read at most, from the first one on.
        num_tokens: token ids that are known, counted from 0; None: all.
        is_resident: whether rows are in the form that the host decodes epoch after epoch, see ``LoadedKind.resident``.
        spool_bytes: that shards may take in a file, decompressed, once they were read; see
            :mod:`~trainer.loading.spool`.
    """

    cache: Cache
    fields: tuple[str, ...]
    layers: Mapping[str, Collection[int]]
    num_shards: int
    num_tokens: int | None = None
    is_resident: bool = False
    spool_bytes: int = 0
    _kept: dict[int, Block] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def num_bytes(self) -> int:
        """Bytes of everything in memory, encoded."""
        if self.num_shards < len(self.cache.shards):
            return sum(self._shard_bytes(field, shard) for field in self.fields for shard in range(self.num_shards))
        stored = {field: self.cache.manifest.shards[field].array_bytes for field in self.fields}
        return sum(
            size for field, sizes in stored.items() for name, size in sizes.items() if self._is_wanted(field, name)
        )

    def read(self, shards: Iterable[int], before: Block | None = None) -> Block:
        """Encoded rows of some shards, behind those of a block.

        Where training leaves cores alone, several shards are decompressed at a time.

        Raises:
            DamageError: a shard is not what was written.
            CacheError: it is far away and cannot be fetched.
        """
        shards = list(shards)
        self.ahead(shards)
        pieces: list[StoredRows | Block] = [] if before is None else [before]
        return joined([*pieces, *self._found(shards)])

    def ahead(self, shards: Iterable[int]) -> None:
        """Tell the cache that some shards will be read soon, in this order; what is far away is fetched meanwhile."""
        names = {field: list(self._names(field, 0)) for field in self.fields}
        missing = [shard for shard in shards if shard not in self._kept]
        self.cache.ahead(((field, shard) for shard in missing for field in self.fields), names)

    def constants(self) -> dict[str, Tensor]:
        """``field/array`` -> what all rows share: columns or principal components.

        Raises:
            DamageError: they are not what was written.
        """
        return {
            f"{field}/{name}": torch.from_numpy(array)
            for field in self.fields
            for name, array in self.cache.constants(field).items()
            if self._is_wanted(field, name)
        }

    @property
    def _has_language(self) -> bool:
        return self.cache.manifest.request.data.problem == "language"

    @cached_property
    def _spool(self) -> RecordSpool | None:
        return spool_of(self.spool_bytes)

    def _found(self, shards: Collection[int]) -> Iterator[StoredRows | Block]:
        """Rows of each shard, from the spool those that are there; the others go there as long as there is room."""
        missing = [shard for shard in shards if shard not in self._kept]
        num_threads = min(_MOST_THREADS, len(missing), (os.cpu_count() or 1) // (2 * processes.local_count()))
        if num_threads > 1:
            with ThreadPoolExecutor(num_threads, thread_name_prefix="hskcache-shards") as pool:
                read = dict(zip(missing, pool.map(self._read, missing), strict=True))
        else:
            read = {shard: self._read(shard) for shard in missing}
        for shard in shards:
            if shard in self._kept:
                yield self._kept[shard]
            elif self._spool is None or self._spool.is_full:
                yield read.pop(shard)
            else:
                block = joined([read.pop(shard)])
                if (kept := self._spool.keep(block)) is not None:
                    self._kept[shard] = kept
                yield block

    def _read(self, shard: int) -> StoredRows:
        offsets: dict[str, Integers] = {}
        found: dict[str, NDArray[Any]] = {}
        axes: dict[str, str] = {}
        for name in self.fields:
            field = self.cache.fields[name]
            arrays = self.cache.read(name, shard, list(self._names(name, shard)))
            if name == INPUTS and self._has_language:
                arrays |= answered(arrays.pop("targets", None), arrays["row_offsets"])
            self._check(name, shard, arrays, None if name == INPUTS else _asked(found, offsets))
            stored = {key: arrays.pop(key).astype(np.int64) for key in OFFSETS & arrays.keys()}
            if self.is_resident and name != INPUTS:
                arrays = dict(LOADED[field.kind].resident(field, arrays))
            for key, array in arrays.items():
                axis = axes[f"{name}/{key}"] = axis_of(name, field, key)
                if axis != ROW and axis not in offsets:
                    divided = row_offsets(field, key, stored)
                    assert divided is not None
                    offsets[axis] = divided
                found[f"{name}/{key}"] = array
        return StoredRows(np.arange(*self.cache.shards[shard]), offsets, found, axes)

    def _check(
        self,
        name: str,
        shard: int,
        arrays: Mapping[str, NDArray[Any]],
        rows: AskedRows | None,
    ) -> None:
        """Raise unless the student can look up what a shard points at; ``rows``: of the shard, None of the inputs."""
        try:
            if rows is not None:
                field = self.cache.fields[name]
                check_positions(arrays, np.diff(rows.offsets))
                check_words(field, arrays, rows.position_offsets)
                LOADED[field.kind].check(field, arrays, rows, self.cache.constants(name))
                return
            check_positions(arrays, np.diff(arrays["row_offsets"]))
            if self.num_tokens is not None and arrays["input_ids"].max(initial=0) >= self.num_tokens:
                largest = arrays["input_ids"].max()
                raise DamageError(f"token id {largest} is none of the {self.num_tokens} that the student knows")
        except DamageError as error:
            raise DamageError(f"{name} shard {shard} of {self.cache.name}: {error}; fetch or build it again") from None

    def _shard_bytes(self, field: str, shard: int) -> int:
        arrays = self.cache.manifest.shards[field][shard].arrays
        return sum(info.memory_bytes for name, info in arrays.items() if self._is_wanted(field, name))

    def _names(self, field: str, shard: int) -> Iterator[str]:
        names = self.cache.manifest.shards[field][shard].arrays
        return (name for name in names if self._is_wanted(field, name))

    def _is_wanted(self, field: str, name: str) -> bool:
        group, slash, _ = name.partition("/")
        return int(group.removeprefix("layer_")) in self.layers[field] if slash else name not in _UNUSED


def _asked(found: Mapping[str, NDArray[Any]], offsets: Mapping[str, Integers]) -> AskedRows:
    return AskedRows(found[_IDS], offsets[TOKEN], found.get(_POSITIONS), offsets.get(_ANSWER))


def answered(targets: NDArray[Any] | None, offsets: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Positions in each row whose next token is to be predicted, and where those of each row begin.

    Args:
        targets: 1 of each token that is to be predicted, uint8; None: all but the first of each row are.
        offsets: where the tokens of each row begin.
    """
    tokens = places_of_targets(targets, offsets)
    begin = np.searchsorted(tokens, offsets)
    positions = tokens - np.repeat(offsets[:-1], np.diff(begin)) - 1
    return {"positions": positions.astype(np.uint16), "position_offsets": begin.astype(np.int64)}
