"""A cache of an older version of the format, written anew in the one of today: the same rows, values and order.

Nothing is computed and nothing decompressed: the chunks of every shard stay what they are, with other documents about
them. The new cache grows as a build does, shard by shard, each with its commit record, the manifest last; a word of
which cache is upgraded stands in the folder until then, so that the same command goes on after a kill.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from hskcache import disk
from hskcache.disk import writing_to
from hskcache.errors import DamageError, MismatchError
from hskcache.move.arrival import alone_in
from hskcache.store.beside import README, Beside, read_beside
from hskcache.store.dimensions import dimension_names
from hskcache.store.files import read_file, remove_matching, sha256_hex, write_atomic
from hskcache.store.growth import stands, written
from hskcache.store.ledger import TOKENIZER, Ledger
from hskcache.store.manifest import Manifest
from hskcache.store.publishing import TEMPORARY, manifest_files, sweep
from hskcache.store.record import CONSTANTS, Record
from hskcache.store.shard import with_names
from hskcache.store.survey import Arriving, Complete, Upgrade, Upgrading, Vacant, survey, upgrade_in
from hskcache.store.tokenizer import tokenizer_files
from hskcache.store.version2 import VERSION_2


class Upgraded(NamedTuple):
    """A cache that was upgraded.

    Attributes:
        manifest: of the new one.
        old: of the old one.
        num_written: shards that were written, constants among them.
        num_kept: those that stood there from before.
    """

    manifest: Manifest
    old: Manifest
    num_written: int
    num_kept: int


def upgrade(old: Path, new: Path, on_progress: Callable[[int, int], object] | None = None) -> Upgraded:
    """Write a cache of an older version of the format anew in today's; the old one is not touched.

    Args:
        old: the cache.
        new: a folder that is new, empty, or where the same upgrade was begun; made if missing.
        on_progress: told of the bytes of each shard that is done, and of all.

    Raises:
        MismatchError: the cache is of today's version, or the folder holds something else; nothing is touched.
        DamageError: a file of the cache is missing or altered; what was whole is kept.
        CacheError: there is no complete cache, another process is at it, or the disk has too little room.
    """
    beside = read_beside(old)
    if beside.manifest.format == VERSION_2:
        raise MismatchError(f"{old} is of format version {VERSION_2.version} already; there is nothing to upgrade")
    with writing_to(new, "the shards that are there"), alone_in(new):
        done = _standing(new, beside.manifest)
        if done is not None:
            return Upgraded(done, beside.manifest, 0, beside.manifest.num_records)
        upgrade_in(new).begin(written(Upgrade(cache_id=beside.manifest.cache_id)))
        return _Upgrade(old, new, beside).run(on_progress or (lambda _num_bytes, _total: None))


class _Upgrade:
    def __init__(self, old: Path, new: Path, beside: Beside) -> None:
        self.old = old
        self.ledger = Ledger(new)
        self.beside = beside

    def run(self, on_progress: Callable[[int, int], object]) -> Upgraded:
        manifest, root = self.beside.manifest, self.ledger.root
        total, num_kept = manifest.num_bytes, 0
        need = sum(record.num_bytes for record in manifest.records if not self._is_there(record))
        disk.require_space(root, need, f"the shards of {root} need", "upgrade to another disk", "folder")
        for record in manifest.records:
            if self._is_there(record):
                num_kept += 1
            else:
                data = with_names(self._read(record), dimension_names)
                self.ledger.commit_packed(data, record.facts)
            on_progress(record.num_bytes, total)
        for name, data in self._files():
            write_atomic(root / name, data)
        return Upgraded(self._finish(), manifest, manifest.num_records - num_kept, num_kept)

    def _is_there(self, record: Record) -> bool:
        return self.ledger.is_committed(record.field, record.shard)

    def _read(self, record: Record) -> bytes:
        path = self.old / record.path
        try:
            data = read_file(path, record.num_bytes)
            if sha256_hex(data) != record.sha256:
                raise DamageError("has another content than was written: its SHA-256 differs")
        except FileNotFoundError:
            raise DamageError(f"{path} is missing; {_MEND}") from None
        except DamageError as error:
            raise DamageError(f"{path} {error}; {_MEND}") from None
        return data

    def _files(self) -> Iterator[tuple[str, bytes]]:
        for name, data in self.beside.tokenizer.items():
            yield f"{TOKENIZER}/{name}", data
        if self.beside.readme is not None:
            yield README, self.beside.readme

    def _finish(self) -> Manifest:
        """Write the manifest, which completes the new cache, and remove what led to it."""
        old, root = self.beside.manifest, self.ledger.root
        # What a kill has left half written is none of the tokenizer's files.
        for path in (root / TOKENIZER).rglob(TEMPORARY):
            path.unlink()
        changes = {
            "format": VERSION_2,
            "shards": {name: VERSION_2.records(name, self.ledger.records(name, old.request)) for name in old.fields},
            "constants": {name: self.ledger.committed(name, CONSTANTS) for name in old.constants},
            "tokenizer": tokenizer_files(root / TOKENIZER),
            "upgraded_from": old.cache_id,
        }
        manifest = self.ledger.complete(old.model_copy(update=changes))
        sweep(root, manifest, manifest.fields)
        remove_matching(root, TEMPORARY)
        upgrade_in(root).end()
        return manifest


def _standing(new: Path, old: Manifest) -> Manifest | None:
    """The manifest of the new cache if it stands there and nothing is left to do.

    Raises:
        MismatchError: something else stands in the folder.
    """
    refusal = f"{new} holds something else than what {old.cache_id[:12]} becomes; choose another folder or empty it"
    said, state = upgrade_in(new).said(), survey(new)
    begun = said is not None and said.cache_id == old.cache_id
    match state:
        case Complete() as found if (manifest := found.intact()).upgraded_from == old.cache_id:
            whole = not begun and all(stands(new / name) for name in manifest_files(manifest))
            return manifest if whole else None
        case Vacant():
            return None
        case Upgrading(growth=growth) | Arriving(growth=growth) if begun or not growth.stands:
            return None
    raise MismatchError(refusal)


_MEND = "`hskcache verify` tells all that is wrong, `hskcache repair` mends it"
