"""Integrity of a cache from its files alone: no teacher, no data set, no torch."""

import os
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field as Key
from pydantic import computed_field

from hskcache.alignment import misalignment, require_targets
from hskcache.errors import CacheError, DamageError
from hskcache.store.content import check_content
from hskcache.store.fields import INPUTS, OFFSETS, VocabularyField, check_positions, check_words
from hskcache.store.files import read_document
from hskcache.store.growing import growing
from hskcache.store.ledger import TOKENIZER, Ledger
from hskcache.store.manifest import Manifest
from hskcache.store.pages import PagedRecords, make_page
from hskcache.store.publishing import MANIFEST, holds, is_swept, manifest_files
from hskcache.store.reading import read_shard
from hskcache.store.record import CONSTANTS, Record, Skipped
from hskcache.store.standing import is_foreign, readings
from hskcache.store.targets import places_of_targets
from hskcache.store.tokenizer import tokenizer_digest
from hskcache.strict import Strict

_TOKENS = ("input_ids", "row_offsets", "targets")

MAX_THREADS = 4
"""More would mostly wait for the disk, each with a shard in memory."""


class Problem(Strict):
    """Something that is not as it was written.

    Attributes:
        field: the field, or None where the cache as a whole is meant.
        shard: number of the shard, or None where none or the constants are meant.
        file: path within the cache.
        what: what is wrong with the file, to be read after its name.
    """

    field: str | None
    shard: int | None
    file: str
    what: str


class Report(Strict):
    """The outcome.

    Attributes:
        checked_bytes: of shards that were read.
        num_rows: rows of the cache, each of which is in every field once.
        skipped: by field, the rows among them of which it holds nothing, and why.
        problems: everything that is not as it was written.
    """

    checked_bytes: int
    num_rows: int = 0
    skipped: dict[str, list[Skipped]] = Key(default={})
    problems: list[Problem]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def ok(self) -> bool:
        """True if the cache is as it was written."""
        return not self.problems


def verify(root: str | Path, on_progress: Callable[[int], None] | None = None, deep: bool = False) -> Report:
    """Read every file of a cache and compare it with the manifest.

    Checked are the manifest's digests, its copy, the pages of records, that the shards of every field cover every row
    once, each shard's size, digest, documents, offsets and positions, in version 1 each commit record, the tokenizer's
    digest, and that no other file stands there. Entries of the cache's folder that begin with a dot, and a README.md,
    are left alone: hubs put them there.

    The other arrays need no decompressing: a shard of the right digest is what its writer wrote, and whoever reads it
    refuses what does not decompress. ``deep`` proves the same of a stranger's cache before it is read, and that next
    tokens are those of the rows. ``on_progress``: called with the size in bytes of each shard once it is checked.
    Returns what was found; nothing is changed and nothing repaired. Raises CacheError if there is no cache;
    MismatchError if the build is not finished, or the format is newer than this program.
    """
    root = Path(root)
    ledger = Ledger(root)
    try:
        manifest = ledger.manifest()
    except DamageError as error:
        whats = {name: _what(root, name, one) for name, one in (readings(root) or {MANIFEST: error}).items()}
        found = [Problem(field=None, shard=None, file=name, what=what) for name, what in whats.items()]
        return Report(checked_bytes=0, problems=found)
    problems = list(_manifest_problems(root, manifest))
    checked_bytes, shards = 0, _Shards(ledger, manifest, deep)
    for record, shard_problems in shards.check():
        problems += shard_problems
        checked_bytes += record.num_bytes
        if on_progress is not None:
            on_progress(record.num_bytes)
    problems += shards.bad_pages
    problems += _tokenizer_problems(root, manifest)
    problems += _extra_problems(ledger, manifest, {problem.field for problem in shards.bad_pages})
    skipped = {name: rows for name, rows in shards.skipped.items() if rows}
    return Report(checked_bytes=checked_bytes, num_rows=manifest.request.num_rows, skipped=skipped, problems=problems)


def num_shard_bytes(root: Path) -> int | None:
    """Bytes of the shards that :func:`verify` reads of a cache, if they all are as they should be; None: not known."""
    try:
        return Ledger(root).manifest().num_bytes
    except CacheError:
        return None


@dataclass(frozen=True, eq=False)
class _Shards:
    """The shards of a cache and their records, checked by as many threads as there are cores.

    Attributes:
        lengths: by shard, the tokens of its rows, once the inputs are read; of damaged inputs there are none.
        words: likewise, where the words of each row begin; None where rows are texts.
        bad_pages: pages of records that are not as they were written; nothing is said of the shards that they are of.
        skipped: by field, the rows that its records leave out, as far as they can be read.
    """

    ledger: Ledger
    manifest: Manifest
    deep: bool
    lengths: dict[int, NDArray[np.int64]] = field(default_factory=dict)
    words: dict[int, NDArray[np.int64] | None] = field(default_factory=dict)
    bad_pages: list[Problem] = field(default_factory=list)
    skipped: dict[str, list[Skipped]] = field(default_factory=dict)

    def check(self) -> Iterator[tuple[Record, list[Problem]]]:
        """Every record with what is wrong with it and its shard; the inputs first, which tell how long rows are."""
        names = sorted(self.manifest.fields, key=lambda name: name != INPUTS)
        # Hashing and decompressing let other threads run; each holds one shard at a time.
        pool = ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1), thread_name_prefix="hskcache-verify")
        try:
            for name in names:
                for batch in self._batches(name):
                    self.skipped.setdefault(name, []).extend(skipped for record in batch for skipped in record.skipped)
                    yield from zip(batch, pool.map(self._problems, batch), strict=True)
        finally:
            pool.shutdown(cancel_futures=True)

    def _batches(self, name: str) -> Iterator[list[Record]]:
        """The records of a field, some at a time: those of pages that are as they should be."""
        records, constants = self.manifest.shards[name], self.manifest.constants.get(name)
        if constants is not None:
            yield [constants]
        if not isinstance(records, PagedRecords):
            yield list(records)
            return
        for page in records.pages:
            path = records.path(page)
            try:
                listed = list(records.of_page(page))
                if make_page(page.shard, listed)[0] != page:
                    raise DamageError("holds other records than the manifest says")
            except DamageError as error:
                reason = str(error).removeprefix(f"{self.ledger.root / path} ").partition(";")[0]
                self.bad_pages.append(Problem(field=name, shard=None, file=path, what=reason))
            else:
                yield listed

    def _problems(self, record: Record) -> list[Problem]:
        shard = None if record.shard == CONSTANTS else record.shard
        path = self.ledger.shard_path(record)
        by_file = {path: self._shard(record, path)}
        if self.manifest.format.keeps_records:
            path = self.ledger.record_path(record.field, record.shard)
            by_file[path] = self._record(record, path)
        return [
            Problem(field=record.field, shard=shard, file=path.relative_to(self.ledger.root).as_posix(), what=reason)
            for path, reason in by_file.items()
            if reason is not None
        ]

    def _shard(self, record: Record, path: Path) -> str | None:
        """Problem of a shard's file, or None."""
        # Those that say where rows begin, or which of their positions are kept.
        dividing = [name for name in record.arrays if name in OFFSETS or name.rpartition("/")[2] == "positions"]
        names = None if self.deep else dividing
        try:
            arrays = read_shard(path, record, self.manifest.fields[record.field], names)
            check_content(self.manifest.request, self.manifest.fields[record.field], arrays)
            if record.field == INPUTS and "row_offsets" in arrays:
                self.words[record.shard] = arrays.get("position_offsets")
                self.lengths[record.shard] = np.diff(arrays["row_offsets"])
            elif (lengths := self.lengths.get(record.shard)) is not None:
                check_positions(arrays, lengths)
                check_words(self.manifest.fields[record.field], arrays, self.words[record.shard])
                self._check_next_tokens(record, arrays)
        except DamageError as error:
            return str(error)
        return None

    def _check_next_tokens(self, record: Record, arrays: dict[str, NDArray[Any]]) -> None:
        """Raise DamageError if what a shard, read whole, holds of next tokens is not of those of its rows."""
        field = self.manifest.fields[record.field]
        if not isinstance(field, VocabularyField) or not self.deep:
            return
        inputs, constants = self.manifest.shards[INPUTS][record.shard], self.manifest.constants.get(record.field)
        names = [name for name in _TOKENS if name in inputs.arrays]
        rows = read_shard(self.ledger.shard_path(inputs), inputs, self.manifest.fields[INPUTS], names)
        begin = np.repeat(rows["row_offsets"][:-1], np.diff(arrays["position_offsets"]))
        asked = places_of_targets(rows.get("targets"), rows["row_offsets"]) - 1
        require_targets(arrays["positions"], begin, asked)
        shared = None if constants is None else read_shard(self.ledger.shard_path(constants), constants, field)
        if (found := misalignment(field, arrays, rows, shared)) is not None:
            raise DamageError(found)

    def _record(self, record: Record, path: Path) -> str | None:
        """Problem of a commit record's file, or None."""
        try:
            data = read_document(path)
            stored = self.manifest.format.parse_record(data, str(path))
            if stored != record:
                return "differs from the manifest's record"
            # What an earlier version did not write is not missing; all else is spelled as it was written.
            written = stored.model_dump_json(exclude_unset=True).encode() + b"\n"
            return None if data == written else "says what it should, but not as it was written"
        except FileNotFoundError:
            return "is missing"
        except DamageError as error:
            return str(error).removeprefix(f"{path} ")


def _tokenizer_problems(root: Path, manifest: Manifest) -> Iterator[Problem]:
    what = None
    try:
        if tokenizer_digest(root / TOKENIZER) != manifest.request.tokenizer.sha256:
            what = "holds other files than the rows were tokenized with: their digest differs"
    except DamageError as error:
        what = str(error).removeprefix(f"{root / TOKENIZER} ").partition(";")[0]
    if what is not None:
        yield Problem(field=None, shard=None, file=TOKENIZER, what=what)


def _manifest_problems(root: Path, manifest: Manifest) -> Iterator[Problem]:
    """Edits of the manifest that was read, and whichever of the files that hold it is not as that was written."""
    whats = [(MANIFEST, f"was edited: {edit}") for edit in manifest.edits()]
    if is_foreign(root, manifest):
        whats.append((MANIFEST, "seems to be that of another cache: other pages stand here than it lists"))
    found = {} if manifest.format.keeps_records else readings(root)
    for name in manifest_files(manifest) if found else ():
        if not holds(root / name, manifest.to_json()) and name not in dict(whats):
            whats.append((name, _what(root, name, found.get(name, DamageError("is missing")))))
    return (Problem(field=None, shard=None, file=name, what=what) for name, what in whats)


def _what(root: Path, name: str, reading: Manifest | CacheError) -> str:
    """Fault of a file that should hold the manifest."""
    if isinstance(reading, CacheError):
        return str(reading).removeprefix(f"{root / name} ")
    return f"is of another cache, {reading.cache_id[:12]}, or was edited"


def _extra_problems(ledger: Ledger, manifest: Manifest, unknown: Collection[str | None]) -> Iterator[Problem]:
    """Files that belong to nothing; in the fields ``unknown`` it is not known which shards there are."""
    expected = {ledger.root / "README.md", *(ledger.root / name for name in manifest_files(manifest))}
    expected |= {ledger.root / file.path for file in manifest.index}
    for name in unknown:
        expected |= {path for path in (ledger.root / str(name)).glob("*") if is_swept(path.name, manifest)}
    for record in chain(
        manifest.constants.values(), *(records for name, records in manifest.shards.items() if name not in unknown)
    ):
        expected.add(ledger.shard_path(record))
        if manifest.format.keeps_records:
            expected.add(ledger.record_path(record.field, record.shard))
    for one in growing(ledger.root, manifest):
        expected |= one.files
        yield Problem(field=one.field, shard=None, file=one.file, what=one.what)
    for path in sorted(ledger.root.rglob("*")):
        inside = path.relative_to(ledger.root)
        if inside.parts[0].startswith("."):
            continue
        if path.is_symlink() and path.is_dir():
            what = "is a symbolic link, and a cache holds files of its own"
        elif inside.parts[0] == TOKENIZER or path.is_dir() or path in expected:
            continue
        else:
            what = "does not belong to the cache"
        field = inside.parts[0] if inside.parts[0] in manifest.fields else None
        yield Problem(field=field, shard=None, file=inside.as_posix(), what=what)
