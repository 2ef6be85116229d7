"""The commit protocol: which files make a cache, in which order they appear, and what their presence proves.

A build begins with ``building.json`` (the request). Each shard is written, then its commit record; a shard without
a record that fits it does not count. At the end come the pages of records, ``manifest.copy.json`` and, the same again,
``manifest.json``, with which the cache is complete; then the commit records are removed, and ``building.json`` last.
Every file appears at once (``files.write_atomic``), so that a kill at any moment leaves a folder from which the same
build goes on: what is recorded is whole, and what is not is computed again. Several processes may commit different
shards.
"""

import shlex
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from hskcache.disk import sync_folder
from hskcache.errors import CacheError, DamageError, MismatchError
from hskcache.locks import locked
from hskcache.store.agreement import Agreement
from hskcache.store.claims import CLAIMS
from hskcache.store.consistency import parse_manifest
from hskcache.store.fields import Field
from hskcache.store.files import TEMPORARY_SUFFIX, read_file, remove_matching, write_atomic
from hskcache.store.manifest import Format, Manifest, Request
from hskcache.store.publishing import COPY, MANIFEST, TEMPORARY, publish, sweep
from hskcache.store.reading import read_document
from hskcache.store.record import CONSTANTS, Record, Skipped, parse, stem_of
from hskcache.store.tokenizer import tokenizer_files
from hskcache.store.version2 import VERSION_2

BUILDING = "building.json"
TOKENIZER = "tokenizer"
LOCK = ".lock"
"""Held by whoever replaces the manifest of a complete cache; readers and hubs leave such names alone."""
SPOOL = "building"
"""Folder of the rows of a corpus, which a build needs until it is done."""
SPOOL_FILES = frozenset(
    f"{stem}{name}"
    for stem in ("", "documents.")
    for name in ("ids.bin", "offsets.bin", "types.bin", "rows.json", "rows.json.tmp")
)


class Ledger:
    """The files of one cache.

    Attributes:
        root: the cache's directory.
        format: version of the format in which shards are committed.
    """

    format: Format = VERSION_2

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known: tuple[object, Manifest | None] = None, None

    def shard_path(self, record: Record) -> Path:
        """File of a shard, or of the constants."""
        return self.root / record.path

    def record_path(self, field: str, shard: int) -> Path:
        """File of a shard's commit record."""
        return self.root / field / f"{stem_of(shard)}.json"

    def is_complete(self) -> bool:
        """Whether a manifest stands here, itself or its copy."""
        return (self.root / MANIFEST).exists() or (self.root / COPY).exists()

    def begin(self, request: Request) -> None:
        """Start a build here, or go on with one of the same request.

        Raises:
            MismatchError: the folder holds another request's cache, or something that is no cache; nothing is touched.
            DamageError: the folder holds a cache whose manifest or request cannot be read.
        """
        if self.is_complete():
            self.require_current(self.manifest())
        found = self.request()
        if found is None:
            self.require_room()
            write_atomic(self.root / BUILDING, request.model_dump_json(indent=1).encode() + b"\n")
            return
        self._compare(found, request)

    def _compare(self, found: Request, request: Request) -> None:
        """See that what stands here is what a build asks for.

        Raises:
            MismatchError: it is not; tells the first difference.
        """
        if found.digest == request.digest:
            return
        if found.appended and found.model_copy(update={"appended": []}).digest == request.digest:
            raise MismatchError(
                f"{self.root} is built, and {found.num_rows - request.num_rows} rows were appended to it since; to "
                "append more give hskcache append, and to mend it hskcache repair"
            )
        path, here, wanted = found.difference(request) or ("the request", "another", "this")
        raise MismatchError(
            f"{self.root} was begun with {path} = {here!s:.80} and this build asks for {wanted!s:.80}; choose another "
            "folder, delete this one, or ask for the same"
        )

    def require_current(self, manifest: Manifest) -> None:
        """Raise unless the cache is of the version of the format that is written.

        Raises:
            MismatchError: it is of an older one.
        """
        if manifest.format != VERSION_2:
            raise MismatchError(
                f"{self.root} is of format version {manifest.format_version}, which is read and no longer written; "
                f"first give {shlex.join(['hskcache', 'upgrade', str(self.root), 'NEW'])}"
            )

    def require_room(self) -> None:
        """See that a build may begin here, where none has begun.

        Raises:
            MismatchError: the folder holds something that is no cache.
        """
        if self.root.is_dir() and any(not _is_leftover(path) for path in self.root.iterdir()):
            raise MismatchError(f"{self.root} holds files that are not a cache's; choose another folder or empty it")

    def request(self) -> Request | None:
        """The request of the cache or the unfinished build that stands here, or None."""
        if self.is_complete():
            return self.manifest().request
        try:
            return parse(Request, read_document(self.root / BUILDING), str(self.root / BUILDING))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except DamageError as error:
            raise DamageError(
                f"{error}; go on with hskcache repair and the teacher, the data and the flags of the build, or delete "
                f"{self.root}"
            ) from None

    def is_committed(self, field: str, shard: int) -> bool:
        """Whether a shard is whole: its record can be read and the file has the size that it tells."""
        return self.committed(field, shard) is not None

    def num_committed(self, request: Request) -> int:
        """Row ranges of a request that are whole in all of its fields."""
        written = {
            int(path.stem) for path in (self.root / request.fields[0]).glob("[0-9]*.json") if path.stem.isdecimal()
        }
        return sum(all(self.is_committed(field, shard) for field in request.fields) for shard in written)

    def commit(
        self,
        field: str,
        shard: int,
        rows: tuple[int, int],
        arrays: Mapping[str, NDArray[Any]],
        nonfinite: Mapping[int, int] | None = None,
    ) -> Record:
        """Write a shard and then its record.

        Args:
            field: name of the field.
            shard: number of the shard.
            rows: its row range [start, stop).
            arrays: what to store, by the names of the format.
            nonfinite: rows of the cache that are left out, with how many of their values were NaN or infinite; the
                arrays hold zeros in their place.
        """
        data = self.format.pack(arrays)
        facts = {
            "field": field,
            "shard": shard,
            "start": rows[0],
            "stop": rows[1],
            "num_nonfinite": sum((nonfinite or {}).values()),
            "skipped": [Skipped(row=row, reason="nonfinite") for row in sorted(nonfinite or {})],
        }
        return self.commit_packed(data, facts)

    def commit_packed(self, data: bytes, facts: Mapping[str, Any]) -> Record:
        """Write a shard that is packed already, and then its record.

        Args:
            data: the shard.
            facts: of its record, as :attr:`~hskcache.store.record.Record.facts`.
        """
        record = self.format.record(data, facts)
        path = self.record_path(record.field, record.shard)
        if path.exists():
            # The old record must not vouch for the new shard if the build is killed between the two.
            path.unlink()
            sync_folder(path.parent)
        write_atomic(self.shard_path(record), data)
        write_atomic(path, record.model_dump_json().encode() + b"\n")
        return record

    def commit_constants(self, field: str, arrays: Mapping[str, NDArray[Any]]) -> Record:
        """Write what all rows of a field share."""
        return self.commit(field, CONSTANTS, (0, 0), arrays)

    def record(self, field: str, shard: int) -> Record:
        """A shard's commit record.

        Raises:
            DamageError: it is of another shard or cannot be parsed.
            OSError: it is missing or cannot be read.
        """
        path = self.record_path(field, shard)
        record = self.format.parse_record(read_document(path), str(path))
        if (record.field, record.shard) != (field, shard):
            raise DamageError(f"{path} is the record of {record.field} shard {record.shard}; build again")
        return record

    def finish(
        self,
        request: Request,
        fields: Mapping[str, Field],
        environment: Mapping[str, str],
        agreement: Mapping[str, Agreement] | None = None,
    ) -> Manifest:
        """Write the manifest, which completes the cache, and remove what the build left behind.

        Fields that were added to the cache before, when it was complete, stay in it.

        Args:
            request: of the cache.
            fields: that it asks for.
            environment: what computed them.
            agreement: of logits with the labels, by field.

        Raises:
            MismatchError: a shard is not committed, or rows were appended meanwhile to what another process finished.
            DamageError: a shard does not hold what its field stores.
        """
        # What a kill has left half written is none of the tokenizer's files.
        for path in (self.root / TOKENIZER).rglob(TEMPORARY):
            path.unlink(missing_ok=True)
        manifest = Manifest(
            format=VERSION_2,
            cache_id="0" * 64,
            request_digest=request.digest,
            request=request,
            fields=dict(fields),
            shards={field: VERSION_2.records(field, self.records(field, request)) for field in fields},
            constants={field: record for field in fields if (record := self.committed(field, CONSTANTS)) is not None},
            tokenizer=tokenizer_files(self.root / TOKENIZER),
            environment=dict(environment),
            agreement=dict(agreement or {}),
        )
        # Where there is no manifest yet, nobody else may write one.
        with locked(self.root / LOCK, remove=True) if self.is_complete() else nullcontext():
            if self.is_complete():
                standing = self.intact()
                self.require_current(standing)
                self._compare(standing.request, request)
                manifest = manifest.with_added(standing)
            manifest = manifest.signed()
            publish(self.root, manifest)
            remove_matching(self.root, TEMPORARY)
        sweep(self.root, manifest, fields)
        _remove_spool(self.root / SPOOL)
        (self.root / BUILDING).unlink(missing_ok=True)
        return manifest

    def committed(self, field: str, shard: int) -> Record | None:
        """The record of a shard that is whole, from beside it or, where it is removed, from the manifest; else None."""
        try:
            record: Record | None = self.record(field, shard)
        except (OSError, DamageError):
            record = self._listed(field, shard)
        try:
            whole = record is not None and self.shard_path(record).stat().st_size == record.num_bytes
        except OSError:
            return None
        return record if whole else None

    def _listed(self, field: str, shard: int) -> Record | None:
        """The record of a shard in the manifest that stands here, if there is one and it lists that."""
        known = tuple(_stat(self.root / name) for name in (MANIFEST, COPY))
        if self._known[0] != known:
            try:
                self._known = known, self.manifest() if any(known) else None
            except CacheError:
                self._known = known, None
        manifest = self._known[1]
        if manifest is None or field not in manifest.fields:
            return None
        if shard == CONSTANTS:
            return manifest.constants.get(field)
        records = manifest.shards[field]
        try:
            return records[shard] if shard < len(records) else None
        except DamageError:
            return None

    def records(self, field: str, request: Request) -> list[Record]:
        """The commit records of every shard of a field, in order.

        Raises:
            MismatchError: a shard is not whole.
        """
        records = [self.committed(field, shard) for shard in range(request.num_shards)]
        missing = [shard for shard, record in enumerate(records) if record is None]
        if missing:
            raise MismatchError(
                f"{self.root} lacks {len(missing)} of the {len(records)} shards of {field}, the first being shard "
                f"{missing[0]}; run the same build command again to finish"
            )
        return [record for record in records if record is not None]

    def manifest(self) -> Manifest:
        """The manifest of the complete cache that stands here.

        Raises:
            CacheError: there is nothing here, or no cache.
            MismatchError: the build is not finished, or the format is newer than this program.
            DamageError: the manifest cannot be read.
        """
        damage, edited = None, None
        for name in (MANIFEST, COPY):
            path = self.root / name
            try:
                manifest = parse_manifest(read_document(path), str(path), self.read_page)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except DamageError as error:
                # What is wrong with the manifest itself says more than what is with its copy.
                damage = damage or error
                continue
            if not manifest.edits():
                return manifest
            edited = edited or manifest
        if damage is not None:
            raise damage
        if edited is not None:
            return edited
        request = self.request()
        if request is not None:
            raise MismatchError(
                f"{self.root} is a build that was cut off: {self.num_committed(request)} of {request.num_shards} "
                "shards are written; run the same build command again to finish"
            )
        what = "has no manifest.json, so it is not a cache" if self.root.exists() else "does not exist"
        raise CacheError(f"{self.root} {what}; give the folder that a build wrote")

    def read_page(self, path: str, most_bytes: int) -> bytes:
        """Content of a page, by its path from the cache's directory.

        Raises:
            DamageError: it is no regular file, or larger.
            OSError: it is missing or cannot be read.
        """
        return read_file(self.root / path, most_bytes)

    def intact(self) -> Manifest:
        """The manifest of the complete cache that stands here, once it is known that nobody has changed it by hand.

        Raises:
            DamageError: it was edited.
            CacheError: as :meth:`manifest`.
        """
        manifest = self.manifest()
        if edits := manifest.edits():
            raise DamageError(
                f"{self.root / MANIFEST} was edited: {edits[0]}; fetch the cache again, or delete it and build it again"
            )
        return manifest


def _stat(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _is_leftover(path: Path) -> bool:
    """Whether a file is what a kill before or during :meth:`Ledger.begin` leaves."""
    if path.name == SPOOL and path.is_dir():
        return {inside.name for inside in path.iterdir()} <= SPOOL_FILES
    return path.name == CLAIMS or (path.name.startswith(BUILDING) and path.name.endswith(TEMPORARY_SUFFIX))


def _remove_spool(folder: Path) -> None:
    """Remove the rows of a corpus; what else somebody may have put there stays."""
    if not folder.is_dir():
        return
    for name in SPOOL_FILES:
        (folder / name).unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()
