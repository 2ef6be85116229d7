"""The commit protocol in a depot: the files are those of a folder, and conditional puts take the place of its locks.

A build begins with ``building.json``, put if it is absent. A shard is put under its digest, and then its commit record
if that is absent: the first record counts, and the shard of a slower worker is swept at the end. So workers need not
know of each other, and may be killed or doubled at any moment. What ends a build is told in
:mod:`~hskcache.store.depots.finishing`.
"""

import re
import threading
import time
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

from hskcache.depot.abc import Depot
from hskcache.errors import DamageError, MismatchError
from hskcache.store.commits import facts_of
from hskcache.store.depots.begun import DepotDraft, read_manifest, require_versions
from hskcache.store.fields import Field, StoredField
from hskcache.store.growth import written
from hskcache.store.ledger import TOKENIZER, require_same
from hskcache.store.manifest import Manifest, Request
from hskcache.store.publishing import MANIFEST
from hskcache.store.record import CONSTANTS, Record, parse, stem_of
from hskcache.store.survey import BUILDING
from hskcache.store.version2 import VERSION_2
from hskcache.timeline import span

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LOOK_S = 3.0
"""Seconds for which a list of the files is good, or twenty times as long as it took."""

_ATTEMPTS = 4
_READERS = 16
_RECORD = re.compile(r"([^/]+)/(constants|[0-9]{6,12})\.json")


class DepotLedger:
    """The files of one cache in a depot. Threads may share it.

    Attributes:
        depot: where they are.
    """

    first_counts: ClassVar[bool] = True

    def __init__(self, depot: Depot) -> None:
        self.depot = depot
        self._sizes: dict[str, int] = {}
        self._until = float("-inf")
        self._known: dict[tuple[str, int], Record] = {}
        self._unsure: set[int] = set()
        self._mutex = threading.Lock()
        self._manifest: Manifest | None = None

    @property
    def name(self) -> str:
        """The URL."""
        return self.depot.url

    def request(self) -> Request | None:
        """The request of the cache or the unfinished build that stands here; None where a build may begin.

        Raises:
            MismatchError: something stands here that is no cache, or that is not built.
            DamageError: the manifest or the request cannot be read.
        """
        if (manifest := self.manifest()) is not None:
            return manifest.request
        if (draft := self.draft()) is not None:
            return draft.request
        if any(not found.name.startswith(".") for found in self.depot.list()) and self.draft() is None:
            raise MismatchError(f"{self.name} holds files that are not a cache's; choose another place or empty it")
        return None

    def draft(self) -> DepotDraft | None:
        """The build that began here and has not ended; None where there is none.

        Raises:
            DamageError: it cannot be read.
        """
        try:
            return parse(DepotDraft, self.depot.get(BUILDING), f"{self.name}/{BUILDING}")
        except FileNotFoundError:
            return None

    def manifest(self) -> Manifest | None:
        """The manifest that stands here; None where there is none yet.

        Raises:
            MismatchError: it is of another version of the format.
            DamageError: it cannot be read, or was edited.
        """
        if self._manifest is None:
            with suppress(FileNotFoundError):
                self._manifest = read_manifest(self.depot, MANIFEST)
        return self._manifest

    def begin(
        self,
        request: Request,
        fields: Mapping[str, Field],
        environment: Mapping[str, str],
        tokenizer: Mapping[str, bytes],
    ) -> None:
        """Start a build here, or take part in one of the same request.

        Args:
            request: of the cache.
            fields: that it asks for.
            environment: versions, and the way of making batches, that all workers must have, and the device.
            tokenizer: its files by path within their folder.

        Raises:
            MismatchError: another request's cache stands here, or was begun, or with other versions.
            DamageError: what stands here cannot be read.
        """
        draft = DepotDraft(**dict(request), environment=dict(environment), stored=dict(fields))
        if self.manifest() is None and not self.depot.put_if_absent(BUILDING, written(draft)):
            found = self.draft()
            if found is not None:
                require_same(self.name, found.request, request)
                require_versions(self.name, found.environment, environment)
        if (manifest := self.manifest()) is not None:
            require_same(self.name, manifest.request, request)
            return
        for name, data in tokenizer.items():
            self.depot.put_if_absent(f"{TOKENIZER}/{name}", data)

    def list_again(self) -> None:
        """List the files anew when a shard is asked for next."""
        self._until = float("-inf")

    def look_again(self, shard: int) -> None:
        """Ask the depot itself for a shard that was not committed when its files were listed last."""
        self._unsure.add(shard)

    def committed(self, field: str, shard: int) -> Record | None:
        """The record of a shard that is whole, its own or that of the manifest; else None.

        Of a shard that another worker commits it may be told some seconds late, see :meth:`look_again`.
        """
        if (known := self._known.get((field, shard))) is not None:
            return known
        files, name = self._files(), record_name(field, shard)
        record = self._record(field, shard) if shard in self._unsure or name in files else None
        if record is None and MANIFEST in files:
            record = self._listed(field, shard)
        if record is None or not (files.get(record.path) == record.num_bytes or self._is_whole(record)):
            return None
        self._known[field, shard] = record
        return record

    def num_committed(self, request: Request) -> int:
        """Row ranges of a request that are whole in all of its fields."""
        shards = range(request.num_shards)
        return sum(all(self.committed(field, shard) is not None for field in request.fields) for shard in shards)

    def commit(
        self,
        field: str,
        shard: int,
        rows: tuple[int, int],
        arrays: "Mapping[str, NDArray[Any]]",
        nonfinite: Mapping[int, int] | None = None,
    ) -> Record:
        """Put a shard and then its record, unless another worker was first.

        Returns:
            The record that counts: the first, but for one whose shard is lost, or that leaves out rows where this one
            leaves out none.

        Raises:
            DamageError: the cache is complete, and lacks this shard with another content.
        """
        with span("compress"):
            data = VERSION_2.pack(arrays)
        with span("hash"):
            record = VERSION_2.record(data, facts_of(field, shard, rows, nonfinite))
        with span("write and sync"):
            counts = self._place(record, data)
        self._known[field, shard] = counts
        return counts

    def commit_constants(self, field: str, arrays: "Mapping[str, NDArray[Any]]") -> Record:
        """Put what all rows of a field share, as :meth:`commit`."""
        return self.commit(field, CONSTANTS, (0, 0), arrays)

    def read(
        self, record: Record, field: StoredField, names: Collection[str] | None = None
    ) -> "dict[str, NDArray[Any]]":
        """Read a shard, or the constants, that is committed, as :meth:`~hskcache.store.commits.Committing.read`."""
        from hskcache.store.reading import shard_of

        try:
            return shard_of(self.depot.get(record.path), record, field, names)
        except FileNotFoundError:
            raise DamageError(f"{self.name}/{record.path} is missing") from None
        except DamageError as error:
            raise DamageError(f"{self.name}/{record.path} {error}") from None

    def remember(self, manifest: Manifest) -> None:
        """Take note of the manifest that stands now."""
        self._manifest = manifest
        self.list_again()

    def _place(self, record: Record, data: bytes) -> Record:
        """Put a shard and its record; gives the record that counts."""
        # A worker that slept while others finished leaves nothing.
        if self.manifest() is not None and (listed := self._listed(record.field, record.shard)) is not None:
            if listed.sha256 == record.sha256:
                self.depot.put(record.path, data)
            elif not self._is_whole(listed):
                raise DamageError(
                    f"{self.name}/{listed.path} is lost, and this machine makes another in its place; delete the cache "
                    "and build it again"
                )
            return listed
        name = record_name(record.field, record.shard)
        self.depot.put(record.path, data)
        for _ in range(_ATTEMPTS):
            if self.depot.put_if_absent(name, record.model_dump_json().encode() + b"\n"):
                return record
            first = self._record(record.field, record.shard)
            if first is not None and self._is_whole(first) and bool(first.skipped) <= bool(record.skipped):
                return first
            # It vouches for a shard that is lost, or of which too little was kept.
            self.depot.delete(name)
        raise DamageError(f"{self.name}/{name} cannot be read; delete it and give the same command again")

    def _files(self) -> dict[str, int]:
        """Sizes of the files as they were listed last."""
        with self._mutex:
            begun = time.monotonic()
            if begun >= self._until:
                self._sizes = {found.name: found.num_bytes for found in self.depot.list()}
                self._read_records()
                ended = time.monotonic()
                self._until = ended + max(_LOOK_S, 20 * (ended - begun))
            return self._sizes

    def _read_records(self) -> None:
        """Read the records that are listed and not known yet, many at a time."""
        listed = [(match[1], _number(match[2])) for name in self._sizes if (match := _RECORD.fullmatch(name))]
        new = [one for one in listed if one not in self._known]
        with ThreadPoolExecutor(_READERS, "hskcache-records") as readers:
            for place, record in zip(new, readers.map(lambda one: self._record(*one), new), strict=True):
                if record is not None and self._sizes.get(record.path) == record.num_bytes:
                    self._known[place] = record

    def _record(self, field: str, shard: int) -> Record | None:
        name = record_name(field, shard)
        try:
            record = VERSION_2.parse_record(self.depot.get(name), f"{self.name}/{name}")
        except (FileNotFoundError, DamageError):
            return None
        return record if (record.field, record.shard) == (field, shard) else None

    def _listed(self, field: str, shard: int) -> Record | None:
        """The record of a shard in the manifest, if that stands and lists it."""
        manifest = self.manifest()
        if manifest is None or field not in manifest.fields:
            return None
        if shard == CONSTANTS:
            return manifest.constants.get(field)
        records = manifest.shards[field]
        return records[shard] if shard < len(records) else None

    def _is_whole(self, record: Record) -> bool:
        """True if the file of a record has its size, which its last byte and the lack of another tell."""
        try:
            last = self.depot.get_range(record.path, max(0, record.num_bytes - 1), record.num_bytes + 1)
        except FileNotFoundError:
            return False
        return len(last) == min(1, record.num_bytes)


def _number(stem: str) -> int:
    return CONSTANTS if stem == stem_of(CONSTANTS) else int(stem)


def record_name(field: str, shard: int) -> str:
    """File of a shard's commit record."""
    return f"{field}/{stem_of(shard)}.json"
