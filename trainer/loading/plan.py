"""The order of training, as a pure function of the seed, the epoch and the sizes of the shards.

Shards are permuted and cut into windows; the rows of a window are permuted, grouped by length and cut into batches.
Only whole batches leave a window: the rows left over move on to the next one. Every batch is full but those of the last
window, which are cut evenly, and an epoch always has ceil(N / batch size) of them. Nothing here depends on where the
cache lives or on how many processes train: a *global batch* holds the rows of one optimiser step, and each process
takes its slice of it. Rows that the cache left out are as if there were none.

Of an epoch only the order of the shards is drawn as a whole. How many batches leave the windows before one follows from
their numbers of rows, and which rows they leave over from the permutations that those went through, mostly one: an
epoch may begin anywhere, and of a larger cache no more is in memory.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil

import numpy as np
from numpy.typing import NDArray

from hskcache.permutation import permutation

Integers = NDArray[np.int64]

VERSIONS = (1, 2)
"""Ways of drawing an order: 1, by numpy's Generator, which numpy may change; 2, by raw bits, the same for ever."""


@dataclass(frozen=True)
class Window:
    """Part of an epoch that is held in memory at once.

    Attributes:
        index: place of the window in its epoch.
        first_batch: number in the epoch of its first batch.
        shards: the shards it draws from.
        carried: rows left over by the window before.
        rows: rows it gives out, in random order; what it carries on is not among them.
    """

    index: int
    first_batch: int
    shards: tuple[int, ...]
    carried: Integers
    rows: Integers


@dataclass(frozen=True)
class Plan:
    """The order of every epoch.

    Attributes:
        shards: row range [start, stop) of each shard.
        batch_size: rows of a global batch.
        seed: of all permutations.
        window_shards: shards that are mixed with each other, at least; fewer than twice as many.
        pool_batches: batches within which rows are sorted by length; larger pads less and mixes less.
        skipped: rows of the shards, ascending, that no epoch has.
        version: one of :data:`VERSIONS`; runs that began with the first go on with it.
    """

    shards: Sequence[tuple[int, int]]
    batch_size: int
    seed: int = 0
    window_shards: int = 4
    pool_batches: int = 50
    skipped: tuple[int, ...] = ()
    version: int = VERSIONS[-1]

    @property
    def num_rows(self) -> int:
        """Rows N of an epoch."""
        return self.shards[-1][1] - len(self.skipped) if self.shards else 0

    @property
    def num_batches(self) -> int:
        """Global batches of an epoch."""
        return ceil(self.num_rows / self.batch_size)

    @property
    def most_shards(self) -> int:
        """Shards of the largest window of any epoch."""
        return ceil(len(self.shards) / self._num_windows)

    def windows(self, epoch: int, skip: int = 0) -> Iterator[Window]:
        """The windows of an epoch in order, without those that lie within its first ``skip`` batches; needs no data."""
        order = self._permutation(len(self.shards), epoch, 0)
        ends = self._ends(order)
        done = np.append(ends[:-1] // self.batch_size, self.num_batches)
        first = int(np.searchsorted(done, skip, side="right")) if skip else 0
        carried = self._carried(epoch, order, ends[:first])
        for index in range(first, len(ends)):
            rows = np.concatenate([carried, self._own(order, index)])
            rows = rows[self._permutation(len(rows), epoch, 1, index)]
            whole = len(rows) if index == len(ends) - 1 else self._whole(len(rows))
            shards = tuple(order[self._group(index)].tolist())
            yield Window(index, int(done[index - 1]) if index else 0, shards, carried, rows[:whole])
            carried = rows[whole:]

    def count(self, window: Window) -> int:
        """Global batches that leave a window."""
        return ceil(len(window.rows) / self.batch_size)

    def batches(self, epoch: int, window: Window, lengths: Integers) -> list[Integers]:
        """Rows of every global batch of a window.

        Args:
            epoch: counted from 0.
            window: one of :meth:`windows`.
            lengths: tokens of each of ``window.rows``, in that order.
        """
        count = self.count(window)
        # Equal parts, so that the end of an epoch is not a batch of one row; a window may be smaller than a batch.
        bounds = np.arange(count + 1) * len(window.rows) // max(count, 1)
        batches: list[Integers] = []
        for first in range(0, count, self.pool_batches):
            cuts = bounds[first : first + self.pool_batches + 1]
            part = slice(cuts[0], cuts[-1])
            rows = window.rows[part][np.argsort(lengths[part], kind="stable")]
            batches += np.split(rows, cuts[1:-1] - cuts[0])
        order = self._permutation(len(batches), epoch, 2, window.index)
        return [batches[i] for i in order]

    @property
    def _num_windows(self) -> int:
        # Never fewer than window_shards to a window, so that an epoch does not end in a window of one short shard.
        return max(1, len(self.shards) // self.window_shards)

    @cached_property
    def _sizes(self) -> Integers:
        """Rows that an epoch has of each shard."""
        starts, stops = np.array(self.shards, np.int64).reshape(-1, 2).T
        skipped = np.array(self.skipped, np.int64)
        return stops - starts - (np.searchsorted(skipped, stops) - np.searchsorted(skipped, starts))

    def _group(self, index: int) -> slice:
        """The shards of a window within their order: parts as equal as they can be, the larger ones first."""
        size, larger = divmod(len(self.shards), self._num_windows)
        return slice(index * size + min(index, larger), (index + 1) * size + min(index + 1, larger))

    def _ends(self, order: Integers) -> Integers:
        """Rows of the windows up to each, and with it."""
        sums = np.append(0, np.cumsum(self._sizes[order]))
        ends: Integers = sums[[self._group(index).stop for index in range(self._num_windows)]]
        return ends

    def _whole(self, num_rows: int) -> int:
        """Rows of the whole batches among so many."""
        return num_rows // self.batch_size * self.batch_size

    def _own(self, order: Integers, index: int) -> Integers:
        """The rows of a window's own shards."""
        return np.concatenate(
            [np.zeros(0, np.int64), *(self._rows(shard) for shard in order[self._group(index)].tolist())]
        )

    def _carried(self, epoch: int, order: Integers, ends: Integers) -> Integers:
        """Rows left over by the windows that end so; only the permutations that they went through are drawn."""
        left = [0, *(ends % self.batch_size).tolist()]
        rows = np.zeros(left[-1], np.int64)
        missing = places = np.arange(len(rows))
        for index in range(len(ends) - 1, -1, -1):
            if not len(missing):
                break
            own = self._own(order, index)
            drawn = self._permutation(left[index] + len(own), epoch, 1, index)
            places = drawn[self._whole(len(drawn)) + places]
            is_own = places >= left[index]
            rows[missing[is_own]] = own[places[is_own] - left[index]]
            missing, places = missing[~is_own], places[~is_own]
        return rows

    def _rows(self, shard: int) -> Integers:
        """The rows of a shard that an epoch has."""
        start, stop = self.shards[shard]
        first, last = bisect_left(self.skipped, start), bisect_left(self.skipped, stop)
        return np.delete(np.arange(start, stop), np.array(self.skipped[first:last], np.int64) - start)

    def _permutation(self, num: int, epoch: int, *purpose: int) -> Integers:
        if self.version == 1:
            bits = np.random.PCG64(np.random.SeedSequence([self.seed, epoch, *purpose]))
            return np.random.Generator(bits).permutation(num)
        return permutation(num, self.seed, epoch, *purpose)
