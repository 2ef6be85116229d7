"""A manifest put in place, and what led to it removed: pages, the copy of the manifest, the manifest, then the sweep.

Whatever refers to a file is written after it, and what is no longer referred to is removed last. Pages and shards have
names by their digests, so that what an old manifest refers to stays until the new one stands.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from hskcache.errors import DamageError
from hskcache.store.consistency import check, check_records
from hskcache.store.files import TEMPORARY_SUFFIX, read_file, remove_matching, sha256_hex, write_atomic
from hskcache.store.growth import clear_locks
from hskcache.store.manifest import Manifest
from hskcache.store.pages import INDEX, IndexFile
from hskcache.store.record import CONSTANTS, stem_of

MANIFEST = "manifest.json"
COPY = "manifest.copy.json"
"""The manifest once more, written before it: whichever of the two is lost or torn is read from the other."""
TEMPORARY = f"*{TEMPORARY_SUFFIX}"

_RECORD = re.compile(r"(constants|[0-9]{6,12})\.json")
_SHARD = re.compile(r"(constants|[0-9]{6,12})(-[0-9a-f]{16})?\.zarr\.zip")


def manifest_files(manifest: Manifest) -> tuple[str, ...]:
    """The files that hold a manifest, in the order in which they are written."""
    return (MANIFEST,) if manifest.format.keeps_records else (COPY, MANIFEST)


def publish(root: Path, manifest: Manifest) -> None:
    """Write a manifest of shards that are all there, the pages that it refers to before it.

    Raises:
        DamageError: a record is not what its field stores; nothing is written.
    """
    check(manifest)
    check_records(manifest)
    write_index(root, manifest)
    write_manifest(root, manifest)
    sweep_index(root, manifest)


def write_index(root: Path, manifest: Manifest) -> None:
    """Write the pages that a manifest refers to, as far as they are not there."""
    for file in manifest.index:
        if not is_page(root, file):
            write_atomic(root / file.path, file.read())


def write_manifest(root: Path, manifest: Manifest) -> None:
    """Write a manifest, its copy first where it has one; one that is there stays."""
    data = manifest.to_json()
    for name in manifest_files(manifest):
        if not holds(root / name, data):
            write_atomic(root / name, data)


def is_page(root: Path, file: IndexFile) -> bool:
    """True if a page stands in a folder with the content that it should have."""
    try:
        return sha256_hex(read_file(root / file.path, file.page.index_bytes)) == file.page.sha256
    except (OSError, DamageError):
        return False


def sweep_index(root: Path, manifest: Manifest) -> None:
    """Remove pages that a manifest does not refer to, and half written ones."""
    listed = {file.path for file in manifest.index}
    for name in manifest.fields:
        for path in list((root / name / INDEX).glob("*")):
            if path.relative_to(root).as_posix() not in listed and (path.is_file() or path.is_symlink()):
                path.unlink(missing_ok=True)


def sweep(root: Path, manifest: Manifest, names: Iterable[str]) -> None:
    """Remove what making some fields has left: commit records, half written files, old shards, locks of the dead.

    Args:
        root: the cache.
        manifest: of it; it stands, and shards of rows that are being appended are none of its own.
        names: of the fields.
    """
    for name in names:
        listed = {record.path for record in manifest.shards[name]}
        if name in manifest.constants:
            listed.add(manifest.constants[name].path)
        for path in list((root / name).glob("*")):
            if is_swept(path.name, manifest) and f"{name}/{path.name}" not in listed:
                path.unlink(missing_ok=True)
        remove_matching(root / name, TEMPORARY)
    clear_locks(root)


def is_unswept(root: Path, manifest: Manifest, names: Iterable[str]) -> bool:
    """True if commit records stand in the folders of some fields that :func:`sweep` has still to remove."""
    if manifest.format.keeps_records:
        return False
    return any(is_swept(path.name, manifest) for name in names for path in (root / name).glob("*.json"))


def is_swept(name: str, manifest: Manifest) -> bool:
    """True if a file that a manifest does not list was on the way to it: of one of its shards, by the file's name."""
    match = _RECORD.fullmatch(name) or _SHARD.fullmatch(name)
    return match is not None and (match[1] == stem_of(CONSTANTS) or int(match[1]) < manifest.request.num_shards)


def holds(path: Path, data: bytes) -> bool:
    """True if a file of its own has this content."""
    try:
        return read_file(path, len(data)) == data
    except (OSError, DamageError):
        return False
