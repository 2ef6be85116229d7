"""Files of a cache at a URL that stay on this machine: its manifest, pages of its records, and its tokenizer."""

import shutil
from contextlib import suppress
from functools import partial
from pathlib import Path

from hskcache import console
from hskcache.depot.retry import OutOfReachError
from hskcache.errors import CacheError, DamageError
from hskcache.locks import locked
from hskcache.remote.fetch import fetch_tokenizer, read_manifest, read_page
from hskcache.remote.remote import Remote
from hskcache.store.consistency import parse_manifest
from hskcache.store.files import make_folder, sha256_hex, write_atomic
from hskcache.store.ledger import TOKENIZER, Ledger
from hskcache.store.manifest import Manifest
from hskcache.store.publishing import MANIFEST
from hskcache.store.tokenizer import tokenizer_digest


def kept_manifest(remote: Remote, kept: Path) -> Manifest:
    """The manifest at a URL, kept in a folder for when the server is out of reach.

    Raises:
        CacheError: as :func:`~hskcache.remote.fetch.read_manifest`; where the server is out of reach, only if none is
            kept.
    """
    pointer = kept / f"{sha256_hex(remote.url.encode())}.url"
    try:
        manifest = read_manifest(remote)
    except OutOfReachError as error:
        try:
            manifest = Ledger(kept / pointer.read_text(encoding="ascii").strip()).intact()
        except (OSError, ValueError, CacheError):
            raise error from None
        console.say(f"{error}; going on with cache {manifest.cache_id[:12]}, as far as it is in {kept.parent}")
        return manifest
    root = kept / manifest.cache_id
    _keep(root / MANIFEST, manifest.to_json())
    _keep(pointer, manifest.cache_id.encode())
    return parse_manifest(manifest.to_json(), str(root / MANIFEST), partial(_page, remote, root))


def _page(remote: Remote, root: Path, path: str, most_bytes: int) -> bytes:
    """Content of a page, kept here from the first time that it is read."""
    data = read_page(remote, root, path, most_bytes)
    # Its name tells its digest; another content would be kept in its place for ever.
    if sha256_hex(data)[:16] in path:
        # Whoever reads a shard is told of a folder that cannot be written; a page is read without it.
        with suppress(OSError):
            _keep(root / path, data)
    return data


def _keep(path: Path, data: bytes) -> None:
    if not path.is_file() or path.read_bytes() != data:
        write_atomic(path, data)


def bring_tokenizer(remote: Remote, manifest: Manifest, root: Path) -> None:
    """Bring the tokenizer's files to ``root``, fetched by one process for all, unless they stand there.

    Raises:
        CacheError: as :func:`~hskcache.remote.fetch.fetch_tokenizer`.
    """
    folder = root / TOKENIZER
    make_folder(root)
    with locked(root / ".lock", remove=True):
        try:
            if tokenizer_digest(folder) == manifest.request.tokenizer.sha256:
                return
        except DamageError:
            pass
        shutil.rmtree(folder, ignore_errors=True)
        for name, data in fetch_tokenizer(remote, manifest).items():
            write_atomic(folder / name, data)
