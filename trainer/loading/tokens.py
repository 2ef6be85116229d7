"""Single token states of a cache in seeded order, across its rows: what probes, sparse autoencoders and steering need.

The order is that of rows (``plan``), with states in their place: shards are permuted, the states of a window of shards
are mixed, and what does not fill a batch goes on into the next window.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hskcache.cache import Cache, HiddenField
from hskcache.errors import DamageError, MismatchError
from hskcache.nearest import meant
from hskcache.rows import Integers
from hskcache.store.fields import INPUTS, kind_of, layer_name
from hskcache.views.shelf import ViewShelf
from trainer.loading.ordered import Ordered, SliceRows, WindowSlices
from trainer.loading.plan import Window
from trainer.loading.states import StateDecoder


class TokenBatch(NamedTuple):
    """States of single tokens.

    Attributes:
        states_BD: float32, 0 for every column that is not kept.
        token_ids_B: int64.
        positions_B: place of each token in its row, int64.
        row_ids_B: row of the cache, int64.
        labels_B: of the row: class index int64, score float32, or a value for each class, [B, C] float32; None where
            the data has none.
        weight: 1; 0 where a state of another slice stands in, see :class:`trainer.batch.Batch`.
    """

    states_BD: Tensor
    token_ids_B: Tensor
    positions_B: Tensor
    row_ids_B: Tensor
    labels_B: Tensor | None
    weight: float = 1.0


class States(NamedTuple):
    """Encoded states of some tokens: their numbers, ascending, and by name an array with an entry each."""

    numbers: Integers
    arrays: dict[str, NDArray[Any]]

    def take(self, numbers: Integers) -> "States":
        """Those of these numbers, in their order."""
        places = np.searchsorted(self.numbers, numbers)
        return States(numbers, {name: array[places] for name, array in self.arrays.items()})


@dataclass(kw_only=True)
class TokenLoader(Ordered[States, TokenBatch]):
    """Batches of single kept states of one layer, in seeded order; each pass over it is one epoch.

    ``for batch in TokenLoader(cache=open_cache(path), layer=6, batch_size=4096): ...``. States of ``window_shards``
    shards are mixed with each other; ranks, epochs and resuming are those of :class:`Ordered`. Of the encoded cache a
    window of shards is in memory; a batch is decoded on the device.

    Attributes:
        cache: an open cache, or a view of one.
        layer: teacher layer.
        name: of the field of hidden states.

    Raises:
        MismatchError: the cache has no such field or layer.
        DamageError: while iterating, when a shard is damaged.
    """

    cache: Cache
    layer: int
    name: str = "hidden"

    def __post_init__(self) -> None:
        self.device = torch.device(self.device)
        stored = self.cache.fields.get(self.name)
        if not isinstance(stored, HiddenField):
            known = [name for name, one in self.cache.fields.items() if isinstance(one, HiddenField)]
            raise MismatchError(
                f"{self.cache.name} has no hidden states {self.name}; it has {', '.join(known) or 'none'}"
                f"{meant(self.name, known)}"
            )
        if self.layer not in stored.layers:
            raise MismatchError(f"{self.cache.name} has no hidden layer {self.layer}; it keeps {stored.layers}")
        self._field, self._ends = stored, [0, *accumulate(self._num_states())]
        self._plan = self.order(list(pairwise(self._ends)))

    @cached_property
    def identity(self) -> str:
        """Name of what the batches are made of."""
        return f"{self.cache.identity((INPUTS, self.name))} {self.name}.{self.layer} by token"

    def windows(self, epoch: int, skip: int) -> Iterator[tuple[Window, States, Integers]]:
        """Windows of an epoch with their states, and those that were carried into them."""
        held: States | None = None
        for window in self.plan.windows(epoch, skip):
            numbers = np.sort(window.carried)
            carried = self._read_states(numbers) if held is None else held.take(numbers)
            self._ahead(window.shards)
            held = _joined([carried, *map(self._read_shard, window.shards)])
            # All states are alike: there is nothing to sort by.
            yield window, held, np.zeros(len(window.rows), np.int64)

    def produce(self, windows: Generator[WindowSlices[States], None, None]) -> Generator[TokenBatch, None, None]:
        """Select encoded states, bring them to the device, decode them there."""
        assert isinstance(self.device, torch.device)
        decoder = StateDecoder(self._field, self.cache.constants(self.name), layer_name(self.layer), self.device)
        with closing(windows):
            for states, slices in windows:
                for part in slices:
                    yield self._batch(states, part, decoder)
                del states

    def _batch(self, states: States, part: SliceRows, decoder: StateDecoder) -> TokenBatch:
        arrays = states.take(part.rows).arrays
        labels = arrays.get("labels")
        numbers = [torch.from_numpy(arrays[name].astype(np.int64)) for name in ("input_ids", "positions", "row_ids")]
        ids, positions, rows = (tensor.to(decoder.device, non_blocking=True) for tensor in numbers)
        label = None if labels is None else torch.from_numpy(labels).to(decoder.device, non_blocking=True)
        return TokenBatch(decoder.states(arrays), ids, positions, rows, label, part.weight)

    def _num_states(self) -> list[int]:
        """States of each shard."""
        if not isinstance(self.cache.shelf, ViewShelf):
            positions = f"{layer_name(self.layer)}/positions"
            return [record.arrays[positions].shape[0] for record in self.cache.manifest.shards[self.name]]
        # How many positions the rows of a view have, only the shard tells.
        shards = range(len(self.cache.shards))
        return [
            int(self.cache.read(self.name, shard, ["position_offsets"])["position_offsets"][-1]) for shard in shards
        ]

    @cached_property
    def _names(self) -> dict[str, list[str]]:
        """Arrays that are read, by field."""
        stored = [name for name in kind_of(self._field).arrays(self._field) if name.startswith(layer_name(self.layer))]
        held = kind_of(self.cache.fields[INPUTS]).arrays(self.cache.fields[INPUTS])
        wanted = {"row_offsets", "input_ids", "labels"}
        return {self.name: ["position_offsets", *stored], INPUTS: [name for name in held if name in wanted]}

    def _ahead(self, shards: Sequence[int]) -> None:
        self.cache.ahead(((name, shard) for shard in shards for name in self._names), self._names)

    def _read_shard(self, shard: int) -> States:
        """The states of a shard, each with its token, row and label."""
        start, prefix, names = self.cache.shards[shard][0], f"{layer_name(self.layer)}/", self._names
        own, inputs = (self.cache.read(name, shard, names[name]) for name in (self.name, INPUTS))
        offsets = own.pop("position_offsets")
        rows = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        arrays = {name.removeprefix(prefix): array for name, array in own.items()}
        tokens = inputs["row_offsets"][rows] + arrays["positions"]
        if len(tokens) and bool((tokens >= inputs["row_offsets"][rows + 1]).any()):
            raise DamageError(f"{self.name} shard {shard} of {self.cache.name} points beyond the end of its row")
        arrays |= {"input_ids": inputs["input_ids"][tokens], "row_ids": rows + start}
        if "labels" in inputs:
            arrays["labels"] = inputs["labels"][rows]
        return States(np.arange(len(rows)) + self._ends[shard], arrays)

    def _read_states(self, numbers: Integers) -> States:
        """Some states by their numbers, which ascend, of whichever shards hold them."""
        shards = np.unique(np.searchsorted(self._ends, numbers, side="right") - 1)
        parts = [self._read_shard(shard) for shard in shards.tolist()]
        if not parts:
            return self._read_shard(0).take(numbers)
        return _joined(parts).take(numbers)


def _joined(parts: list[States]) -> States:
    """States together, ascending by their numbers."""
    numbers = np.concatenate([part.numbers for part in parts])
    order = np.argsort(numbers, kind="stable")
    arrays = {name: np.concatenate([part.arrays[name] for part in parts])[order] for name in parts[0].arrays}
    return States(numbers[order], arrays)
