"""Files of a remote cache, fetched: each one appears whole and with the digest that it must have, or not at all."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from hskcache.counted import counted
from hskcache.depot.retry import OutOfReachError
from hskcache.disk import sync_file, sync_folder
from hskcache.errors import CacheError, DamageError
from hskcache.remote.parts import FilePart, whole
from hskcache.remote.remote import Remote
from hskcache.store.consistency import parse_manifest
from hskcache.store.files import MAX_DOCUMENT_BYTES, TEMPORARY_SUFFIX, make_folder, read_file, sha256_hex
from hskcache.store.ledger import TOKENIZER
from hskcache.store.manifest import Manifest
from hskcache.store.publishing import COPY, MANIFEST
from hskcache.store.tokenizer import MAX_TOKENIZER_BYTES, MAX_TOKENIZER_FILES, check_tokenizer_name, digest_of

TOKENIZER_FILES = ".tokenizer.json"
"""File that a push of version 1 leaves for servers that list no folders: SHA-256 of the tokenizer's files, by name."""

_MOST_LIST_BYTES = 1 << 16
_READ_BYTES = 1 << 20


def read_manifest(remote: Remote, near: Path | None = None) -> Manifest:
    """The manifest of the cache at a URL, consistent and as it was written.

    Args:
        remote: the folder at a URL.
        near: a folder here; pages of records that stand in it are not fetched.

    Raises:
        CacheError: there is no cache, or the server cannot be read.
        MismatchError: its format is newer than this program.
        DamageError: it is damaged or was edited.
    """
    try:
        return _read_manifest(remote, MANIFEST, near)
    except FileNotFoundError:
        lost: CacheError = CacheError(
            f"{remote.url} has no manifest.json, so it is not a cache, or not yet: a push that was cut off goes on "
            "when it is run again"
        )
    except DamageError as error:
        lost = error
    with suppress(FileNotFoundError, DamageError):
        return _read_manifest(remote, COPY, near)
    raise lost


def read_page(remote: Remote, near: Path, path: str, most_bytes: int) -> bytes:
    """Content of a page of records: that of a folder here if it is the right one, or else that at a URL.

    Raises:
        FileNotFoundError: it is not there either.
        CacheError: the server is out of reach, or refuses.
    """
    with suppress(OSError, DamageError):
        # Its name tells its digest; that it is the right one is seen once more by whoever reads it.
        if sha256_hex(data := read_file(near / path, most_bytes))[:16] in path:
            return data
    return remote.read(path, most_bytes)


def _read_manifest(remote: Remote, name: str, near: Path | None) -> Manifest:
    file = remote.describe(name)
    data = remote.read(name, MAX_DOCUMENT_BYTES)
    if not data.lstrip().startswith(b"{"):
        # Some servers answer with a page of words where there is no such file.
        raise DamageError(f"{file} is no manifest, so {remote.url} is not a cache; it begins with {data[:40]!r}")
    manifest = parse_manifest(data, file, remote.read if near is None else partial(read_page, remote, near))
    if edits := manifest.edits():
        raise DamageError(f"{file} was edited: {edits[0]}; push the cache again")
    return manifest


def partial_path(target: Path, sha256: str) -> Path:
    """Path of a file while it is fetched; its name tells which content it is to have."""
    return target.with_name(f"{target.name}.{sha256[:16]}{TEMPORARY_SUFFIX}")


def fetch(
    remote: Remote,
    name: str,
    target: Path,
    expected: tuple[int, str],
    on_bytes: Callable[[int], object] | None = None,
) -> None:
    """Fetch one file; one at a time may fetch the same target.

    The bytes go into a file beside the target, where the next call finds them if this one is killed. A connection that
    is lost is made again, and the time for that begins anew with every byte that comes.

    Args:
        remote: the folder at a URL.
        name: of the file there.
        target: where it is to stand; replaced if it exists. Its folder is made.
        expected: its bytes, and its SHA-256 as 64 hexadecimal digits.
        on_bytes: called with the number of bytes of each piece that came; with those that were there before, first.

    Raises:
        DamageError: the server's file is missing or is another.
        CacheError: the server is out of reach, or refuses.
        OSError: the disk cannot take it.
    """
    fetch_part(remote, whole(name, *expected), target, on_bytes)


def fetch_part(remote: Remote, part: FilePart, target: Path, on_bytes: Callable[[int], object] | None = None) -> None:
    """Fetch a part of a file as :func:`fetch` does a whole one."""
    tell = on_bytes or _ignore
    make_folder(target.parent)
    partial = partial_path(target, part.sha256)
    with partial.open("a+b") as file:
        was_there = file.tell()
        tell(was_there)
        _fill(remote, part, file, tell)
        if not (is_right := _is_right(file, part)) and was_there:
            # What stood there may be what a power cut left of it.
            tell(-file.seek(0, os.SEEK_END))
            file.truncate(0)
            _fill(remote, part, file, tell)
            is_right = _is_right(file, part)
        if not is_right:
            partial.unlink(missing_ok=True)
            raise DamageError(
                f"{remote.describe(part.path)} has another content than its manifest says: its SHA-256 differs; "
                "whoever pushed it can push it again"
            )
        sync_file(file)
    partial.replace(target)
    sync_folder(target.parent)


def _ignore(_num_bytes: int) -> None:
    """Tell nobody."""


def _fill(remote: Remote, part: FilePart, file: BinaryIO, tell: Callable[[int], object]) -> None:
    """Append what is missing of a part."""
    num_there = file.seek(0, os.SEEK_END)

    def receive() -> None:
        nonlocal num_there
        before = num_there
        try:
            for piece in remote.pieces(part.path, part.start + before, part.stop):
                file.write(piece)
                num_there += len(piece)
                tell(len(piece))
        except OutOfReachError:
            if num_there == before:
                raise
        else:
            if num_there == before:
                raise DamageError(
                    f"{remote.describe(part.path)} has {part.start + before} bytes where its manifest says "
                    f"{part.stop}; whoever pushed it can push it again"
                )

    while num_there < part.num_bytes:
        try:
            remote.patiently(receive)
        except FileNotFoundError:
            raise DamageError(
                f"{remote.describe(part.path)} is missing; whoever pushed the cache can push it again"
            ) from None


def _is_right(file: BinaryIO, part: FilePart) -> bool:
    """True if a file holds a part, and every piece of it has its digest."""
    file.flush()
    if os.fstat(file.fileno()).st_size != part.num_bytes:
        return False
    for piece in part.pieces:
        digest, left = hashlib.sha256(), piece.stop - file.seek(piece.start - part.start) - part.start
        while left and (data := file.read(min(left, _READ_BYTES))):
            digest.update(data)
            left -= len(data)
        if digest.hexdigest() != piece.sha256:
            return False
    return True


def remote_sha256(remote: Remote, name: str, num_bytes: int) -> str | None:
    """SHA-256 of a file at a URL as 64 hexadecimal digits; None where it is missing or has another size.

    Raises:
        CacheError: the server is out of reach, or refuses.
    """

    def read() -> str | None:
        digest, num_read = hashlib.sha256(), 0
        for piece in remote.pieces(name, 0, num_bytes + 1):
            digest.update(piece)
            num_read += len(piece)
        return digest.hexdigest() if num_read == num_bytes else None

    try:
        return remote.patiently(read)
    except FileNotFoundError:
        return None


def fetch_tokenizer(remote: Remote, manifest: Manifest) -> dict[str, bytes]:
    """Fetch the tokenizer's files: those that the manifest names.

    Of version 1 the manifest knows their digest alone, and their names are those of the list that a push has left, or
    of the server's listing.

    Args:
        remote: the cache at a URL.
        manifest: of it.

    Returns:
        Content by path within the tokenizer's folder, out of which none leads.

    Raises:
        DamageError: they are missing, others, more or larger than a tokenizer's, or lead out of the folder.
        CacheError: the server is out of reach, or refuses.
    """
    for names in _candidates(remote, manifest):
        files = _read_tokenizer(remote, names)
        if digest_of(files) == manifest.request.tokenizer.sha256:
            return files
    where = remote.describe(TOKENIZER)
    raise DamageError(
        f"{where} is missing, or holds other files than the rows were tokenized with; push the cache again, or copy "
        f"the folder {TOKENIZER} there"
    )


def _candidates(remote: Remote, manifest: Manifest) -> Iterator[list[str]]:
    if manifest.tokenizer is not None:
        yield _checked(remote, list(manifest.tokenizer))
        return
    yield _listed(remote)
    yield _checked(remote, remote.names(TOKENIZER) or [])


def _listed(remote: Remote) -> list[str]:
    """Names of the list that a push has left."""
    try:
        digests = json.loads(remote.read(TOKENIZER_FILES, _MOST_LIST_BYTES))
    except (FileNotFoundError, ValueError, RecursionError):
        return []
    return _checked(remote, list(digests)) if isinstance(digests, dict) else []


def _checked(remote: Remote, names: list[Any]) -> list[str]:
    """Names that a server gives, once they are known to stay within the folder."""
    where = remote.describe(TOKENIZER)
    if len(names) > MAX_TOKENIZER_FILES:
        raise DamageError(f"{where} holds {counted(len(names), 'file')}, of at most {MAX_TOKENIZER_FILES}")
    checked: list[str] = []
    for name in names:
        try:
            check_tokenizer_name(str(name), checked)
        except DamageError as error:
            raise DamageError(f"{where} {error}") from None
        checked.append(str(name))
    return sorted(checked)


def _read_tokenizer(remote: Remote, names: list[str]) -> dict[str, bytes]:
    """Content of those files that there are."""
    files: dict[str, bytes] = {}
    left = MAX_TOKENIZER_BYTES
    for name in names:
        try:
            files[name] = remote.read(f"{TOKENIZER}/{name}", left)
        except FileNotFoundError:
            continue
        left -= len(files[name])
    return files
