"""What a cache holds beside its shards, and the one file that it leaves in, be that HDF5 or a tar."""

import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from hskcache.disk import sync_folder
from hskcache.errors import CacheError, DamageError, MismatchError
from hskcache.locks import locked
from hskcache.store.consistency import parse_manifest
from hskcache.store.files import canonical_json, file_sha256, make_folder, read_file, sha256_hex
from hskcache.store.ledger import MANIFEST, TOKENIZER, Ledger
from hskcache.store.manifest import Manifest
from hskcache.store.reading import MAX_DOCUMENT_BYTES
from hskcache.store.record import Record

README = "README.md"
MAX_TOKENIZER_FILES = 256
MAX_TOKENIZER_BYTES = 256 << 20
MAX_README_BYTES = 16 << 20

OnProgress = Callable[[int, int], object]
"""Told how many bytes were done since the last call, and how many there are in all."""


class Beside(NamedTuple):
    """What a cache holds beside its shards.

    Attributes:
        manifest: what the cache is.
        data: content of its manifest.json.
        tokenizer: content of the tokenizer's files by path within its folder, sorted.
        readme: content of README.md, if there is one.
    """

    manifest: Manifest
    data: bytes
    tokenizer: dict[str, bytes]
    readme: bytes | None


def read_beside(root: Path) -> Beside:
    """What leaves with the shards of a complete cache, verified.

    Raises:
        CacheError: there is no complete cache.
        DamageError: its manifest or its tokenizer was altered.
    """
    # Refusals first; then one read of the file, which is what leaves.
    Ledger(root).intact()
    data = read_file(root / MANIFEST, MAX_DOCUMENT_BYTES)
    manifest = checked_manifest(data, str(root / MANIFEST))
    tokenizer = _read_tokenizer(root / TOKENIZER)
    if digest_of(tokenizer) != manifest.request.tokenizer.sha256:
        raise DamageError(
            f"{root / TOKENIZER} holds other files than the rows were tokenized with; fetch or build the cache again"
        )
    try:
        readme = read_file(root / README, MAX_README_BYTES)
    except FileNotFoundError:
        readme = None
    except DamageError as error:
        raise DamageError(f"{root / README} {error}") from None
    return Beside(manifest, data, tokenizer, readme)


def checked_manifest(data: bytes, file: str) -> Manifest:
    """Read a manifest and see that nobody has changed it.

    Raises:
        DamageError: it is none, or was edited; names ``file``.
        MismatchError: a newer format version.
    """
    manifest = parse_manifest(data, file)
    if edits := manifest.edits():
        raise DamageError(f"{file} was edited: {edits[0]}; fetch it again")
    return manifest


def is_file_of(path: Path, record: Record) -> bool:
    """Whether a file of its own, no link to one, has the content of a record."""
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == record.num_bytes and file_sha256(path) == record.sha256


def spelled(record: Record) -> bytes:
    """Content of a record's file; what the version that wrote it did not know is left out, as it did."""
    return record.model_dump_json(exclude_unset=True).encode() + b"\n"


def digest_of(tokenizer: Mapping[str, bytes]) -> str:
    """What ``files.tokenizer_digest`` says of a folder with these files."""
    return sha256_hex(canonical_json(sorted((name, sha256_hex(data)) for name, data in tokenizer.items())))


def check_tokenizer_name(name: str, others: Iterable[str]) -> None:
    """See that a tokenizer's file from a stranger stays in its folder and takes no other's place.

    Raises:
        DamageError: it does not; the message does not say where the name is from.
    """
    parts = name.split("/")
    if any(part in {"", ".", ".."} or not part.isprintable() or "\\" in part for part in parts):
        raise DamageError(f"holds a tokenizer file {name!r:.80}, which is no name within a folder")
    for other in others:
        if other == name or name.startswith(f"{other}/") or other.startswith(f"{name}/"):
            raise DamageError(f"holds a tokenizer file {name!r:.80} twice")


class Written(NamedTuple):
    """A file of a cache: its manifest, and whether it stood there already."""

    manifest: Manifest
    was_there: bool


def is_written(target: Path, manifest: Manifest, read: Callable[[Path], Manifest]) -> bool:
    """Whether a finished file of a cache stands where one is to be written; False where nothing stands.

    Args:
        target: the file.
        manifest: of the cache.
        read: takes the manifest out of a file, or raises a DamageError.

    Raises:
        MismatchError: another cache's file stands there, or something else.
    """
    if not target.exists() and not target.is_symlink():
        return False
    try:
        standing = read(target).cache_id
    except CacheError:
        raise MismatchError(
            f"{target} exists and is no such copy of a cache; give another name, or --force to replace it"
        ) from None
    if standing != manifest.cache_id:
        raise MismatchError(
            f"{target} holds the cache {standing[:12]} and not {manifest.cache_id[:12]}; give another name, or --force "
            "to replace it"
        )
    return True


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A path to write a file under that takes its name at once when it is whole; the writer brings it to the disk.

    Raises:
        CacheError: another process is writing it.
    """
    make_folder(target.absolute().parent)
    partial = target.with_name(f"{target.name}.partial")
    with locked(target.with_name(f"{target.name}.lock"), wait=False, remove=True) as held:
        if not held:
            raise CacheError(f"another process is writing {target}; wait until it is done, or give another name")
        try:
            partial.unlink(missing_ok=True)
            yield partial
            partial.replace(target)
            sync_folder(target.absolute().parent)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def _read_tokenizer(folder: Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            continue
        left = MAX_TOKENIZER_BYTES - sum(map(len, found.values()))
        try:
            found[path.relative_to(folder).as_posix()] = read_file(path, left)
        except DamageError as error:
            raise DamageError(f"{path} {error}") from None
        if len(found) > MAX_TOKENIZER_FILES:
            raise DamageError(f"{folder} holds more than {MAX_TOKENIZER_FILES} files, which no tokenizer has")
    return dict(sorted(found.items()))
