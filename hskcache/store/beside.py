"""Files of a cache beside its shards: its manifest, its tokenizer and its card, read and verified."""

import stat
from functools import partial
from pathlib import Path
from typing import NamedTuple

from hskcache.errors import DamageError
from hskcache.store.consistency import parse_manifest
from hskcache.store.files import MAX_DOCUMENT_BYTES, file_sha256, read_file
from hskcache.store.ledger import TOKENIZER, Ledger
from hskcache.store.manifest import Manifest
from hskcache.store.pages import ReadPage
from hskcache.store.publishing import MANIFEST
from hskcache.store.record import Record
from hskcache.store.standing import read_page
from hskcache.store.tokenizer import digest_of, read_tokenizer

README = "README.md"
MAX_README_BYTES = 16 << 20


class Beside(NamedTuple):
    """Content of a cache beside its shards.

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
    """Content that leaves with the shards of a complete cache, verified.

    Raises:
        CacheError: there is no complete cache.
        DamageError: its manifest or its tokenizer was altered.
    """
    manifest = Ledger(root).intact()
    # Of version 1 there are several spellings, and no copy that would do as well.
    data = read_file(root / MANIFEST, MAX_DOCUMENT_BYTES) if manifest.format.keeps_records else manifest.to_json()
    manifest = checked_manifest(data, str(root / MANIFEST), partial(read_page, root))
    tokenizer = read_tokenizer(root / TOKENIZER)
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


def checked_manifest(data: bytes, file: str, read: ReadPage | None = None) -> Manifest:
    """Read a manifest that nobody has changed by hand; ``read`` reads the pages that it refers to.

    Raises:
        DamageError: it is none, or was edited; names ``file``.
        MismatchError: a newer format version.
    """
    manifest = parse_manifest(data, file, read)
    if edits := manifest.edits():
        raise DamageError(f"{file} was edited: {edits[0]}; fetch it again")
    return manifest


def is_file_of(path: Path, record: Record) -> bool:
    """True if a file of its own, no link to one, has the content of a record."""
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == record.num_bytes and file_sha256(path) == record.sha256


def spelled(record: Record) -> bytes:
    """Content of a record's file; what the version that wrote it did not know is left out, as it did."""
    return record.model_dump_json(exclude_unset=True).encode() + b"\n"
