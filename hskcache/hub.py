"""The hub, where a name is no folder: asked once whether it answers, and not waited for where it does not.

For each file that they want the hub's libraries ask six times, with waits of 23 seconds in all, and a model is several
files. Where the hub does not answer, they look only at what was fetched before.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from textwrap import shorten
from typing import Any

from hskcache import console
from hskcache.errors import CacheError
from hskcache.nearest import meant

_WAIT_S = 5.0
# It may be back by then.
_BELIEVED_S = 60.0
_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
_ABSENT = frozenset({"ConnectionError", "LocalEntryNotFoundError", "OfflineModeIsEnabled"})


def is_path(name: str) -> bool:
    """True if a name is a path here, or can only be meant as one: no name of the hub begins as a folder here does."""
    first, _, rest = name.partition("/")
    return Path(name).exists() or name.startswith(("/", ".", "~")) or ("/" in rest and Path(first).is_dir())


def divided(name: str) -> tuple[str, dict[str, str]]:
    """A path as it is; of the hub's ``ORG/NAME/FOLDER`` the repository, and the keyword of the folder within it."""
    parts = name.split("/")
    if len(parts) < 3 or is_path(name):
        return name, {}
    return "/".join(parts[:2]), {"subfolder": "/".join(parts[2:])}


@contextmanager
def looked_up(name: str) -> Iterator[None]:
    """Let libraries look for a model, tokenizer or data set that is a folder or a name on the hub.

    Raises CacheError of the class that the block raised, if it is no folder, was not fetched before, and the hub is out
    of reach or not to be asked.
    """
    if is_path(name):
        yield
        return
    reason = _silence()
    try:
        with _without_asking() if reason else nullcontext():
            yield
    except CacheError as error:
        given = next((name for name in _VARIABLES if os.environ.get(name, "0") not in ("", "0")), None)
        why = reason or ("" if given is None else f"{given}={os.environ[given]} says not to ask it")
        if not (why and _is_absent(error)):
            raise
        instead = "give a folder" if reason else "give a folder, or unset that"
        raise type(error)(
            f"{name} is no folder here and was not fetched from the hub before, and {why}; {instead}"
            f"{meant(name, (path.name for path in Path().iterdir()))}"
        ) from None


class _Hub:
    """State of the hub as far as it is known: when it was last asked, and why it cannot be reached."""

    asked_at = float("-inf")
    reason = ""


def _silence() -> str:
    """Reason that the hub cannot be reached; empty where it answers, or is not to be asked."""
    from huggingface_hub import constants, get_session

    answered = _Hub.asked_at > float("-inf") and not _Hub.reason
    if constants.HF_HUB_OFFLINE or answered or time.monotonic() - _Hub.asked_at < _BELIEVED_S:
        return "" if constants.HF_HUB_OFFLINE else _Hub.reason
    try:
        # Whatever it says, it answers.
        get_session().head(constants.ENDPOINT, timeout=_WAIT_S)
        _Hub.reason = ""
    except Exception as error:  # noqa: BLE001  (the library that asks, and so its errors, differ between versions)
        said = shorten(str(error) or type(error).__name__, 100)
        _Hub.reason = f"{constants.ENDPOINT} cannot be reached ({said})"
        console.say(f"{_Hub.reason}; only what was fetched from it before is looked at")
    _Hub.asked_at = time.monotonic()
    return _Hub.reason


@contextmanager
def _without_asking() -> Iterator[None]:
    """Have the hub's libraries look only at what they have fetched before."""
    from huggingface_hub import constants

    places: list[Any] = [constants]
    if (datasets := sys.modules.get("datasets")) is not None:
        places.append(datasets.config)
    before = [place.HF_HUB_OFFLINE for place in places]
    for place in places:
        place.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.HF_HUB_OFFLINE = value


def _is_absent(error: BaseException) -> bool:
    """True if an error, or one that it was raised from, is of what was not fetched and cannot be."""
    inner = error.__cause__ or error.__context__
    named = any(kind.__name__ in _ABSENT for kind in type(error).__mro__)
    return named or (inner is not None and _is_absent(inner))
