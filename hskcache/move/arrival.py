"""A cache that arrives in a folder: from a tar or an HDF5 file, whole, or from a URL, in part perhaps.

It arrives as it was built: each shard, then its record, the manifest last. Until then ``.arriving.json`` is the
manifest that it will have, so that the same command goes on after a kill and no other cache is mixed in.
"""

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from hskcache import disk
from hskcache.disk import sync_folder
from hskcache.errors import CacheError, DamageError, MismatchError
from hskcache.locks import locked
from hskcache.store.beside import README, Beside, is_file_of, spelled
from hskcache.store.files import make_folder, remove_matching, write_atomic
from hskcache.store.growth import ARRIVING_LOCK, clear_locks
from hskcache.store.ledger import TOKENIZER, Ledger
from hskcache.store.manifest import Manifest
from hskcache.store.publishing import TEMPORARY, manifest_files, sweep_index, write_index
from hskcache.store.record import Record
from hskcache.store.survey import Arriving, Building, Complete, Vacant, arrival_in, survey
from hskcache.store.tokenizer import digest_of, tokenizer_digest


class Landed(NamedTuple):
    """A cache that arrived: its manifest, and how many shards were written and how many already stood there."""

    manifest: Manifest
    num_written: int
    num_kept: int


@contextmanager
def alone_in(root: Path) -> Iterator[None]:
    """Be the one process that brings a cache into a folder, which is made if missing.

    Raises:
        CacheError: another process does, or what stands there is no folder.
        OSError: the folder cannot be written.
    """
    if root.exists() and not root.is_dir():
        raise MismatchError(f"{root} is a file; choose a folder")
    make_folder(root.absolute())
    with locked(root / ARRIVING_LOCK, wait=False, remove=True) as held:
        if not held:
            raise CacheError(f"another process is writing {root}; wait until it is done")
        yield


@contextmanager
def arriving(root: Path, manifest: Manifest) -> Iterator["Arrival"]:
    """Bring a whole cache into a folder that is new, empty or has a part of it.

    Raises:
        MismatchError: the folder holds another cache, or something else; nothing is touched.
        CacheError: another process does, or the disk has too little room or cannot be written.
    """
    with disk.writing_to(root, "the shards that are there"):
        _check_room(root, manifest)
        with alone_in(root):
            arrival = Arrival(root, manifest)
            need = sum(record.num_bytes for record in manifest.records if not arrival.may_have(record))
            disk.require_space(root, need, f"the shards of {root} need", "let them arrive elsewhere", "folder")
            if not isinstance(survey(root), Complete):
                arrival.begin()
            yield arrival


class Arrival:
    """A folder that a cache arrives in.

    Attributes:
        num_written: shards that were written.
        num_kept: shards that already stood there.
    """

    def __init__(self, root: Path, manifest: Manifest) -> None:
        self._ledger = Ledger(root)
        self._ledger.format = manifest.format
        self._root = root
        self._growth = arrival_in(root)
        self._manifest = manifest
        self._has_records = manifest.format.keeps_records
        self.num_written = self.num_kept = 0

    def begin(self) -> None:
        """Leave word of what arrives here, and the pages of its records."""
        self._growth.begin(self._manifest.to_json())
        write_index(self._root, self._manifest)

    def may_have(self, record: Record) -> bool:
        """True if a shard seems to stand here: a file of its size and, where shards have such, its record."""
        if self._has_records:
            return self._ledger.committed(record.field, record.shard) == record
        try:
            return self._ledger.shard_path(record).lstat().st_size == record.num_bytes
        except OSError:
            return False

    def keeps(self, record: Record) -> bool:
        """True if a shard and its record stand here with the content they should have; then it counts as kept."""
        path = self._ledger.shard_path(record)
        fits = self.may_have(record) and is_file_of(path, record)
        self.num_kept += fits
        return fits

    def put_shard(self, record: Record, data: bytes | Iterable[bytes]) -> None:
        """Write the file of a shard, which nothing vouches for until :meth:`put_record`; ``data`` or pieces of it."""
        self.disown(record)
        write_atomic(self._ledger.shard_path(record), data)

    def disown(self, record: Record) -> None:
        """Remove the record of a shard that is about to be replaced, if it has one, as it is of another file."""
        if not self._has_records:
            return
        path = self._ledger.record_path(record.field, record.shard)
        if path.exists() or path.is_symlink():
            path.unlink()
            sync_folder(path.parent)

    def put_record(self, record: Record) -> None:
        """Count a shard as written, and write its record where shards have such."""
        if self._has_records:
            write_atomic(self._ledger.record_path(record.field, record.shard), spelled(record))
        self.num_written += 1

    def put_beside(self, beside: Beside) -> None:
        """Write the tokenizer and the README, unless they stand here.

        Raises:
            DamageError: the tokenizer is not the one that the manifest names; nothing is written.
        """
        if digest_of(beside.tokenizer) != self._manifest.request.tokenizer.sha256:
            raise DamageError("holds other tokenizer files than the rows were tokenized with")
        if not self.has_tokenizer():
            self.put_tokenizer(beside.tokenizer)
        if beside.readme is not None and not (self._root / README).exists():
            write_atomic(self._root / README, beside.readme)

    def has_tokenizer(self) -> bool:
        """True if the tokenizer stands here."""
        folder = self._root / TOKENIZER
        try:
            return not folder.is_symlink() and tokenizer_digest(folder) == self._manifest.request.tokenizer.sha256
        except DamageError:
            return False

    def put_tokenizer(self, files: Mapping[str, bytes]) -> None:
        """Write the tokenizer's files in place of whatever stands there."""
        folder = self._root / TOKENIZER
        if folder.is_symlink() or folder.is_file():
            folder.unlink()
        elif folder.exists():
            shutil.rmtree(folder)
        for name, data in files.items():
            write_atomic(folder / name, data)

    def finish(self, data: bytes, manifest: Manifest) -> Landed:
        """Write the manifest, which completes the cache, and remove what a kill may have left.

        Args:
            data: content of manifest.json; one that stands here stays as it is.
            manifest: the same, read.
        """
        write_index(self._root, manifest)
        for name in manifest_files(manifest):
            if not (self._root / name).exists():
                write_atomic(self._root / name, data)
        self.clear(manifest)
        return Landed(manifest, self.num_written, self.num_kept)

    def clear(self, manifest: Manifest) -> None:
        """Remove the word of what arrives, which is here, and what a kill may have left."""
        sweep_index(self._root, manifest)
        for folder in [self._root, *(self._root / name for name in manifest.fields)]:
            remove_matching(folder, TEMPORARY)
        self._growth.end()
        clear_locks(self._root)


def _check_room(root: Path, manifest: Manifest) -> None:
    """Raise unless a folder is free for a cache, or has some of it."""
    match survey(root):
        case Complete() as found:
            standing: Manifest | None = found.intact()
        case Arriving(growth=growth):
            standing = growth.said()
        case Building():
            raise MismatchError(f"{root} is a build that was cut off; choose another folder, or delete this one")
        case Vacant():
            standing = None
        case _:
            raise MismatchError(f"{root} holds files that are not a cache's; choose another folder or empty it")
    if standing is not None and standing.cache_id != manifest.cache_id:
        raise MismatchError(
            f"{root} holds the cache {standing.cache_id[:12]} and not {manifest.cache_id[:12]}; choose another folder, "
            "or delete this one"
        )
