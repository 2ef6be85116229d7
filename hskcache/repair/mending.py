"""Mend a damaged cache from what is certain: its manifest, and another copy of the same bytes.

Nothing takes the place of a file before its digest is that of the manifest, so that a cache which was mended has the id
that it always had. What is on its way stands in a folder of its own, ``.repair``, which readers leave alone.
"""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from hskcache.disk import sync_folder
from hskcache.errors import CacheError, DamageError
from hskcache.locks import locked
from hskcache.store.beside import is_file_of
from hskcache.store.files import canonical_json, file_sha256, sha256_hex, write_atomic
from hskcache.store.growing import forget, is_growing, is_left_over
from hskcache.store.growth import LOCK, clear_locks
from hskcache.store.ledger import TOKENIZER, Ledger
from hskcache.store.manifest import Manifest
from hskcache.store.pages import IndexFile, make_page
from hskcache.store.publishing import holds, is_page, manifest_files, write_manifest
from hskcache.store.record import NamedRecord, Record
from hskcache.verify import Problem

REPAIR = ".repair"
"""Folder of a cache in which new files stand until they are known to be the right ones."""

_LOCK = f"{LOCK}-repair"
_MOST_EXTRA = 3


@dataclass(frozen=True)
class Damage:
    """Damage of a cache whose manifest is intact, by what mends it.

    Attributes:
        shards: whose files are missing or altered.
        records: whose commit records are, in version 1, while their files are good.
        has_bad_tokenizer: whether the tokenizer's files are others than the rows were made with.
        leftovers: what a build or an addition has left that is done; paths within the cache.
        extra: files that belong to nothing; paths within the cache.
    """

    shards: list[Record]
    records: list[Record]
    has_bad_tokenizer: bool
    leftovers: list[str]
    extra: list[str]

    def of_field(self, name: str | None) -> "Damage":
        """Damage in the folder of one field; None: all."""
        if name is None:
            return self
        inside = f"{name}/"
        return Damage(
            shards=[record for record in self.shards if record.field == name],
            records=[record for record in self.records if record.field == name],
            has_bad_tokenizer=False,
            leftovers=[file for file in self.leftovers if file.startswith(inside)],
            extra=[file for file in self.extra if file.startswith(inside)],
        )


def damage_of(ledger: Ledger, manifest: Manifest, problems: Iterable[Problem]) -> Damage:
    """Sort what was found by what mends it.

    Args:
        ledger: the cache.
        manifest: of it, intact.
        problems: as :func:`hskcache.verify.verify` reports them.
    """
    files = {problem.file for problem in problems}
    known = {TOKENIZER, *manifest_files(manifest), *(file.path for file in manifest.index)}
    shards, records = [], []
    for record in manifest.records:
        shard, own = record.path, record_file(record)
        known.add(shard)
        if manifest.format.keeps_records:
            known.add(own)
        if shard in files:
            shards.append(record)
        elif own in files and manifest.format.keeps_records:
            records.append(record)
    other = sorted(file for file in files - known if _is_there(ledger.root / file))
    leftovers = [file for file in other if is_left_over(ledger, manifest, file)]
    extra = [file for file in other if file not in leftovers and not is_growing(ledger, manifest, file)]
    if TOKENIZER in files:
        inside = (f"{TOKENIZER}/{name}" for name in _names_in(ledger.root / TOKENIZER))
        leftovers += sorted(file for file in inside if is_left_over(ledger, manifest, file))
    return Damage(shards, records, TOKENIZER in files, leftovers, extra)


def record_file(record: Record) -> str:
    """The commit record of a shard, as a path within a cache."""
    return Ledger(Path()).record_path(record.field, record.shard).as_posix()


def bad_pages(ledger: Ledger, manifest: Manifest) -> list[IndexFile]:
    """The pages of records that are missing or altered."""
    return [file for file in manifest.index if not is_page(ledger.root, file)]


def rebuild_page(ledger: Ledger, manifest: Manifest, file: IndexFile) -> bool:
    """Write a page of records anew from the shards that it is of, if they are all whole.

    Returns:
        Whether that gives the page. It does not where values were not finite, as the shards do not tell which.
    """
    page, folder = file.page, ledger.root / file.field
    shards = range(page.shard, page.shard + page.num_records)
    found = sorted(path for path in folder.glob("[0-9]*.zarr.zip") if path.is_file() and not path.is_symlink())
    if len(found) != len(manifest.shards[file.field]) or _is_blocked(ledger.root / file.path):
        return False
    records = []
    try:
        for shard in shards:
            start, stop = manifest.request.shards[shard]
            facts = {"field": file.field, "shard": shard, "start": start, "stop": stop, "num_nonfinite": 0}
            record = manifest.format.record(found[shard].read_bytes(), facts | {"skipped": []})
            records.append(record.model_copy(update={"file": found[shard].name}))
    except (OSError, DamageError):
        return False
    data = make_page(page.shard, records)[1]
    if sha256_hex(data) != page.sha256:
        return False
    write_atomic(ledger.root / file.path, data)
    return True


@contextmanager
def repairing(ledger: Ledger) -> Iterator[None]:
    """Be the one process that mends a cache.

    Raises:
        CacheError: another process is, or the file system knows no locks and several were started.
        DamageError: the place for new files is no folder of the cache.
        OSError: the cache cannot be written.
    """
    place = ledger.root / REPAIR
    if place.is_symlink() or (place.exists() and not place.is_dir()):
        raise DamageError(f"{place} is a file or a symbolic link where a folder is needed; delete it")
    with locked(ledger.root / _LOCK, wait=False, remove=True) as held:
        if not held:
            raise CacheError(f"another process is repairing {ledger.root}; wait until it is done")
        yield


def mend_manifest(ledger: Ledger) -> list[str]:
    """Write whichever of the manifest and its copy is not what the other says; returns the names of these files."""
    with locked(ledger.root / LOCK, remove=True):
        manifest = ledger.intact()
        bad = [name for name in manifest_files(manifest) if not holds(ledger.root / name, manifest.to_json())]
        # Of version 1 there is no copy, and several spellings.
        if manifest.format.keeps_records or any(_is_blocked(ledger.root / name) for name in bad):
            return []
        write_manifest(ledger.root, manifest)
        return bad


def mend_from_manifest(ledger: Ledger, damage: Damage, remove_extra: bool) -> list[str]:
    """Write commit records anew, remove leftovers, and put in place what an earlier repair has made.

    Args:
        ledger: the cache.
        damage: of it.
        remove_extra: whether to remove files that belong to nothing.

    Returns:
        The files that were written or removed, as paths within the cache.
    """
    mended = []
    # Whoever holds this lock is replacing the manifest, and the half written file is his.
    with locked(ledger.root / LOCK, remove=True):
        listed = _listed(ledger.intact())
        for file in [*damage.leftovers, *(damage.extra if remove_extra else [])]:
            if file in listed:
                # Between the look and the lock another process has finished what it was writing.
                continue
            if file in damage.leftovers:
                forget(ledger, ledger.intact(), file)
            _remove(ledger.root, file)
            mended.append(file)
    mended += [record_file(record) for record in damage.records if write_record(ledger, record)]
    return mended + [record.path for record in damage.shards if put_in_place(ledger, record)]


def _listed(manifest: Manifest) -> set[str]:
    """Pages and shards that a manifest lists."""
    return {file.path for file in manifest.index} | {record.path for record in manifest.records}


def write_record(ledger: Ledger, record: Record) -> bool:
    """Write a commit record as the manifest has it; whether it can be, as no folder stands in its place."""
    path = ledger.record_path(record.field, record.shard)
    if _is_blocked(path):
        return False
    # Spelled as it was written, by an earlier version perhaps.
    write_atomic(path, record.model_dump_json(exclude_unset=True).encode() + b"\n")
    return True


def waiting_path(ledger: Ledger, record: Record) -> Path:
    """Path of a new file of a shard until it is known to be the right one."""
    return Ledger(ledger.root / REPAIR).shard_path(record)


def put_in_place(ledger: Ledger, record: Record) -> bool:
    """Replace a shard by the new file of it, if there is one and its digest is the manifest's.

    Returns:
        Whether it was replaced; if not, nothing was touched.
    """
    waiting, path = waiting_path(ledger, record), ledger.shard_path(record)
    if _is_blocked(path) or not is_file_of(waiting, record):
        return False
    path.parent.mkdir(exist_ok=True)
    waiting.replace(path)
    sync_folder(path.parent)
    if not isinstance(record, NamedRecord):
        write_record(ledger, record)
    return True


def clear(ledger: Ledger) -> None:
    """Remove the folder of new files, with what was not needed, and locks of the dead."""
    clear_locks(ledger.root)
    shutil.rmtree(ledger.root / REPAIR, ignore_errors=True)


def mend_tokenizer(ledger: Ledger, manifest: Manifest, files: dict[str, bytes], remove_extra: bool) -> bool:
    """Write the tokenizer's files anew, if they are those that the rows were made with.

    Args:
        ledger: the cache.
        manifest: of it.
        files: content by path within the tokenizer's folder.
        remove_extra: whether to remove what else stands in the folder.

    Returns:
        Whether the files given are the right ones; if not, nothing was touched.
    """
    pairs = sorted((name, sha256_hex(data)) for name, data in files.items())
    if sha256_hex(canonical_json(pairs)) != manifest.request.tokenizer.sha256:
        return False
    folder = ledger.root / TOKENIZER
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        return False
    for name, data in files.items():
        path = folder / name
        if path.is_symlink() or not path.is_file() or path.read_bytes() != data:
            write_atomic(path, data)
    for name in _names_in(folder) - files.keys() if remove_extra else ():
        _remove(folder, name)
    return True


def drop_from_tokenizer(ledger: Ledger, manifest: Manifest) -> list[str]:
    """Remove the few files of the tokenizer's folder without which it is what the rows were made with.

    Returns:
        What was removed, as paths within the cache; nothing where no such files are found.
    """
    folder = ledger.root / TOKENIZER
    digests = {name: file_sha256(folder / name) for name in _names_in(folder) if (folder / name).is_file()}
    for count in range(1, min(_MOST_EXTRA, len(digests) - 1) + 1):
        for dropped in combinations(sorted(digests), count):
            kept = sorted((name, digest) for name, digest in digests.items() if name not in dropped)
            if sha256_hex(canonical_json(kept)) == manifest.request.tokenizer.sha256:
                for name in dropped:
                    _remove(folder, name)
                return [f"{TOKENIZER}/{name}" for name in dropped]
    return []


def _is_there(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _is_blocked(path: Path) -> bool:
    """True if a folder stands in the place of a file, or a file in that of its folder."""
    return (path.is_dir() and not path.is_symlink()) or (path.parent.exists() and not path.parent.is_dir())


def _names_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or path.is_file()}


def _remove(root: Path, file: str) -> None:
    """Remove a file and the folders below ``root`` that it leaves empty."""
    path = root / file
    path.unlink(missing_ok=True)
    for folder in path.relative_to(root).parents:
        if folder == Path() or any((root / folder).iterdir()):
            return
        (root / folder).rmdir()
