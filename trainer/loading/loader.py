"""The loader: a cache as an iterable of decoded batches."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from hskcache.cache import Cache, HiddenField
from hskcache.errors import MismatchError
from trainer.batch import Batch
from trainer.loading.block import Block
from trainer.loading.decode import Decoder
from trainer.loading.ordered import Ordered
from trainer.loading.plan import Integers, Plan, Window
from trainer.loading.prefetch import Encoded, prefetched
from trainer.loading.residency import Reader, Residency, choose, streamed_windows


@dataclass
class KnowledgeLoader(Ordered[Block]):
    """Batches of a cache in seeded order; each pass over it is one epoch. See :class:`Ordered` for the order.

    Attributes:
        cache: an open cache.
        residency: ``device`` holds the encoded cache in device memory, ``host`` in host memory, ``stream`` reads a
            window of shards at a time; ``auto`` chooses by size. Batches are the same in all of them.
        fields: what to load beside the inputs, where the cache has it.
        layers: hidden layers to load; None loads all that are stored.
        prefetch: batches prepared ahead by a thread; 0 prepares them in the calling thread.

    Raises:
        MismatchError: the cache lacks a layer asked for.
        DamageError: while iterating, when a shard is damaged; nothing damaged is ever handed out.
    """

    cache: Cache
    residency: Residency = "auto"
    fields: tuple[str, ...] = ("logits", "hidden")
    layers: tuple[int, ...] | None = None
    prefetch: int = 2
    _resident: Block | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self.device = torch.device(self.device)
        manifest = self.cache.manifest
        stored = manifest.fields.get("hidden") if "hidden" in self.fields else None
        hidden = stored if isinstance(stored, HiddenField) else None
        layers = self._layers(hidden)
        self._plan = self.order(self.cache.shards)
        names = ["inputs", *(name for name in manifest.fields if name in self.fields and name != "inputs")]
        if not layers and "hidden" in names:
            names.remove("hidden")
        self.reader = Reader(self.cache, tuple(names), frozenset(layers))
        self.residency = choose(self.residency, sum(self.cache.num_bytes(name) for name in names), self.device)
        tokenizer = manifest.request.tokenizer
        self.decoder = Decoder(hidden, layers, tokenizer.pad_token_id, tokenizer.has_token_types)

    @property
    def plan(self) -> Plan:
        """The order of every epoch."""
        return self._plan

    @property
    def identity(self) -> str:
        """The cache id."""
        return self.cache.id

    def windows(self, skip: int) -> Iterator[tuple[Window, Block | None, Integers]]:
        """Windows of the current epoch with encoded rows, from memory or from the disk one window ahead."""
        nothing = np.zeros(0, np.int64)
        if self.residency == "stream":
            for window, rows in streamed_windows(self.reader, self.plan, self.epoch, skip):
                yield window, rows, nothing if rows is None else rows.lengths(window.rows)
            return
        block = self._whole()
        for window in self.plan.windows(self.epoch):
            yield window, block, block.lengths(window.rows)

    def produce(self, slices: Iterator[tuple[Block, Integers, Integers]]) -> Generator[Batch, None, None]:
        """Select encoded rows, bring them to the device, decode them there."""
        assert isinstance(self.device, torch.device)
        ahead = 0 if self.residency == "device" else self.prefetch
        taken = (Encoded(block.take(own), len(rows), int(block.counts(rows).sum())) for block, own, rows in slices)
        for item in prefetched(taken, self.device, ahead):
            yield self.decoder.decode(item.block, item.num_rows, item.num_positions)

    def _whole(self) -> Block:
        if self._resident is None:
            assert isinstance(self.device, torch.device)
            block = self.reader.read(tuple(range(len(self.cache.shards))))
            self._resident = block.to(self.device) if self.residency == "device" else block
        return self._resident

    def _layers(self, hidden: HiddenField | None) -> tuple[int, ...]:
        stored = tuple(hidden.layers) if hidden is not None else ()
        wanted = stored if self.layers is None else self.layers
        missing = [layer for layer in wanted if layer not in stored]
        if missing:
            kept = ", ".join(map(str, stored)) or "none"
            raise MismatchError(
                f"the cache has no hidden layer {missing[0]}; it keeps {kept}: rebuild it with that layer"
            )
        return wanted
