"""Choice of the rows that the teacher reads together: shards in groups, and the rows of a group in batches.

The shape of a batch decides the last bits of what a teacher gives. So each way of making batches has a name, a cache's
environment tells by which one its shards were computed, and whoever goes on with the cache, or mends it, keeps to that.
"""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hskcache.build.job import Job
from hskcache.build.layout import Integers, ShardLayout
from hskcache.errors import MismatchError
from hskcache.inference import least_padded_batches, length_batches, row_costs
from hskcache.text.windows import Windowing

BATCHES = "batches"
"""Key of an environment under which the name of a way stands; of the first way nothing was told."""

GROUP_BATCHES = 2
"""Full batches whose tokens a group has: more would leave less padding, and hold more in memory until it is done."""


@dataclass(frozen=True)
class Batching(ABC):
    """A way of making batches, of some rows.

    Attributes:
        layout: the rows and their shards.
        token_budget: padded tokens of a batch at most; a row that costs more is a batch of its own.
        device_type: type of the device that the teacher runs on.
        windowing: how long rows are read; None: whole.
    """

    layout: ShardLayout
    token_budget: int
    device_type: str
    windowing: Windowing | None = None

    name: ClassVar[str | None]
    """Name in the environment; None of the way of which nothing is told there."""

    @property
    @abstractmethod
    def groups(self) -> list[range]:
        """Neighbouring shards that are computed together, which decides nothing but batches.

        They follow from the lengths of rows and the token budget alone: a shard's bytes depend neither on where a build
        was interrupted nor on what else is kept of its rows.
        """

    def batches(self, start: int, stop: int) -> Iterator[Integers]:
        """Rows [start, stop) in batches of similar length, longest first."""
        for places in self._cut(self.costs(self.layout.lengths_N[start:stop])):
            yield start + places

    def costs(self, lengths: Integers) -> Integers:
        """Tokens that rows of some lengths count for in the budget."""
        return lengths

    def _cut(self, costs: Integers) -> Iterator[Integers]:
        return length_batches(costs, self.token_budget)

    @property
    def _tokens_to(self) -> Integers:
        """Tokens of the shards before each, and of all; of a row that is longer than a batch those of a batch."""
        starts = [start for start, _ in self.layout.shards]
        tokens = np.minimum(self.costs(self.layout.lengths_N), self.token_budget)
        return np.append(0, np.cumsum(np.add.reduceat(tokens, starts) if starts else tokens))


class ShardByShard(Batching):
    """Each shard by itself, in batches that are as full as they can be."""

    name = None

    @property
    def groups(self) -> list[range]:
        """One shard each."""
        return [range(shard, shard + 1) for shard in range(len(self.layout.shards))]


class AcrossShards(Batching):
    """As many shards together as two batches hold, which are as full as they can be."""

    name = "across shards"

    @property
    def groups(self) -> list[range]:
        """Shards whose rows make two batches at most, but at least one shard."""
        shards, tokens_to, groups = self.layout.shards, self._tokens_to, list[range]()
        while (first := groups[-1].stop if groups else 0) < len(shards):
            most = _num_within(tokens_to, first, GROUP_BATCHES * self.token_budget)
            start = shards[first][0]

            def num_batches(count: int, first: int = first, start: int = start) -> int:
                return sum(1 for _ in self.batches(start, shards[first + count - 1][1]))

            count = bisect_right(range(1, most + 1), GROUP_BATCHES, key=num_batches)
            groups.append(range(first, first + max(1, count)))
        return groups


class LeastPadding(Batching):
    """As many shards together as have the tokens of two full batches, in the batches that take the least time."""

    name = "least padding"

    @property
    def groups(self) -> list[range]:
        """Shards that have so many tokens at most, padding aside, but at least one shard."""
        tokens_to, groups = self._tokens_to, list[range]()
        while (first := groups[-1].stop if groups else 0) < len(self.layout.shards):
            count = _num_within(tokens_to, first, GROUP_BATCHES * self.token_budget)
            groups.append(range(first, first + max(1, count)))
        return groups

    def _cut(self, costs: Integers) -> Iterator[Integers]:
        return least_padded_batches(costs, self.token_budget, self.device_type)


class AttentionCounted(LeastPadding):
    """The same, where long rows count for more than their tokens: attention takes memory by the square of a length."""

    name = "attention counted"

    def costs(self, lengths: Integers) -> Integers:
        """Tokens of each row, and more of those that are long; of those that are read in windows all windows'."""
        if self.windowing is None:
            return row_costs(lengths)
        return self.windowing.counts(lengths) * row_costs(np.minimum(lengths, self.windowing.length))


NEWEST: type[Batching] = AttentionCounted

WAYS: dict[str | None, type[Batching]] = {
    way.name: way for way in (ShardByShard, AcrossShards, LeastPadding, AttentionCounted)
}
"""Every way, by name."""


def way_of(environment: Mapping[str, str], where: str) -> type[Batching]:
    """Look up the way that an environment tells of.

    Args:
        environment: of a cache, a field, or a build that was begun.
        where: that is, for messages.

    Raises:
        MismatchError: it is none that this version knows.
    """
    name = environment.get(BATCHES)
    if name not in WAYS:
        known = " and ".join(repr(way) for way in WAYS if way)
        raise MismatchError(
            f"a teacher read the rows of {where} in batches of the kind {name!r:.80}, and this version makes {known}; "
            "go on with the version of hskcache that began it, or a newer one"
        )
    return WAYS[name]


def batching_of(job: Job, way: type[Batching] = NEWEST) -> Batching:
    """Make batches of the rows of a job in a way."""
    return way(job.layout, job.spec.token_budget, job.teacher.device.type, job.windowing)


def told(way: type[Batching]) -> dict[str, str]:
    """Entries of an environment that tell of a way."""
    return {} if way.name is None else {BATCHES: way.name}


def _num_within(tokens_to: Integers, first: int, num_tokens: int) -> int:
    """Shards from one on that have so many tokens at most together."""
    return int(np.searchsorted(tokens_to, tokens_to[first] + num_tokens, "right")) - 1 - first
