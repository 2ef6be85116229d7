"""Memory that a program has freed stays with it, see decision 39: the next batch needs as much again."""

import os
from collections.abc import Mapping

KEPT_BYTES = 1 << 30
"""Bytes that are kept at most, and of the largest piece that is."""

CHOSEN_BY = (
    "MALLOC_ARENA_MAX",
    "MALLOC_MMAP_MAX_",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TOP_PAD_",
    "MALLOC_TRIM_THRESHOLD_",
)
"""Environment variables that tell glibc how to allocate; ``GLIBC_TUNABLES`` may, too."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt(3): free bytes at the end of the heap, and bytes of a piece that stands outside of it."""


def keep_freed_memory(environment: Mapping[str, str] = os.environ) -> bool:
    """Let glibc keep what this process frees, up to :data:`KEPT_BYTES`, in place of giving it back to the system.

    Args:
        environment: of this process.

    Returns:
        True if it does so from now on; False where the user has chosen, or another library allocates.
    """
    tunables, preloaded = environment.get("GLIBC_TUNABLES", ""), environment.get("LD_PRELOAD", "")
    if any(name in environment for name in CHOSEN_BY) or "glibc.malloc" in tunables or "malloc" in preloaded:
        return False
    try:
        if not (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc"):
            return False
    except (AttributeError, OSError, ValueError):
        return False
    # Only now: the import takes as long as all of the above together, many times over.
    import ctypes

    mallopt = ctypes.CDLL(None).mallopt
    # By mallopt(3) the first has a bound of 32 MB, which older versions keep to; the second alone would be no gain.
    return bool(mallopt(_MMAP_THRESHOLD, KEPT_BYTES) and mallopt(_TRIM_THRESHOLD, KEPT_BYTES))
