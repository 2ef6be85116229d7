"""The one file that a cache leaves in, be that HDF5 or a tar, or the folder of a Zarr group."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from hskcache.disk import sync_file, sync_folder
from hskcache.errors import CacheError, MismatchError
from hskcache.locks import locked, remove_unheld
from hskcache.store.files import make_folder
from hskcache.store.manifest import Manifest

OnProgress = Callable[[int, int], object]
"""Told how many bytes were done since the last call, and how many there are in all."""


class Written(NamedTuple):
    """A file of a cache: its manifest, and whether it stood there already."""

    manifest: Manifest
    was_there: bool


def is_written(target: Path, manifest: Manifest, read: Callable[[Path], Manifest]) -> bool:
    """True if a finished file of a cache stands where one is to be written; False where nothing stands.

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
    remove_unheld([_lock(target)])
    return True


def stands(target: Path, cache_id: str, force: bool, exported: Callable[[Path], str | None], what: str) -> bool:
    """True if the export of a cache to a folder stands there and is to stay; False where one is to be written.

    Args:
        target: the folder.
        cache_id: of the cache.
        force: whether another cache's export is replaced.
        exported: gives the id of the cache that a folder is the export of; None of something else.
        what: such a folder is, in words.

    Raises:
        MismatchError: something else stands there.
    """
    if not target.is_symlink() and (not target.exists() or (target.is_dir() and not any(target.iterdir()))):
        return False
    standing = exported(target)
    if standing is None:
        raise MismatchError(f"{target} exists and is no {what}; give another name")
    if force:
        return False
    if standing != cache_id:
        raise MismatchError(
            f"{target} holds the cache {standing[:12]} and not {cache_id[:12]}; give another name, or --force to "
            "replace it"
        )
    return True


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A path to write a file under that takes its name at once when it is whole; the writer brings it to the disk.

    Raises:
        CacheError: another process is writing it.
    """
    with _placing(target, lambda path: path.unlink(missing_ok=True)) as partial:
        yield partial


@contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """A path to make a folder at that takes its name when it is whole and on the disk; what stood there is removed.

    Raises:
        CacheError: another process is writing it.
    """
    with _placing(target, lambda path: shutil.rmtree(path, ignore_errors=True)) as partial:
        yield partial
        for path in partial.rglob("*"):
            if path.is_dir():
                sync_folder(path)
            else:
                with path.open("rb") as file:
                    sync_file(file)
        shutil.rmtree(target, ignore_errors=True)


@contextmanager
def _placing(target: Path, remove: Callable[[Path], None]) -> Iterator[Path]:
    """A name for what is not whole yet, which has its own once the block is done; no other process is at it."""
    make_folder(target.absolute().parent)
    partial = target.with_name(f"{target.name}.partial")
    with locked(_lock(target), wait=False, remove=True) as held:
        if not held:
            raise CacheError(f"another process is writing {target}; wait until it is done, or give another name")
        try:
            remove(partial)
            yield partial
            partial.replace(target)
            sync_folder(target.absolute().parent)
        except BaseException:
            remove(partial)
            raise


def _lock(target: Path) -> Path:
    return target.with_name(f"{target.name}.lock")
