"""The loader: a cache as an iterable of decoded batches."""

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

from hskcache.cache import AttentionField, Cache, HiddenField
from hskcache.errors import MismatchError
from trainer.batch import Batch
from trainer.loading.block import TOKEN, Block
from trainer.loading.decode import Decoder, Sizes
from trainer.loading.ordered import Ordered, Part
from trainer.loading.plan import Integers, Plan, Window
from trainer.loading.prefetch import Encoded, prefetched
from trainer.loading.reader import Reader
from trainer.loading.residency import Residency, choose, streamed_windows
from trainer.loading.targets import AttentionDecoder, HiddenDecoder

# The fields that a batch has room for.
_FIELDS = ("logits", "hidden", "attention")


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
        attention_layers: layers of attention scores to load, likewise.
        num_rows: to train on the first rows alone; None: on all.
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
    attention_layers: tuple[int, ...] | None = None
    num_rows: int | None = None
    prefetch: int = 2
    reader: Reader = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.device = torch.device(self.device)
        self._plan = self.order(first_shards(self.cache, self.num_rows))
        self.fields = self._known_fields()
        self.layers = self._known_layers("hidden", "hidden layer", self.layers)
        self.attention_layers = self._known_layers("attention", "attention of layer", self.attention_layers)
        layers = {"hidden": self.layers, "attention": self.attention_layers}
        names = [name for name in self.fields if layers.get(name) != ()]
        self.reader = Reader(self.cache, ("inputs", *names), layers, len(self._plan.shards))
        self.residency = choose(self.residency, self.reader.num_bytes, self.device)

    @property
    def plan(self) -> Plan:
        """The order of every epoch."""
        return self._plan

    @property
    def identity(self) -> str:
        """The cache id, and how many of its rows where not all."""
        return rows_identity(self.cache.id, self.num_rows)

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
        block = self.reader.read(range(len(self._plan.shards)))
        return block.to(self.device) if self.residency == "device" else block

    @cached_property
    def _decoder(self) -> Decoder:
        constants = {name: tensor.to(self.device) for name, tensor in self.reader.constants().items()}
        hidden, attention = (self.cache.fields.get(name) for name in ("hidden", "attention"))
        return Decoder(
            pad_token_id=self.cache.manifest.request.tokenizer.pad_token_id,
            hidden=HiddenDecoder("hidden", hidden, self.layers, constants)
            if isinstance(hidden, HiddenField) and self.layers
            else None,
            attention=AttentionDecoder("attention", attention, self.attention_layers)
            if isinstance(attention, AttentionField) and self.attention_layers
            else None,
        )

    def _known_fields(self) -> tuple[str, ...]:
        stored = tuple(name for name in _FIELDS if name in self.cache.fields)
        for name in self.fields or ():
            if name not in stored:
                raise MismatchError(f"{self.cache.root} has no field {name} to load; it has {', '.join(stored)}")
        return stored if self.fields is None else self.fields

    def _known_layers(self, name: str, what: str, wanted: tuple[int, ...] | None) -> tuple[int, ...]:
        assert self.fields is not None
        field = self.cache.fields.get(name) if name in self.fields else None
        stored = tuple(field.layers) if isinstance(field, HiddenField | AttentionField) else ()
        for layer in wanted or ():
            if layer not in stored:
                kept = ", ".join(map(str, stored)) or "none"
                raise MismatchError(f"the cache has no {what} {layer}; it keeps {kept}: rebuild it with that layer")
        return stored if wanted is None else wanted


def _measured(item: tuple[Window, Block | None]) -> tuple[Window, Block | None, Integers]:
    window, block = item
    return window, block, np.zeros(0, np.int64) if block is None else block.counts(TOKEN, window.rows)


def _encoded(part: Part[Block]) -> Encoded:
    block, rows, whole, weight = part
    positions, attended = (block.counts(f"{name}/position", whole) for name in ("hidden", "attention"))
    sizes = Sizes(len(whole), int(positions.sum()), int((attended * attended).sum()), weight)
    return Encoded(block.take(rows), sizes)


def rows_identity(cache_id: str, num_rows: int | None) -> str:
    """What names the rows of a cache that are trained on: its id, and their number where they are not all."""
    return cache_id if num_rows is None else f"{cache_id}[:{num_rows}]"


def first_shards(cache: Cache, num_rows: int | None) -> list[tuple[int, int]]:
    """Row ranges of the shards, as far as they lie within the first rows.

    Raises:
        MismatchError: the cache has no such number of rows.
    """
    if num_rows is None:
        return cache.shards
    if not 1 <= num_rows <= cache.num_rows:
        raise MismatchError(
            f"the first {num_rows} rows are asked for and {cache.root} has {cache.num_rows}; give 1 to {cache.num_rows}"
        )
    return [(start, min(stop, num_rows)) for start, stop in cache.shards if start < num_rows]
