"""An iterable of batches that knows where it stands: the part that a cache and a live teacher have in common."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from hskcache.errors import MismatchError, SpecError
from trainer.loading.plan import VERSIONS, Integers, Plan, Window

Data = TypeVar("Data")
Item = TypeVar("Item")


class SliceRows(NamedTuple):
    """One slice of a global batch, before its batch is made.

    Attributes:
        rows: of this slice.
        whole: rows of the global batch.
        weight: 0 where ``rows`` only stand in, see :class:`Batch`.
    """

    rows: Integers
    whole: Integers
    weight: float


class WindowSlices(NamedTuple, Generic[Data]):
    """Slices of a window that a process takes, in order, and the data that holds their rows."""

    data: Data
    slices: list[SliceRows]


@dataclass(kw_only=True)
class Ordered(ABC, IterableDataset[Item], Generic[Data, Item]):
    """Batches in seeded order; each pass is one epoch, and a pass may begin anywhere.

    It is an ``IterableDataset`` of whole batches: ``DataLoader(loader, batch_size=None)`` hands them on. What has
    ``state_dict`` and ``load_state_dict`` is saved and restored by who trains; between batches its state is exact.

    The order depends on ``seed``, the epoch and the global batch size (``batch_size * world_size * accumulation``)
    and the shards. Every process takes its slice of each global batch, so their number does not change what is
    trained on.

    Attributes:
        batch_size: rows of one process's forward pass, at most.
        seed: of the order.
        device: where batches are decoded.
        rank, world_size: this process and their number.
        accumulation: forward passes of one optimiser step.
        window_shards: shards that are mixed with each other, at least.
        epoch, position: the current epoch, from 0, and how many of its batches have been handed out.
        changed: makes of every batch what is handed out in its place; None: the batch itself.
    """

    batch_size: int = 32
    seed: int = 0
    device: str | torch.device = "cpu"
    rank: int = 0
    world_size: int = 1
    accumulation: int = 1
    window_shards: int = 4
    epoch: int = field(default=0, init=False)
    position: int = field(default=0, init=False)
    changed: Callable[[Item], Item] | None = field(default=None, init=False, repr=False)
    _plan: Plan = field(init=False, repr=False)

    def order(self, shards: Sequence[tuple[int, int]], skipped: Sequence[int] = ()) -> Plan:
        """The plan over these row ranges.

        Args:
            shards: the ranges, [start, stop).
            skipped: rows, ascending, to leave out; those beyond the ranges are none of them.

        Raises:
            SpecError: a count below 1, or no such process.
            MismatchError: there are no rows.
        """
        if min(self.batch_size, self.world_size, self.accumulation, self.window_shards) < 1:
            raise SpecError("batch_size, world_size, accumulation and window_shards must be at least 1")
        if not 0 <= self.rank < self.world_size:
            raise SpecError(f"rank {self.rank} is none of {self.world_size} processes, which count from 0")
        left_out = tuple(row for row in skipped if row < shards[-1][1])
        plan = Plan(shards, self.batch_size * self.slices, self.seed, self.window_shards, skipped=left_out)
        if not plan.num_rows:
            why = f": all {len(left_out)} were left out of a field, as their values are not finite" if left_out else ""
            raise MismatchError(f"there are no rows to train on{why}")
        return plan

    @property
    def plan(self) -> Plan:
        """The order of every epoch."""
        return self._plan

    @property
    @abstractmethod
    def identity(self) -> str:
        """Digest of what the batches are made of."""

    @abstractmethod
    def windows(self, epoch: int, skip: int) -> Iterator[tuple[Window, Data, Integers]]:
        """Windows of an epoch with their data and the lengths of their rows, without those within ``skip`` batches."""

    @abstractmethod
    def produce(self, windows: Generator[WindowSlices[Data], None, None]) -> Generator[Item, None, None]:
        """The batches of these windows; of one that is done nothing may be held when the next is asked for."""

    @property
    def num_nonfinite(self) -> Tensor | None:
        """Values to learn from that were NaN or infinite so far, int64, on the device; None where there can be none."""
        return None

    @property
    def slices(self) -> int:
        """Parts into which a global batch is cut."""
        return self.world_size * self.accumulation

    def __len__(self) -> int:
        """Batches of an epoch for this process."""
        return self.plan.num_batches * self.accumulation

    def __iter__(self) -> Iterator[Item]:
        """The rest of the current epoch; the next call begins the next one.

        Raises:
            SpecError: in a worker process of a ``DataLoader``, each of which would give all batches.
        """
        if get_worker_info() is not None:
            raise SpecError("the loader reads and decodes ahead by itself; give DataLoader(loader, batch_size=None)")
        # Who counts batches may have left the last pass behind its last one, without asking for another.
        self.seek(self.epoch, self.position)
        epoch = self.epoch
        with closing(self.produce(self._sliced(epoch, self.position))) as batches:
            for batch in batches:
                # Counted when it is handed out: what was only prefetched is not behind us.
                self.position += 1
                yield batch if self.changed is None else self.changed(batch)
        self.epoch, self.position = epoch + 1, 0

    def set_epoch(self, epoch: int) -> None:
        """Begin ``epoch`` (from 0) at its first batch, unless it is the current one."""
        if epoch != self.epoch:
            self.epoch, self.position = epoch, 0

    def seek(self, epoch: int, position: int) -> None:
        """Continue in ``epoch`` after its first ``position`` batches; what lies before is not read."""
        self.epoch, self.position = (epoch + 1, 0) if position == len(self) else (epoch, position)

    def state_dict(self) -> dict[str, Any]:
        """Place of the loader, as plain values."""
        return {
            "epoch": self.epoch,
            "position": self.position,
            "accumulation": self.accumulation,
            "order": self.plan.version,
            **self._fixed(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state; the number of processes and the accumulation may have changed.

        The order is drawn as it was when the state was saved, whichever version that was.

        Raises:
            MismatchError: the state belongs to other data, another seed or batch size, lies within a step, or is of an
                order that is drawn in a way unknown here.
        """
        # States from before there was a second version say nothing of it.
        version = state.get("order", 1)
        if version not in VERSIONS:
            known = " and ".join(map(str, VERSIONS))
            raise MismatchError(
                f"the saved order is of version {version} and this hskcache knows {known}; go on with the hskcache "
                "that began the run, or a newer one"
            )
        for key, own in self._fixed().items():
            if state.get(key) != own:
                raise MismatchError(
                    f"the saved order has {key} {state.get(key)}, this run {own}; use the same to resume"
                )
        steps, within = divmod(state["position"], state["accumulation"])
        if within and state["accumulation"] != self.accumulation:
            raise MismatchError(
                f"the saved order stands within a step of {state['accumulation']} forward passes, and this run makes "
                f"{self.accumulation}; use the same to resume"
            )
        self._plan = replace(self._plan, version=version)
        self.seek(state["epoch"], steps * self.accumulation + within)

    def _fixed(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "global_batch_size": self.plan.batch_size,
            "window_shards": self.window_shards,
            "identity": self.identity,
        }

    def _sliced(self, epoch: int, start: int) -> Generator[WindowSlices[Data], None, None]:
        for window, data, lengths in self.windows(epoch, start // self.accumulation):
            slices = [
                self._slice(whole, micro)
                for whole in self.plan.batches(epoch, window, lengths)
                for micro in range(self.accumulation)
            ]
            # A window that is smaller than a batch passes all of its rows on.
            if slices:
                yield WindowSlices(data, slices[max(0, start - window.first_batch * self.accumulation) :])
            # Before the window after the next is read, this one must be gone.
            del data

    def _slice(self, whole: Integers, micro: int) -> SliceRows:
        rows = whole[micro * self.world_size + self.rank :: self.slices]
        return SliceRows(rows, whole, 1.0) if len(rows) else SliceRows(whole[:1], whole, 0.0)
