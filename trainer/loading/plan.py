"""The order of training, as a pure function of the seed, the epoch and the sizes of the shards.

Shards are permuted and cut into windows; the rows of a window are permuted, grouped by length and cut into batches.
Only whole batches leave a window: the rows left over move on to the next one. Every batch is full but those of the last
window, which are cut evenly, and an epoch always has ceil(N / batch size) of them. Nothing here depends on where the
cache lives or on how many processes train: a *global batch* holds the rows of one optimiser step, and each process
takes its slice of it. Rows that the cache left out are as if there were none.
"""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
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
        shards: the shards it draws from.
        carried: rows left over by the window before.
        rows: rows it gives out, in random order; what it carries on is not among them.
    """

    index: int
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

    shards: tuple[tuple[int, int], ...]
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

    def windows(self, epoch: int) -> Iterator[Window]:
        """The windows of an epoch in order; needs no data."""
        order = self._permutation(len(self.shards), epoch, 0)
        carried = np.zeros(0, np.int64)
        # Never fewer than window_shards to a window, so that an epoch does not end in a window of one short shard.
        groups = np.array_split(order, max(1, len(order) // self.window_shards))
        for index, group in enumerate(groups):
            rows = np.concatenate([carried, *(self._rows(int(shard)) for shard in group)])
            rows = rows[self._permutation(len(rows), epoch, 1, index)]
            whole = len(rows) if index == len(groups) - 1 else len(rows) // self.batch_size * self.batch_size
            yield Window(index, tuple(int(shard) for shard in group), carried, rows[:whole])
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
