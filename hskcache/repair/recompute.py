"""Compute the damaged shards of a cache again, with the teacher and the rows that it was built from.

What comes out is compared with the manifest before it replaces anything. Another device or other versions may move the
last bits; such a shard is not put in place, because the cache would no longer be the one that its id names.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from hskcache.build.addition import prepare_addition
from hskcache.build.batching import Batching, way_of
from hskcache.build.constants import constants_for
from hskcache.build.folder import FolderSite
from hskcache.build.job import Job, check_same
from hskcache.build.rounds import Progress
from hskcache.build.writing import Writing, environment_of
from hskcache.cache import Cache
from hskcache.disk import writing_to
from hskcache.errors import DamageError, MismatchError
from hskcache.repair.mending import REPAIR, put_in_place, waiting_path
from hskcache.repair.workplace import Workplace
from hskcache.store.beside import is_file_of
from hskcache.store.ledger import Ledger
from hskcache.store.manifest import DataInfo, Manifest
from hskcache.store.reading import read_shard
from hskcache.store.record import CONSTANTS, Record
from hskcache.teacher.load import Teacher
from hskcache.versions import is_same

SINCE = "the last shard that was computed"

Reasons = dict[tuple[str, int], str]
"""Reasons that shards are not mended, by field and shard, to be read after the file's name."""


@dataclass(frozen=True, eq=False)
class Recomputation:
    """Jobs that compute shards of a cache again.

    Attributes:
        names: the fields: what a job calls each, and the name it has in the cache.
        pieces: jobs, each with the number of its first shard and of its first row in the cache.
    """

    names: Mapping[str, str]
    pieces: tuple[tuple[Job, tuple[int, int]], ...]

    @property
    def num_rows(self) -> int:
        """Rows of all pieces."""
        return sum(len(job.rows) for job, _ in self.pieces)


def source_of(job: Job, cache: Cache) -> Recomputation:
    """Return the source of a job, which must make the own fields of a cache, or of rows that were appended to it.

    Raises:
        MismatchError: teacher, tokenizer or rows are others; tells the first difference.
    """
    request, first, pieces = cache.manifest.request, (0, 0), []
    for part in request.parts:
        if part.fingerprint == job.data.fingerprint:
            _check_whole(part, job, cache)
            check_same(job, request, part, cache.root)
            pieces.append((job, first))
        first = first[0] + request.shards_of(part), first[1] + part.num_rows
    if not pieces:
        check_same(job, request, request.data, cache.root)
    return Recomputation({name: name for name in job.fields}, tuple(pieces))


def _check_whole(part: DataInfo, job: Job, cache: Cache) -> None:
    """Raise unless a cache has all rows of a data set: those that a part lacks would be computed, too."""
    cut = cache.manifest.part
    if cut is not None and part.num_rows < job.data.num_rows:
        raise MismatchError(
            f"{cache.root} holds the rows {cut.start} to {cut.stop - 1} of another cache, and {job.data.name} has "
            "others, too; take what is damaged from a copy of either with --from"
        )


def addition_source(teacher: Teacher, cache: Cache, name: str) -> Recomputation:
    """Return the source of a field that was added to a cache, which the teacher must make, over the cache's rows.

    Raises:
        MismatchError: the field was made by another; tells the first difference.
        DamageError: the rows in the cache are damaged.
    """
    added, field = cache.manifest.added[name], cache.manifest.fields[name]
    addition = prepare_addition(teacher, cache, field.kind, name, added.spec)
    difference = added.difference(addition.draft.added)
    if difference is None and addition.draft.field != field:
        difference = "field", field, addition.draft.field
    if difference is not None:
        path, here, there = difference
        raise MismatchError(
            f"the field {name} of {cache.root} was made with {path} = {here!s:.80}, and the teacher that was given has "
            f"{there!s:.80}; give the one it was made with"
        )
    return Recomputation({field.kind: name}, tuple(addition.pieces))


def recompute(
    source: Recomputation, cache: Cache, bad: Collection[Record], on_rows: Progress | None = None
) -> tuple[list[Record], Reasons]:
    """Compute bad shards again and put those in place that come out as the manifest says.

    Args:
        source: that computes them.
        cache: with an intact manifest.
        bad: records of the shards; those of other fields or rows are left alone.
        on_rows: called with the number of rows of each piece of work that is done, of all pieces.

    Returns:
        The records of the shards that are mended, and why others are not.

    Raises:
        TeacherError: the teacher's device has too little memory.
        CacheError: the disk is too small or cannot be written.
    """
    mended: list[Record] = []
    reasons: Reasons = {}
    own = [record for record in bad if record.field in source.names.values()]
    with writing_to(cache.root, SINCE):
        for job, first in source.pieces:
            done, why = _Piece(job, first, source.names, cache).mend(own, on_rows)
            mended += done
            reasons |= why
            own = [record for record in own if record not in done]
    return mended, reasons


@dataclass(frozen=True, eq=False)
class _Piece:
    """Rows of a cache that one job computes."""

    job: Job
    first: tuple[int, int]
    names: Mapping[str, str]
    cache: Cache

    def mend(self, bad: Collection[Record], on_rows: Progress | None) -> tuple[list[Record], Reasons]:
        ledger, shards = Ledger(self.cache.root), range(self.first[0], self.first[0] + len(self.job.layout.shards))
        mended: list[Record] = []
        different: list[Record] = []
        reasons: Reasons = {}
        if self.first == (0, 0):
            for record in (record for record in bad if record.shard == CONSTANTS):
                self._make_constants(record)
                (mended if put_in_place(ledger, record) else different).append(record)
        lost = {one.field for one in bad if one.shard == CONSTANTS and one not in mended}
        wanted = [record for record in bad if record.shard in shards]
        for record in wanted:
            if record.field in lost:
                reasons[record.field, record.shard] = "was made with constants that are lost; mend those first"
        wanted = [record for record in wanted if record.field not in lost]
        if wanted:
            self._write(wanted, on_rows)
            for record in wanted:
                (mended if put_in_place(ledger, record) else different).append(record)
        return mended, reasons | {(one.field, one.shard): self._why_different(one) for one in different}

    def _make_constants(self, record: Record) -> None:
        workplace = Workplace(self.cache.root / REPAIR, [record], self.cache.manifest.format)
        (kind,) = (kind for kind, name in self.names.items() if name == record.field)
        workplace.commit_constants(record.field, constants_for(self.job, kind, way=self._way))

    def _write(self, wanted: Collection[Record], on_rows: Progress | None) -> None:
        for record in wanted:
            # What a run that was cut off has left here is in place by now, or is not what is wanted.
            waiting_path(Ledger(self.cache.root), record).unlink(missing_ok=True)
        workplace = Workplace(self.cache.root / REPAIR, wanted, self.cache.manifest.format)
        for name in self.names.values():
            self._lend_constants(workplace, name)
        # A row that was left out is left out again; where none was, the record tells the difference.
        origin = self.cache.manifest.first_row
        writing = Writing(self.job, workplace, self.names, self.first, "skip", origin, self._way)
        FolderSite(self.cache.root).require_space(writing.most_bytes)
        writing.write(on_rows)

    @property
    def _way(self) -> type[Batching]:
        """Way in which the rows were batched, which is one: fields that were added are computed each by itself."""
        name = next(iter(self.names.values()))
        return way_of(_environment(self.cache.manifest, name), str(self.cache.root))

    def _lend_constants(self, workplace: Workplace, name: str) -> None:
        """Let the constants of the cache, where they are good, be those that shards are made with."""
        record = self.cache.manifest.constants.get(name)
        if record is None:
            return
        path = Ledger(self.cache.root).shard_path(record)
        try:
            read_shard(path, record, self.cache.fields[name])
        except DamageError:
            return
        workplace.lend(record, path)

    def _why_different(self, record: Record) -> str:
        if is_file_of(waiting_path(Ledger(self.cache.root), record), record):
            return "was computed, but a folder stands in its place; move that away and give the same command again"
        now = environment_of(self.job, self._way)
        then = _environment(self.cache.manifest, record.field)
        other = [
            f"{name} {then.get(name, 'unknown')} there and {now.get(name, 'unknown')} here"
            for name in {**then, **now}
            if not is_same(then.get(name, ""), now.get(name, ""))
        ]
        with_what = "; ".join(other) or "the same versions and device"
        return (
            f"comes out different than the manifest says ({with_what}), so it was not put in place; take it from "
            "another copy with --from, or build the cache anew"
        )


def _environment(manifest: Manifest, field: str) -> dict[str, str]:
    added = manifest.added.get(field)
    return manifest.environment if added is None else added.environment
