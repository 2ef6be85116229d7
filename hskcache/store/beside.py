"""What a cache holds beside its shards: its manifest, its tokenizer and its card, read and verified."""

import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from hskcache.errors import DamageError
from hskcache.store.consistency import parse_manifest
from hskcache.store.files import canonical_json, file_sha256, read_file, sha256_hex
from hskcache.store.ledger import MANIFEST, TOKENIZER, Ledger
from hskcache.store.manifest import Manifest
from hskcache.store.reading import MAX_DOCUMENT_BYTES
from hskcache.store.record import Record

README = "README.md"
MAX_TOKENIZER_FILES = 256
MAX_TOKENIZER_BYTES = 256 << 20
MAX_README_BYTES = 16 << 20


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
