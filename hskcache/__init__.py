"""Run a transformer teacher once, keep the knowledge worth keeping, train students from the cache.

``build`` writes a cache, ``add_field`` adds to it what another teacher knows, ``open_cache`` opens one, in a folder or
at a URL.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hskcache.build.keywords import add_field, build
    from hskcache.cache import Cache
    from hskcache.remote.place import open_any as open_cache

__version__ = "0.1.0"
__all__ = ["Cache", "__version__", "add_field", "build", "open_cache"]

_PLACES = {"Cache": "cache:Cache", "add_field": "build.keywords:add_field", "open_cache": "remote.place:open_any"}


def __getattr__(name: str) -> Any:
    """Load what builds and reads on first use, so that ``import hskcache`` costs nothing."""
    from importlib import import_module

    if name == "build":
        # The room, which can be called.
        return import_module("hskcache.build")
    if name in _PLACES:
        module, _, attribute = _PLACES[name].partition(":")
        return getattr(import_module(f"hskcache.{module}"), attribute)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
