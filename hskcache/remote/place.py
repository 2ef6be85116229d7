"""Place of a cache: a folder of this machine, or a URL."""

import re
from pathlib import Path

from hskcache.cache import Cache, open_cache


def is_url(text: str) -> bool:
    """True if a text is a URL rather than a path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) is not None


def folder_of(place: str | Path) -> Path | None:
    """The folder that a path, or a URL of ``file://``, leads to; None of other URLs."""
    scheme, mark, rest = str(place).partition("://")
    if not mark or not is_url(str(place)):
        return Path(place)
    return Path(rest) if scheme.lower() == "file" else None


def open_any(cache: str | Path) -> Cache:
    """Open a complete cache, whether it is a folder or at a URL.

    Of one at a URL files are fetched when they are read first, each verified, into the folder that all runs of this
    machine share, see :func:`~hskcache.remote.mirror.open_mirror`.

    Raises:
        CacheError: there is no cache.
        MismatchError: its build is not finished, or its format is newer than this program.
        DamageError: its manifest is damaged or was edited.
    """
    if not is_url(str(cache)):
        return open_cache(cache)
    # Of no use to a folder, and a third of what is imported.
    from hskcache.remote.mirror import open_mirror

    return open_mirror(str(cache))
