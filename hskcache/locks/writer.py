"""The one command that writes an ``--out``."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from hskcache.errors import CacheError
from hskcache.locks.file import locked
from hskcache.system import host_name

WRITING = ".writing"
"""Name of the lock file of a folder that one command at a time writes; those who judge a folder leave it out."""


@contextmanager
def sole_writer(out: Path, is_file: bool = False) -> Iterator[None]:
    """Be the one command that writes an ``--out``; of several processes of a run the first one is it for all.

    Args:
        out: a folder, in which a file :data:`WRITING` says who writes it until it is let go; made if missing, and
            gone again if it stays empty.
        is_file: whether it is a file, for which one beside it says so.

    Raises:
        CacheError: another command writes it.
    """
    folder, name = (out.parent, f".{out.name}{WRITING}") if is_file else (out, WRITING)
    with ExitStack() as stack:
        # What cannot be written nobody else writes, and who reads alone must not be stopped; others will be told why.
        with suppress(OSError):
            stack.enter_context(_kept_if_used(folder))
            if not stack.enter_context(locked(folder / name, wait=False, remove=True, for_all=True)):
                raise CacheError(
                    f"{out} is being written by another process{_writer(folder / name)}; wait for it, or give another "
                    "--out"
                )
            (folder / name).write_text(f"{os.getpid()} {host_name()}\n", encoding="utf-8")
        yield


@contextmanager
def _kept_if_used(folder: Path) -> Iterator[None]:
    """Make a folder and those above it; those that are empty in the end are removed again."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):
            for path in made:
                path.rmdir()


def _writer(lock: Path) -> str:
    """Holder of a lock file, in brackets, if it says so."""
    try:
        process, host = lock.read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return ""
    return f" ({process} on {host})"
