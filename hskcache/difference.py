"""First difference of two JSON values."""

from collections.abc import Iterator
from typing import Any


def first_difference(here: Any, there: Any) -> tuple[str, Any, Any] | None:
    """The first place where two JSON values differ: keys and places joined by dots, the value here, the value there.

    Objects and lists of equal length are compared part by part, in the order of ``here``; a missing key counts as null.
    """
    return next(differences(here, there), None)


def differences(here: Any, there: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every place where two JSON values differ, as :func:`first_difference` tells the first.

    ``path``: of the two values, where they are parts of something.
    """
    if isinstance(here, dict) and isinstance(there, dict):
        parts = [(key, here.get(key), there.get(key)) for key in {**here, **there}]
    elif isinstance(here, list) and isinstance(there, list) and len(here) == len(there):
        parts = [(str(place), *both) for place, both in enumerate(zip(here, there, strict=True))]
    else:
        if here != there:
            yield path, here, there
        return
    for key, ours, theirs in parts:
        yield from differences(ours, theirs, f"{path}.{key}" if path else key)
