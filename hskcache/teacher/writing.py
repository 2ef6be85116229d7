"""Write the fields of a job: shard by shard, resumable at any moment, compressing while the teacher computes."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np

from hskcache.disk import require_space
from hskcache.errors import DamageError
from hskcache.store.ledger import Ledger, read_shard
from hskcache.store.record import CONSTANTS
from hskcache.teacher.constants import constants_for, extractor_for
from hskcache.teacher.extract import Arrays, Buffers, Extractor, HostArrays
from hskcache.teacher.job import Job
from hskcache.teacher.layout import id_dtype
from hskcache.teacher.lean import lean

Progress = Callable[[int], None]

SINCE = "the last whole shard"
"""Where a build that was cut off goes on from."""


@dataclass(frozen=True, eq=False)
class Writing:
    """Fields of a job on their way into a cache.

    Attributes:
        job: what the teacher is run for.
        ledger: the cache.
        names: the fields to write: what the job calls each, and the name it has in the cache.
    """

    job: Job
    ledger: Ledger
    names: Mapping[str, str]

    def write(self, report: Progress | None = None) -> None:
        """Compute and commit every shard that is missing.

        Args:
            report: called with the number of rows of each piece of work that is done, resumed rows included.

        Raises:
            TeacherError: the teacher gives values that are not finite, or its device has too little memory.
            DamageError: what all rows share is there, but damaged.
        """
        constants = self._constants() if "hidden" in self.names else {}
        extractor = extractor_for(self.job, constants, self.names)
        # With selectors, heads that contribute nothing are still looked at.
        with nullcontext() if extractor.selectors else lean(self.job.teacher.model):
            self._write_shards(extractor, report or (lambda _rows: None))

    def check_space(self) -> None:
        """Refuse before the teacher runs rather than when the disk is full.

        Raises:
            CacheError: it will be.
        """
        shards = zip(self.job.layout.shards, self._missing(), strict=True)
        need = sum(self.job.layout.most_bytes(field, *rows) for rows, fields in shards for field in fields)
        require_space(self.ledger.root, need, "the cache may need", "keep less with --keep or --encoding")

    def _missing(self) -> Iterator[list[str]]:
        """The fields that each shard still lacks."""
        for shard in range(len(self.job.layout.shards)):
            yield [field for field, name in self.names.items() if not self.ledger.is_committed(name, shard)]

    def _constants(self) -> Arrays:
        """What all rows share: that of a build that was cut off, whose shards were made with it, or else made now."""
        field, name = self.job.layout.hidden, self.names["hidden"]
        assert field is not None
        if not self.ledger.is_committed(name, CONSTANTS):
            constants = constants_for(self.job)
            if constants:
                self.ledger.commit_constants(name, constants)
            return constants
        path = self.ledger.shard_path(name, CONSTANTS)
        try:
            return read_shard(path, self.ledger.record(name, CONSTANTS), field)
        except DamageError as error:
            raise DamageError(f"{path} {error}; delete {path.parent} and build again") from None

    def _write_shards(self, extractor: Extractor, report: Progress) -> None:
        """Compute shard after shard while one thread compresses and commits the shards before.

        Whatever ends the loop, an interrupt included, shards that were handed over are written.
        """
        pending: list[Future[None]] = []
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="hskcache-write") as writer:
            for shard, ((start, stop), missing) in enumerate(zip(self.job.layout.shards, self._missing(), strict=True)):
                if not missing:
                    report(stop - start)
                    continue
                host = None if missing == ["inputs"] else _compute(extractor, start, stop, report)
                pending.append(writer.submit(self._commit, shard, missing, host))
                # One shard is written while the next is computed; more would only hold memory.
                while len(pending) > 1:
                    pending.pop(0).result()
            for future in pending:
                future.result()

    def _commit(self, shard: int, missing: list[str], host: HostArrays | None) -> None:
        start, stop = self.job.layout.shards[shard]
        fields = host.wait(self.job.data.name) if host is not None else {}
        if "inputs" in missing:
            fields["inputs"] = inputs_of(self.job, start, stop)
        for field in missing:
            self.ledger.commit(self.names[field], shard, (start, stop), fields[field])


def inputs_of(job: Job, start: int, stop: int) -> Arrays:
    """The stored inputs of some rows."""
    rows = job.rows
    first, last = rows.offsets[start], rows.offsets[stop]
    arrays: Arrays = {
        "input_ids": rows.input_ids[first:last].astype(id_dtype(job.teacher.info.vocab_size)),
        "row_offsets": rows.offsets[start : stop + 1] - first,
        "row_ids": np.arange(start, stop, dtype=np.int64),
    }
    if rows.token_type_ids is not None:
        arrays["token_type_ids"] = rows.token_type_ids[first:last]
    if job.labels is not None:
        arrays["labels"] = job.labels[start:stop]
    return arrays


def _compute(extractor: Extractor, start: int, stop: int, report: Progress) -> HostArrays:
    buffers = Buffers(extractor, np.arange(start, stop))
    for index in extractor.job.layout.batches(start, stop, extractor.job.spec.token_budget):
        buffers.add(index)
        report(len(index))
    return buffers.to_host()
