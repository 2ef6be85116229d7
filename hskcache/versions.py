"""Versions of packages, with their local parts: ``2.13.0+cpu`` and ``2.13.0+cu130`` compute differently.

The metadata of an installed package may leave the local part out, as those of torch from PyPI do, and another index may
write it there; the package itself says it in either case.
"""

import importlib


def version_of(package: str) -> str:
    """The version that a package says of itself, ``2.13.0+cu130``. Raises ModuleNotFoundError without it."""
    # A version of torch is a class of its own, which neither JSON nor YAML knows.
    return str(importlib.import_module(package).__version__)


def is_same(told: str, here: str) -> bool:
    """True if a version that was written down can be this one: some were written down without their local part."""
    return told in {here, here.partition("+")[0]}
