"""The loader: a cache as an iterable of decoded batches."""

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

from hskcache.cache import Cache, HiddenField
from hskcache.errors import MismatchError
from trainer.batch import Batch
from trainer.loading.block import Block
from trainer.loading.decode import Decoder, Sizes
from trainer.loading.ordered import Ordered, Part
from trainer.loading.plan import Integers, Plan, Window
from trainer.loading.prefetch import Encoded, prefetched
from trainer.loading.reader import Reader
from trainer.loading.residency import Residency, choose, streamed_windows


@dataclass
class KnowledgeLoader(Ordered[Block]):
    """Batches of a cache in seeded order; each pass over it is one epoch. See :class:`Ordered` for the order.

    ``for batch in KnowledgeLoader(open_cache(path), batch_size=32): ...`` is all a training loop needs.

    Attributes:
        cache: an open cache.
        residency: ``device`` holds the encoded cache in device memory, ``host`` in host memory, ``stream`` reads a
            window of shards at a time; ``auto`` chooses by size. Batches are the same in all of them.
        fields: what to load beside the inputs; None loads all that the cache has.
        layers: hidden layers to load; None loads all that are stored.
        prefetch: batches prepared ahead by a thread; 0 prepares them in the calling thread.

    Raises:
        MismatchError: the cache lacks a field or a layer asked for.
        SpecError: a count below 1, or an unknown residency.
        DamageError: while iterating, when a shard is damaged; nothing damaged is ever handed out.
    """

    cache: Cache
    residency: Residency = "auto"
    fields: tuple[str, ...] | None = None
    layers: tuple[int, ...] | None = None
    prefetch: int = 2
    reader: Reader = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.device = torch.device(self.device)
        self._plan = self.order(self.cache.shards)
        self.fields = self._known_fields()
        self.layers = self._known_layers()
        names = [name for name in self.fields if name != "hidden" or self.layers]
        self.reader = Reader(self.cache, ("inputs", *names), frozenset(self.layers))
        self.residency = choose(self.residency, self.reader.num_bytes, self.device)

    @property
    def plan(self) -> Plan:
        """The order of every epoch."""
        return self._plan

    @property
    def identity(self) -> str:
        """The cache id."""
        return self.cache.id

    def windows(self, epoch: int, skip: int) -> Iterator[tuple[Window, Block | None, Integers]]:
        """Windows of an epoch with encoded rows, from memory or from the disk one window ahead."""
        if self.residency == "stream":
            return map(_measured, streamed_windows(self.reader, self.plan, epoch, skip))
        return map(_measured, ((window, self._resident) for window in self.plan.windows(epoch)))

    def produce(self, parts: Generator[Part[Block], None, None]) -> Generator[Batch, None, None]:
        """Select encoded rows, bring them to the device, decode them there."""
        assert isinstance(self.device, torch.device)
        ahead = 0 if self.residency == "device" else self.prefetch
        with closing(parts), closing(prefetched(map(_encoded, parts), self.device, ahead)) as items:
            for block, sizes in items:
                yield self._decoder.decode(block, sizes)

    @cached_property
    def _resident(self) -> Block:
        assert isinstance(self.device, torch.device)
        block = self.reader.read(range(len(self.cache.shards)))
        return block.to(self.device) if self.residency == "device" else block

    @cached_property
    def _decoder(self) -> Decoder:
        assert self.layers is not None
        constants = {name: tensor.to(self.device) for name, tensor in self.reader.constants().items()}
        pad_token_id = self.cache.manifest.request.tokenizer.pad_token_id
        return Decoder(self._hidden, self.layers, pad_token_id, constants)

    @property
    def _hidden(self) -> HiddenField | None:
        stored = self.cache.fields.get("hidden")
        return stored if isinstance(stored, HiddenField) else None

    def _known_fields(self) -> tuple[str, ...]:
        stored = tuple(name for name in ("logits", "hidden") if name in self.cache.fields)
        for name in self.fields or ():
            if name not in stored:
                raise MismatchError(f"{self.cache.root} has no field {name} to load; it has {', '.join(stored)}")
        return stored if self.fields is None else self.fields

    def _known_layers(self) -> tuple[int, ...]:
        assert self.fields is not None
        stored = tuple(self._hidden.layers) if self._hidden is not None and "hidden" in self.fields else ()
        for layer in self.layers or ():
            if layer not in stored:
                kept = ", ".join(map(str, stored)) or "none"
                raise MismatchError(
                    f"the cache has no hidden layer {layer}; it keeps {kept}: rebuild it with that layer"
                )
        return stored if self.layers is None else self.layers


def _measured(item: tuple[Window, Block | None]) -> tuple[Window, Block | None, Integers]:
    window, block = item
    return window, block, np.zeros(0, np.int64) if block is None else block.lengths(window.rows)


def _encoded(part: Part[Block]) -> Encoded:
    block, rows, whole, weight = part
    return Encoded(block.take(rows), Sizes(len(whole), int(block.counts(whole).sum()), weight))
