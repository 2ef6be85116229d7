"""The commit protocol: which files make a cache, in which order they appear, and what their presence proves.

A build begins with ``building.json`` (the request). Each shard is written, then its commit record; a shard without
a record that fits it does not count. ``manifest.json`` comes last, and with it the cache is complete. Every file
appears at once (``files.write_atomic``), so that a kill at any moment leaves a folder from which the same build goes
on: what is recorded is whole, and what is not is computed again. Several processes may commit different shards.
"""

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
from hskcache.store.consistency import check, parse_manifest
from hskcache.store.fields import Field
from hskcache.store.files import TEMPORARY_SUFFIX, remove_matching, sha256_hex, write_atomic
from hskcache.store.manifest import Manifest, Request
from hskcache.store.reading import read_document
from hskcache.store.record import CONSTANTS, Record, Skipped, describe, parse
from hskcache.store.shard import pack_shard
from hskcache.store.version1 import VERSION_1

MANIFEST = "manifest.json"
BUILDING = "building.json"
TOKENIZER = "tokenizer"
LOCK = ".lock"
"""Held by whoever replaces the manifest of a complete cache; readers and hubs leave such names alone."""
TEMPORARY = f"*{TEMPORARY_SUFFIX}"
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
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def shard_path(self, record: Record) -> Path:
        """File of a shard, or of the constants."""
        return self.root / record.path

    def record_path(self, field: str, shard: int) -> Path:
        """File of a shard's commit record."""
        return self.root / field / f"{_stem(shard)}.json"

    def begin(self, request: Request) -> None:
        """Start a build here, or go on with one of the same request.

        Raises:
            MismatchError: the folder holds another request's cache, or something that is no cache; nothing is touched.
            DamageError: the folder holds a cache whose manifest or request cannot be read.
        """
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

    def require_room(self) -> None:
        """See that a build may begin here, where none has begun.

        Raises:
            MismatchError: the folder holds something that is no cache.
        """
        if self.root.is_dir() and any(not _is_leftover(path) for path in self.root.iterdir()):
            raise MismatchError(f"{self.root} holds files that are not a cache's; choose another folder or empty it")

    def request(self) -> Request | None:
        """The request of the cache or the unfinished build that stands here, or None."""
        if (self.root / MANIFEST).exists():
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
        data = pack_shard(arrays)
        record = Record(
            field=field,
            shard=shard,
            start=rows[0],
            stop=rows[1],
            num_bytes=len(data),
            sha256=sha256_hex(data),
            num_nonfinite=sum((nonfinite or {}).values()),
            skipped=[Skipped(row=row, reason="nonfinite") for row in sorted(nonfinite or {})],
            arrays=describe(arrays),
        )
        path = self.record_path(field, shard)
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
        record = parse(Record, read_document(path), str(path))
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
        manifest = Manifest(
            format=VERSION_1,
            cache_id="0" * 64,
            request_digest=request.digest,
            request=request,
            fields=dict(fields),
            shards={field: VERSION_1.records(self.records(field, request)) for field in fields},
            constants={field: record for field in fields if (record := self.committed(field, CONSTANTS)) is not None},
            environment=dict(environment),
            agreement=dict(agreement or {}),
        )
        # Where there is no manifest yet, nobody else may write one.
        with locked(self.root / LOCK, remove=True) if (self.root / MANIFEST).exists() else nullcontext():
            if (self.root / MANIFEST).exists():
                standing = self.intact()
                self._compare(standing.request, request)
                manifest = manifest.with_added(standing)
            manifest = manifest.signed()
            check(manifest)
            write_atomic(self.root / MANIFEST, manifest.to_json())
            remove_matching(self.root, TEMPORARY)
        _remove_spool(self.root / SPOOL)
        (self.root / BUILDING).unlink(missing_ok=True)
        for name in [TOKENIZER, *fields]:
            remove_matching(self.root / name, TEMPORARY)
        return manifest

    def committed(self, field: str, shard: int) -> Record | None:
        """A shard's commit record if the shard is whole, else None."""
        try:
            record = self.record(field, shard)
            return record if self.shard_path(record).stat().st_size == record.num_bytes else None
        except (OSError, DamageError):
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
        path = self.root / MANIFEST
        try:
            return parse_manifest(read_document(path), str(path))
        except (FileNotFoundError, NotADirectoryError):
            pass
        request = self.request()
        if request is not None:
            raise MismatchError(
                f"{self.root} is a build that was cut off: {self.num_committed(request)} of {request.num_shards} "
                "shards are written; run the same build command again to finish"
            )
        what = "has no manifest.json, so it is not a cache" if self.root.exists() else "does not exist"
        raise CacheError(f"{self.root} {what}; give the folder that a build wrote")

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


def _stem(shard: int) -> str:
    return "constants" if shard == CONSTANTS else f"{shard:06d}"


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
