"""An iterable of batches that knows where it stands: the part that a cache and a live teacher have in common."""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch

from hskcache.errors import MismatchError, SpecError
from trainer.batch import Batch
from trainer.loading.plan import Integers, Plan, Window

Data = TypeVar("Data")


@dataclass(kw_only=True)
class Ordered(ABC, Generic[Data]):
    """Batches in seeded order; each pass is one epoch, and a pass may begin anywhere.

    The order depends on ``seed``, the epoch and the global batch size (``batch_size * world_size * accumulation``)
    alone. Every process takes its slice of each global batch, so their number does not change what is trained on.

    Attributes:
        batch_size: rows of one process's forward pass.
        seed: of the order.
        device: where batches are decoded.
        rank, world_size: this process and their number.
        accumulation: forward passes of one optimiser step.
        window_shards: shards that are mixed with each other, at least.
        epoch, position: the current epoch, from 0, and how many of its batches have been handed out.
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

    def order(self, shards: list[tuple[int, int]]) -> Plan:
        """The plan over these row ranges.

        Raises:
            SpecError: a count below 1.
            MismatchError: fewer rows than slices of a global batch.
        """
        if min(self.batch_size, self.world_size, self.accumulation, self.window_shards) < 1:
            raise SpecError("batch_size, world_size, accumulation and window_shards must be at least 1")
        plan = Plan(tuple(shards), self.batch_size * self.slices, self.seed, self.window_shards)
        if plan.num_rows < self.slices:
            raise MismatchError(
                f"{plan.num_rows} rows are too few for {self.slices} slices (processes x accumulation); use fewer of "
                "them"
            )
        return plan

    @property
    @abstractmethod
    def plan(self) -> Plan:
        """The order of every epoch."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """Digest of what the batches are made of."""

    @abstractmethod
    def windows(self, skip: int) -> Iterator[tuple[Window, Data | None, Integers]]:
        """Windows of the current epoch with their data and the lengths of their rows.

        The first ``skip`` global batches are done; a window within them may come without data.
        """

    @abstractmethod
    def produce(self, slices: Iterator[tuple[Data, Integers, Integers]]) -> Generator[Batch, None, None]:
        """Batches from data, the rows of this slice, and the rows of its global batch."""

    @property
    def slices(self) -> int:
        """Parts into which a global batch is cut."""
        return self.world_size * self.accumulation

    def __len__(self) -> int:
        """Batches of an epoch for this process."""
        return self.plan.num_batches * self.accumulation

    def __iter__(self) -> Iterator[Batch]:
        """The rest of the current epoch; the next call begins the next one."""
        with closing(self.produce(self._slices(self.position))) as batches:
            for batch in batches:
                # Counted when it is handed out: what was only prefetched is not behind us.
                self.position += 1
                yield batch
        self.epoch, self.position = self.epoch + 1, 0

    def set_epoch(self, epoch: int) -> None:
        """Begin ``epoch`` (from 0) at its first batch, unless it is the current one."""
        if epoch != self.epoch:
            self.epoch, self.position = epoch, 0

    def seek(self, epoch: int, position: int) -> None:
        """Continue in ``epoch`` after its first ``position`` batches; what lies before is not read."""
        self.epoch, self.position = epoch, position

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands, as plain values."""
        return {"epoch": self.epoch, "position": self.position, **self._fixed()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state.

        Raises:
            MismatchError: the state belongs to other data, another seed, batch size or accumulation.
        """
        for key, own in self._fixed().items():
            if state.get(key) != own:
                raise MismatchError(
                    f"the saved order has {key} {state.get(key)}, this run {own}; use the same to resume"
                )
        self.seek(state["epoch"], state["position"])

    def _fixed(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "global_batch_size": self.plan.batch_size,
            "accumulation": self.accumulation,
            "window_shards": self.window_shards,
            "identity": self.identity,
        }

    def _slices(self, start: int) -> Generator[tuple[Data, Integers, Integers], None, None]:
        done = 0
        for window, data, lengths in self.windows(start // self.accumulation):
            count = self.plan.count(window) * self.accumulation
            if data is None or done + count <= start:
                done += count
                continue
            for rows in self.plan.batches(self.epoch, window, lengths):
                if len(rows) < self.slices:
                    raise SpecError(
                        f"a batch of {len(rows)} rows cannot feed {self.slices} slices; raise the batch size"
                    )
                for micro in range(self.accumulation):
                    if done >= start:
                        yield data, rows[micro * self.world_size + self.rank :: self.slices], rows
                    done += 1
