"""Blosc, the one codec of numcodecs that shards need, also where a codec that they do not need cannot be imported.

numcodecs imports all of its codecs and goes on where the package of one is missing, but not where it fails otherwise:
with zfpy 1.0.1.post0 installed it stumbles over ``post0``, and nothing of it can be imported.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

from hskcache.errors import CacheError

_OPTIONAL = ("numcodecs.zfpy", "numcodecs.msgpacks", "numcodecs.pcodec")


def _without_optional() -> ModuleType:
    """Import numcodecs as if its optional packages were not installed.

    Raises:
        CacheError: that does not help.
    """
    hidden = [name for name in _OPTIONAL if name not in sys.modules]
    # None in the place of a module is how Python is told that there is no such module.
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        # The module of the codec itself is left over from the first attempt, without the package around it.
        import_module("numcodecs")
        return import_module("numcodecs.blosc")
    except Exception as error:  # noqa: BLE001, whatever another package does at its import
        raise CacheError(
            f"numcodecs cannot be imported ({type(error).__name__}: {error}); "
            "install it anew: pip install --force-reinstall numcodecs"
        ) from None
    finally:
        for name in hidden:
            sys.modules.pop(name, None)


def _imported() -> ModuleType:
    try:
        return import_module("numcodecs.blosc")
    except Exception:  # noqa: BLE001, whatever another package does at its import
        return _without_optional()


blosc: Any = _imported()
