"""The loader: a cache as an iterable of decoded batches."""

from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

from hskcache.cache import AttentionField, Cache, Field, HiddenField
from hskcache.errors import MismatchError
from trainer.batch import Batch
from trainer.loading.block import TOKEN, Block
from trainer.loading.choice import choice_of, identity_of, resolved
from trainer.loading.decode import Decoder, Sizes
from trainer.loading.ordered import Ordered, Part
from trainer.loading.plan import Integers, Window
from trainer.loading.prefetch import Encoded, prefetched
from trainer.loading.reader import Reader
from trainer.loading.residency import Residency, choose, streamed_windows
from trainer.loading.targets import AttentionDecoder, HiddenDecoder, LogitsDecoder


@dataclass
class KnowledgeLoader(Ordered[Block]):
    """Batches of a cache in seeded order; each pass over it is one epoch. See :class:`Ordered` for the order.

    ``for batch in KnowledgeLoader(open_cache(path), batch_size=32): ...`` is all a training loop needs.

    Attributes:
        cache: an open cache.
        residency: ``device`` holds the encoded cache in device memory, ``host`` in host memory, ``stream`` reads a
            window of shards at a time; ``auto`` chooses by size. Batches are the same in all of them.
        fields: names of the fields to load beside the inputs, at most one of hidden states and one of attention; None
            loads the cache's own, without those that were added to it.
        weights: by name, how much each of several logits fields counts in their mean, see
            :class:`~trainer.loading.choice.Choice`; empty: all alike.
        layers: hidden layers to load; None loads all that are stored.
        attention_layers: layers of attention scores to load, likewise.
        num_rows: to train on the first rows alone; None: on all. Rows that a field of ``fields`` left out, as the
            teacher gave values that are not finite, are in no epoch either way.
        prefetch: batches prepared ahead by a thread; 0 prepares them in the calling thread.
        num_tokens: token ids that the student knows: a shard with others is refused, where a look into the student's
            table would end the process; None: whatever comes.

    Raises:
        MismatchError: the cache lacks a field or a layer asked for, or the logits are of several widths.
        SpecError: a count below 1, an unknown residency, fields or weights that cannot go together.
        DamageError: while iterating, when a shard is damaged; nothing damaged is ever handed out.
    """

    cache: Cache
    residency: Residency = "auto"
    fields: tuple[str, ...] | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    layers: tuple[int, ...] | None = None
    attention_layers: tuple[int, ...] | None = None
    num_rows: int | None = None
    prefetch: int = 2
    num_tokens: int | None = None
    reader: Reader = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.device = torch.device(self.device)
        shards = first_shards(self.cache, self.num_rows)
        self.fields = resolved(self.cache).names if self.fields is None else self.fields
        self._choice = choice_of(self.cache, self.fields, self.weights)
        self.layers = self._known_layers("hidden", "hidden layer", self.layers)
        self.attention_layers = self._known_layers("attention", "attention of layer", self.attention_layers)
        layers = {
            name: kept
            for kind, kept in (("hidden", self.layers), ("attention", self.attention_layers))
            for name in self._choice.of(kind)
        }
        names = [name for name in self.fields if layers.get(name) != ()]
        self._plan = self.order(shards, self.cache.skipped(names).tolist())
        self.reader = Reader(self.cache, ("inputs", *names), layers, len(self._plan.shards), self.num_tokens)
        self.residency = choose(self.residency, self.reader.num_bytes, self.device)

    @cached_property
    def identity(self) -> str:
        """Name of the knowledge, whichever fields of it are loaded: :func:`~trainer.loading.choice.identity_of`."""
        return identity_of(self.cache, self._choice, self.num_rows)

    def windows(self, epoch: int, skip: int) -> Iterator[tuple[Window, Block | None, Integers]]:
        """Windows of an epoch with encoded rows, from memory or from the disk one window ahead."""
        if self.residency == "stream":
            return map(_measured, streamed_windows(self.reader, self.plan, epoch, skip))
        return map(_measured, ((window, self._resident) for window in self.plan.windows(epoch)))

    def produce(self, parts: Generator[Part[Block], None, None]) -> Generator[Batch, None, None]:
        """Select encoded rows, bring them to the device, decode them there."""
        assert isinstance(self.device, torch.device)
        ahead = 0 if self.residency == "device" else self.prefetch
        with closing(parts), closing(prefetched(map(self._encoded, parts), self.device, ahead)) as items:
            for block, sizes in items:
                yield self._decoder.decode(block, sizes)

    @cached_property
    def _resident(self) -> Block:
        assert isinstance(self.device, torch.device)
        block = self.reader.read(range(len(self._plan.shards)))
        return block.to(self.device) if self.residency == "device" else block

    @cached_property
    def _decoder(self) -> Decoder:
        assert self.layers is not None
        assert self.attention_layers is not None
        constants = {name: tensor.to(self.device) for name, tensor in self.reader.constants().items()}
        (hidden_name, hidden), (attention_name, attention) = self._field("hidden"), self._field("attention")
        return Decoder(
            pad_token_id=self.cache.manifest.request.tokenizer.pad_token_id,
            logits=LogitsDecoder(self._choice.logits) if self._choice.logits else None,
            hidden=HiddenDecoder(hidden_name, hidden, self.layers, constants)
            if isinstance(hidden, HiddenField) and self.layers
            else None,
            attention=AttentionDecoder(attention_name, attention, self.attention_layers)
            if isinstance(attention, AttentionField) and self.attention_layers
            else None,
        )

    def _encoded(self, part: Part[Block]) -> Encoded:
        block, rows, whole, weight = part
        axes = [f"{self._field(kind)[0]}/position" for kind in ("hidden", "attention")]
        positions, attended = (block.counts(axis, whole) for axis in axes)
        sizes = Sizes(len(whole), int(positions.sum()), int((attended * attended).sum()), weight)
        return Encoded(block.take(rows), sizes)

    def _field(self, kind: str) -> tuple[str, Field | None]:
        """The name of the field of hidden states or attention, and what it stores; empty and None without one."""
        name = next(iter(self._choice.of(kind)), "")
        return name, self.cache.fields.get(name)

    def _known_layers(self, kind: str, what: str, wanted: tuple[int, ...] | None) -> tuple[int, ...]:
        name, field = self._field(kind)
        stored = tuple(field.layers) if isinstance(field, HiddenField | AttentionField) else ()
        for layer in wanted or ():
            if layer not in stored:
                kept = ", ".join(map(str, stored)) or "none"
                where = f"field {name}" if name in self.cache.manifest.added else "the cache"
                raise MismatchError(f"{where} has no {what} {layer}; it keeps {kept}: rebuild it with that layer")
        return stored if wanted is None else wanted


def _measured(item: tuple[Window, Block | None]) -> tuple[Window, Block | None, Integers]:
    window, block = item
    return window, block, np.zeros(0, np.int64) if block is None else block.counts(TOKEN, window.rows)


def first_shards(cache: Cache, num_rows: int | None) -> list[tuple[int, int]]:
    """Row ranges of the shards, as far as they lie within the first rows.

    Raises:
        MismatchError: the cache has no such number of rows.
    """
    if num_rows is None:
        return cache.shards
    if not 1 <= num_rows <= cache.num_rows:
        raise MismatchError(
            f"the first {num_rows} rows are asked for and {cache.name} has {cache.num_rows}; give 1 to {cache.num_rows}"
        )
    return [(start, min(stop, num_rows)) for start, stop in cache.shards if start < num_rows]
