"""Write the fields of a job: shard by shard, resumable at any moment, compressing while the teacher computes.

Small shards are computed in groups, whose rows share batches; each is committed by itself. Several processes may write
the fields of one job together. Each computes the groups whose shards it claims; what another one has claimed it waits
for at the end, and computes itself if that one died.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hskcache.build.batching import NEWEST, Batching, batching_of, told
from hskcache.build.constants import constants_for, extractor_for
from hskcache.build.extract import Arrays, HostArrays
from hskcache.build.job import Job
from hskcache.build.layout import id_dtype
from hskcache.build.nonfinite import OnNonfinite, leave_out, refuse
from hskcache.build.request import WorkerPart
from hskcache.build.rounds import Progress, Round
from hskcache.classes import of_words
from hskcache.errors import DamageError, TeacherError
from hskcache.store.claims import UNSHARED, Claims
from hskcache.store.commits import Committing
from hskcache.store.fields import INPUTS, kind_of
from hskcache.store.record import CONSTANTS
from hskcache.store.texts import packed_texts
from hskcache.teacher.capture import Wanted
from hskcache.teacher.lean import lean
from hskcache.text.copies import UNKNOWN

_MOST_WRITERS = 8


@dataclass(frozen=True, eq=False)
class Writing:
    """Fields of a job on their way into a cache.

    Attributes:
        job: what the teacher is run for.
        ledger: the shards of the cache.
        names: the fields to write: what the job calls each, and the name it has in the cache.
        first: number of the first shard and first row of the cache that the job's rows become.
        on_nonfinite: what becomes of a row with values that are not finite.
        origin: row that row 0 of the cache is in the whole one, where the cache is a part; seeds what is random.
        way: of making batches.
        part: of the groups of shards, that are written; None: all.
    """

    job: Job
    ledger: Committing
    names: Mapping[str, str]
    first: tuple[int, int] = (0, 0)
    on_nonfinite: OnNonfinite = "fail"
    origin: int = 0
    way: type[Batching] = NEWEST
    part: WorkerPart | None = None

    @property
    def environment(self) -> dict[str, str]:
        """As :func:`environment_of` the job."""
        return environment_of(self.job, self.way)

    @cached_property
    def batching(self) -> Batching:
        """Rows of the job that the teacher reads together."""
        return batching_of(self.job, self.way)

    @property
    def groups(self) -> list[range]:
        """Groups of neighbouring shards of the part that is written."""
        groups = self.batching.groups
        return groups if self.part is None else groups[self.part.number - 1 :: self.part.num_parts]

    @property
    def num_missing(self) -> int:
        """Shards of the job, whichever part they belong to, that lack a field."""
        return sum(bool(self.missing(shard)) for shard in range(len(self.job.layout.shards)))

    @property
    def num_writers(self) -> int:
        """Threads that compress and write: one beside a teacher that needs the CPU itself."""
        if self.job.teacher.device.type == "cpu":
            return 1
        return max(1, min(_MOST_WRITERS, (os.cpu_count() or 1) - 1))

    def write(self, report: Progress | None = None, claims: Claims = UNSHARED) -> None:
        """Compute and commit every shard that is missing, or see to it that other processes do.

        Args:
            report: called with the number of rows of each piece of work that is done, by whichever process, resumed
                rows included.
            claims: shared with the other processes.

        Raises:
            TeacherError: the teacher gives values that are not finite, or its device has too little memory.
            DamageError: what all rows share is there, but damaged.
        """
        with claims.alone():
            constants = {kind: self._constants(kind) for kind in self.names if kind != INPUTS}
        extractor = extractor_for(self.job, constants, self.names, self.origin + self.first[1])
        # Where something is captured, heads that contribute nothing are still looked at.
        with nullcontext() if extractor.wanted != Wanted() else lean(self.job.teacher.model):
            Round(self, extractor, claims, report or (lambda _rows: None)).run()

    @property
    def most_bytes(self) -> int:
        """Most bytes on disk of the shards that are missing."""
        layout = self.job.layout
        return sum(
            layout.most_bytes(field, *rows) for shard, rows in enumerate(layout.shards) for field in self.missing(shard)
        )

    @property
    def skipped(self) -> set[int]:
        """Rows of the cache that are left out of one field or another, as far as these are written."""
        numbers = range(self.first[0], self.first[0] + len(self.job.layout.shards))
        records = [self.ledger.committed(name, shard) for name in self.names.values() for shard in numbers]
        return {one.row for record in records if record is not None for one in record.skipped}

    def missing(self, shard: int) -> list[str]:
        """The fields that a shard of the job still lacks."""
        return [field for field, name in self.names.items() if not self._is_written(name, self.first[0] + shard)]

    def commit(self, shard: int, missing: list[str], host: HostArrays | None, first: int = 0) -> None:
        """Bring a shard's arrays to the disk.

        Args:
            shard: of the job.
            missing: the fields to write.
            host: what the teacher gave; None where that is not wanted.
            first: of the rows that it gave which is the shard's.

        Raises:
            TeacherError: the teacher gave values that are not finite, and rows with such values are not left out.
        """
        start, stop = self.job.layout.shards[shard]
        first_shard, first_row = self.first
        fields, nonfinite = ({}, {}) if host is None else host.wait(first, first + stop - start)
        if self.on_nonfinite == "fail":
            refuse(self.job.data.name, start, nonfinite, missing)
        if INPUTS in missing:
            fields[INPUTS] = inputs_of(self.job, start, stop, first_row)
        for field in missing:
            left_out = leave_out(self.job.fields[field], fields[field], nonfinite.get(field, {}))
            rows = (first_row + start, first_row + stop)
            counts = {rows[0] + place: count for place, count in left_out.items()}
            self.ledger.commit(self.names[field], first_shard + shard, rows, fields[field], counts)

    def _is_written(self, name: str, shard: int) -> bool:
        record = self.ledger.committed(name, shard)
        # Rows that an earlier command was to leave out are not left out by one that is to fail.
        return record is not None and (self.on_nonfinite == "skip" or not record.skipped)

    def _constants(self, kind: str) -> Arrays:
        """Arrays that all rows of a field share: of a build that was cut off, whose shards need them, or else new."""
        field, name = self.job.layout.fields[kind], self.names[kind]
        if not kind_of(field).constants(field):
            return {}
        record = self.ledger.committed(name, CONSTANTS)
        if record is None:
            constants = constants_for(self.job, kind, way=self.way)
            record = self.ledger.commit_constants(name, constants)
            if not self.ledger.first_counts:
                return constants
            del constants
        try:
            return self.ledger.read(record, field)
        except DamageError as error:
            raise DamageError(f"{error}; delete {self.ledger.name}/{name} and build again") from None


def environment_of(job: Job, way: type[Batching] = NEWEST) -> dict[str, str]:
    """Environment that fields of a job are computed in, for the manifest; batched in a way."""
    return job.environment | told(way)


def require_rows(writings: Sequence[Writing]) -> None:
    """Raise unless something is left to train on, once all is written.

    Args:
        writings: all into one cache.

    Raises:
        TeacherError: every row was left out of a field.
    """
    job, place = writings[0].job, writings[0].ledger.name
    if sum(len(writing.skipped) for writing in writings) == sum(len(writing.job.rows) for writing in writings):
        raise TeacherError(
            f"{job.data.name}: every row has values that are not finite, so nothing is left to train on; mend the "
            f"teacher, or give --encoding bfloat16 and --dtype float32, and delete what was written in {place}"
        )


def inputs_of(job: Job, start: int, stop: int, first_row: int = 0) -> Arrays:
    """The stored inputs of some rows of a job; ``first_row`` of the cache is what its first one becomes."""
    rows = job.rows
    first, last = rows.offsets[start], rows.offsets[stop]
    arrays: Arrays = {
        "input_ids": rows.input_ids[first:last].astype(id_dtype(job.teacher.info.vocab_size)),
        "row_offsets": rows.offsets[start : stop + 1] - first,
        "row_ids": np.arange(first_row + start, first_row + stop, dtype=np.int64),
    }
    if rows.token_type_ids is not None:
        arrays["token_type_ids"] = rows.token_type_ids[first:last]
    if rows.targets is not None:
        arrays["targets"] = rows.targets[first:last].view(np.uint8)
    if rows.documents is not None:
        arrays["documents"] = rows.documents[start:stop]
    if (words := rows.words) is not None:
        begin, end = words.offsets[start], words.offsets[stop]
        arrays |= {"position_offsets": words.offsets[start : stop + 1] - begin, "positions": words.positions[begin:end]}
    if job.labels is not None:
        arrays["tags" if words is not None else "labels"] = of_words(job.labels[start:stop])
    if job.copies is not None:
        origins = job.copies.origins[start:stop]
        arrays["copies"] = job.copies.numbers[start:stop]
        arrays["origins"] = np.where(origins == UNKNOWN, UNKNOWN, origins + first_row)
    if job.texts is not None:
        texts, pairs = job.texts
        arrays |= packed_texts(texts[start:stop], None if pairs is None else pairs[start:stop])
    return arrays
