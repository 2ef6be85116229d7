"""The loader: a cache as an iterable of decoded batches."""

from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch

from hskcache.cache import Cache
from hskcache.counted import counted
from hskcache.errors import MismatchError, SpecError
from hskcache.nearest import meant
from hskcache.store.fields import INPUTS
from hskcache.store.request import Request
from hskcache.store.row_ranges import RowRanges
from hskcache.store.shelf import Directory
from trainer.batch import Batch
from trainer.loading.block import TOKEN, Block
from trainer.loading.choice import choice_of, identity_of, resolved
from trainer.loading.decode import BatchDecoder, EncodedPool, Sizes
from trainer.loading.kinds import LOADED
from trainer.loading.kinds.abc import StoredTargets
from trainer.loading.ordered import Ordered, SliceRows, WindowSlices
from trainer.loading.plan import Integers, Window
from trainer.loading.prefetch import prefetched
from trainer.loading.reader import Reader
from trainer.loading.residency import Residency, choose, streamed_windows
from trainer.loading.tokens import TokenLoader

_POOL_BYTES = 2 << 20


@dataclass
class KnowledgeLoader(Ordered[Block, Batch]):
    """Batches of a cache in seeded order; each pass over it is one epoch. See :class:`Ordered` for the order.

    ``for batch in KnowledgeLoader(open_cache(path), batch_size=32): ...`` is all a training loop needs.

    Attributes:
        cache: an open cache.
        residency: ``device`` holds the encoded cache in device memory, ``host`` in host memory, ``stream`` reads a
            window of shards at a time, in the first epoch from the cache and later, of a cache in a folder of this
            machine, from a file without a name in the temporary folder, as far as a tenth of its free space allows;
            ``auto`` chooses by size. Batches are the same in all of them.
        fields: names of the fields to load beside the inputs, at most one of hidden states and one of attention; None
            loads the cache's own, without those that were added to it.
        weights: by name, how much each of several logits fields counts in their mean, see
            :class:`~trainer.loading.choice.Choice`; empty: all alike.
        layers: by kind, such as ``{"hidden": (6,)}``, the layers to load; of a kind that is not there all that are
            stored, and of a kind with none of them nothing.
        num_rows: to train on the first rows alone; None: on all. Rows that a field of ``fields`` left out, as the
            teacher gave values that are not finite, are in no epoch either way.
        prefetch: pools of batches prepared ahead by a thread; 0 prepares them in the calling thread. A pool is as many
            batches as ``_POOL_BYTES`` hold encoded, at least one: they are selected, sent and decoded together.
        unit: ``row``; ``token`` makes a :class:`~trainer.loading.tokens.TokenLoader` of the other arguments.
        pack: tokens of a sequence at most in which the rows of a batch stand behind one another, told apart by
            ``position_ids`` that begin anew, in the place of an ``attention_mask``; None: each in one of its own.
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
    layers: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    num_rows: int | None = None
    prefetch: int = 2
    num_tokens: int | None = None
    pack: int | None = None
    unit: Literal["row", "token"] = "row"
    reader: Reader = field(init=False, repr=False)

    def __new__(cls, *args: Any, unit: str = "row", **given: Any) -> Any:
        """A loader of rows, or of tokens. Raises SpecError for another unit."""
        if unit == "row":
            return super().__new__(cls)
        if unit != "token":
            raise SpecError(f"unit {unit!r} is none of row and token{meant(unit, ('row', 'token'))}")
        return TokenLoader(**dict(zip(("cache",), args, strict=True)), **given)

    def __post_init__(self) -> None:
        self.device = torch.device(self.device)
        shards = first_shards(self.cache, self.num_rows)
        self.fields = resolved(self.cache).names if self.fields is None else self.fields
        self._choice = choice_of(self.cache, self.fields, self.weights)
        self.layers = {kind: self._known_layers(kind) for kind, one in LOADED.items() if one.of_layer}
        layers = {name: kept for kind, kept in self.layers.items() for name in self._choice.of(kind)}
        names = [name for name in self.fields if layers.get(name) != ()]
        self._plan = self.order(shards, self.cache.skipped(names).tolist())
        self.reader = Reader(self.cache, (INPUTS, *names), layers, len(self._plan.shards), self.num_tokens)
        if self.pack is not None:
            check_pack(self.pack, self.cache.manifest.request, self.cache.name)
        self.residency = choose(self.residency, self.reader.num_bytes, self.device)
        # What is far away may fill no more of this machine's disk than whoever opened the cache allows.
        spools = self.residency == "stream" and isinstance(self.cache.shelf, Directory)
        self.reader = replace(
            self.reader,
            is_resident=self.device.type == "cpu" and (spools or self.residency != "stream"),
            spool_bytes=2 * self.reader.num_bytes if spools else 0,
        )

    @cached_property
    def identity(self) -> str:
        """Name of the knowledge, whichever fields of it are loaded: :func:`~trainer.loading.choice.identity_of`."""
        return identity_of(self.cache, self._choice, self.num_rows)

    def windows(self, epoch: int, skip: int) -> Iterator[tuple[Window, Block, Integers]]:
        """Windows of an epoch with encoded rows, from memory or from the disk one window ahead."""
        if self.residency == "stream":
            return map(_measured, streamed_windows(self.reader, self.plan, epoch, skip))
        return map(_measured, ((window, self._resident) for window in self.plan.windows(epoch, skip)))

    def produce(self, windows: Generator[WindowSlices[Block], None, None]) -> Generator[Batch, None, None]:
        """Select encoded rows, bring them to the device, decode them there."""
        assert isinstance(self.device, torch.device)
        ahead = 0 if self.residency == "device" else self.prefetch
        with closing(windows), closing(prefetched(self._pools(windows), self.device, ahead)) as pools:
            for pool in pools:
                yield from self._decoder.decode(pool)

    @cached_property
    def _resident(self) -> Block:
        assert isinstance(self.device, torch.device)
        block = self.reader.read(range(len(self._plan.shards)))
        return block.to(self.device) if self.residency == "device" else block

    @cached_property
    def _decoder(self) -> BatchDecoder:
        constants = {name: tensor.to(self.device) for name, tensor in self.reader.constants().items()}
        targets = {}
        for kind in self._loaded:
            weights = self._choice.weights[kind]
            field = self.cache.fields[next(iter(weights))]
            targets[kind] = LOADED[kind].decoder(StoredTargets(weights, field, self.layers.get(kind, ()), constants))
        return BatchDecoder(self.cache.manifest.request.tokenizer.pad_token_id, targets, self.pack)

    @property
    def _loaded(self) -> list[str]:
        """The kinds that are loaded: those of a field, with a layer of it where there are layers."""
        return [kind for kind in LOADED if self._choice.of(kind) and self.layers.get(kind) != ()]

    def _pools(self, windows: Iterator[WindowSlices[Block]]) -> Iterator[EncodedPool]:
        """Slices of a window, as many together as ``_POOL_BYTES`` hold, but at least one."""
        for block, slices in windows:
            rows = np.concatenate([part.rows for part in slices])
            ends = np.cumsum([len(part.rows) for part in slices]) - 1
            pool_of = np.cumsum(block.num_row_bytes(rows))[ends] // _POOL_BYTES
            for cut in np.split(np.arange(len(slices)), np.flatnonzero(np.diff(pool_of)) + 1):
                yield self._encoded(block, slices[cut[0] : cut[-1] + 1])
            # Before the next window is asked for, this one must be gone.
            del block

    def _encoded(self, block: Block, slices: list[SliceRows]) -> EncodedPool:
        wholes = np.concatenate([part.whole for part in slices])
        starts = np.cumsum([len(part.whole) for part in slices])[:-1]
        totals: list[dict[str, int]] = [{} for _ in slices]
        axes = {kind: f"{self._choice.of(kind)[0]}/{LOADED[kind].axis}" for kind in self._loaded if LOADED[kind].axis}
        # What words are answered for is divided by their number.
        for kind, axis in {INPUTS: f"{INPUTS}/position", **axes}.items():
            if axis in block.offsets:
                counts = block.counts(axis, wholes)
                for own, part in zip(totals, np.split(counts, starts), strict=True):
                    own[kind] = int(part.sum()) if kind == INPUTS else LOADED[kind].total(part)
        sizes = [
            Sizes(len(part.rows), len(part.whole), own, part.weight) for part, own in zip(slices, totals, strict=True)
        ]
        assert isinstance(self.device, torch.device)
        pin = self.device.type == "cuda" and self.residency != "device"
        return self._decoder.pool(block, np.concatenate([part.rows for part in slices]), sizes, pin)

    def _known_layers(self, kind: str) -> tuple[int, ...]:
        """The layers of a kind that are loaded."""
        name, wanted = next(iter(self._choice.of(kind)), ""), self.layers.get(kind)
        stored = tuple(self.cache.fields[name].stored_layers) if name else ()
        for layer in wanted or ():
            if layer not in stored:
                known = ", ".join(map(str, stored)) or "none"
                where = f"field {name}" if name in self.cache.manifest.added else "the cache"
                raise MismatchError(
                    f"{where} has no {LOADED[kind].of_layer} {layer}; it keeps {known}: rebuild it with that layer"
                )
        return stored if wanted is None else tuple(layer for layer in stored if layer in wanted)


def check_pack(pack: int, request: Request, where: str) -> None:
    """Raise SpecError unless rows of a cache, by its request, may share sequences of ``pack`` tokens."""
    if request.data.problem != "language":
        raise SpecError(
            f"rows of {where} are read from both sides, or answered for as a whole; --pack is for rows of causal "
            "language models: leave it out"
        )
    if pack < (most := request.spec.max_length):
        raise SpecError(f"rows of {where} have up to {counted(most, 'token')}, more than --pack {pack}; give {most}")


def _measured(item: tuple[Window, Block]) -> tuple[Window, Block, Integers]:
    window, block = item
    return window, block, block.counts(TOKEN, window.rows)


def first_shards(cache: Cache, num_rows: int | None) -> RowRanges:
    """Row ranges of the shards, as far as they lie within the first rows.

    Raises:
        MismatchError: the cache has no such number of rows.
    """
    if num_rows is None:
        return cache.shards
    if not 1 <= num_rows <= cache.num_rows:
        raise MismatchError(
            f"the first {counted(num_rows, 'row')} are asked for and {cache.name} has {cache.num_rows}; give "
            f"1 to {cache.num_rows}"
        )
    return cache.shards.first(num_rows)
