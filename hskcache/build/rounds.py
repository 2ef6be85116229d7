"""A process's share of the shards of a job: claimed and computed in groups, and committed one by one.

What another process has claimed is waited for at the end, and computed here if that one died.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from hskcache.build.extract import Buffers, Extractor, HostArrays
from hskcache.store.claims import Claims
from hskcache.store.fields import INPUTS
from hskcache.timeline import span

if TYPE_CHECKING:
    from hskcache.build.writing import Writing

Progress = Callable[[int], None]

_WAITING_BYTES = 1 << 30
"""Bytes of shards that may wait to be written, where several threads write."""


class Round:
    """The shards that this process writes, a group at a time; threads commit those of one while the next is computed.

    Args:
        writing: the fields.
        extractor: runs the teacher for them.
        claims: shared with the other processes.
        report: called with the number of rows of each piece of work that is done.
    """

    def __init__(self, writing: "Writing", extractor: Extractor, claims: Claims, report: Progress) -> None:
        self.writing = writing
        self.first_shard = writing.first[0]
        self.extractor = extractor
        self.claims = claims
        self.report = report
        self.pending: deque[Future[None]] = deque()
        self.others: list[range] = []

    def run(self) -> None:
        """Go through all groups; whatever ends this, an interrupt included, what was handed over is written."""
        num_writers = self.writing.num_writers
        with ThreadPoolExecutor(max_workers=num_writers, thread_name_prefix="hskcache-write") as writers:
            for group in self.writing.groups:
                self.others = [other for other in self.others if not self._is_done(other)]
                if not self._attend(group, writers):
                    self.others.append(group)
            self._drain(0)
            while self.others:
                # Of a process that has died the claims are gone, and its shards are ours.
                self.others = [other for other in self.others if not self._attend(other, writers)]
                self._drain(0)
                if self.others:
                    time.sleep(self.claims.poll_s)

    def _attend(self, group: range, writers: ThreadPoolExecutor) -> bool:
        """Write what is missing of a group; False where another process is at it."""
        if not self._claim(group):
            return False
        # Only now: whoever had claimed them may have written them just before.
        missing = {shard: fields for shard in group if (fields := self.writing.missing(shard))}
        for shard in group:
            if shard not in missing:
                self.claims.release(self.first_shard + shard)
                self.report(self._num_rows(shard))
        if missing:
            host = self._compute(group, missing)
            start = self._rows(group[0])[0]
            for shard, fields in missing.items():
                first = self._rows(shard)[0] - start
                self.pending.append(writers.submit(self._commit, shard, fields, host, first))
            del host
            # One group is written while the next is computed, or some shards of it; more would only hold memory.
            self._drain(max(len(missing), self._most_waiting(group[0])))
        return True

    def _claim(self, group: range) -> bool:
        """Claim all shards of a group, or none."""
        for shard in group:
            if not self.claims.claim(self.first_shard + shard):
                for claimed in range(group.start, shard):
                    self.claims.release(self.first_shard + claimed)
                return False
        return True

    def _compute(self, group: range, missing: Mapping[int, list[str]]) -> HostArrays | None:
        if all(fields == [INPUTS] for fields in missing.values()):
            self.report(sum(map(self._num_rows, missing)))
            return None
        job = self.extractor.job
        start, stop = self._rows(group[0])[0], self._rows(group[-1])[1]
        rows = np.arange(start, stop)
        is_missing = np.isin(rows // job.layout.shard_rows, list(missing))
        buffers = Buffers(self.extractor, rows)
        for index in self.writing.batching.batches(start, stop):
            if count := int(is_missing[index - start].sum()):
                buffers.add(index)
                self.report(count)
                self._raise_early()
        return buffers.to_host()

    def _commit(self, shard: int, missing: list[str], host: HostArrays | None, first: int) -> None:
        try:
            self.writing.commit(shard, missing, host, first)
        finally:
            self.claims.release(self.first_shard + shard)

    def _is_done(self, group: range) -> bool:
        """True if a group that another process had claimed is written."""
        if any(map(self.writing.missing, group)):
            return False
        self.report(sum(map(self._num_rows, group)))
        return True

    def _most_waiting(self, shard: int) -> int:
        """Shards such as this one that may wait to be written while others are computed."""
        layout = self.writing.job.layout
        num_bytes = sum(layout.most_bytes(field, *self._rows(shard)) for field in self.writing.names)
        return max(1, min(self.writing.num_writers, _WAITING_BYTES // num_bytes))

    @span("wait for writers")
    def _drain(self, most: int) -> None:
        """Wait until at most so many shards are still to be committed."""
        while len(self.pending) > most:
            self.pending.popleft().result()

    def _raise_early(self) -> None:
        """Pass on the error of a commit as soon as there is one, not when its turn comes."""
        for future in self.pending:
            if future.done():
                future.result()

    def _rows(self, shard: int) -> tuple[int, int]:
        return self.writing.job.layout.shards[shard]

    def _num_rows(self, shard: int) -> int:
        start, stop = self._rows(shard)
        return stop - start
