"""Run a transformer teacher once, keep the knowledge worth keeping, train students from the cache."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hskcache.cache import Cache, open_cache

__version__ = "0.1.0"
__all__ = ["Cache", "__version__", "open_cache"]


def __getattr__(name: str) -> Any:
    """Load the reader on first use, so that ``import hskcache`` costs nothing."""
    if name in {"Cache", "open_cache"}:
        from hskcache import cache

        return getattr(cache, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
