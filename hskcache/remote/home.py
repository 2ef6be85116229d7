"""The home folder and the name of a user, of which containers often have neither."""

import getpass
from pathlib import Path

from hskcache.errors import SpecError


def in_home(path: str, instead: str) -> Path:
    """A path whose ``~`` is the home folder.

    Args:
        path: with or without ``~``.
        instead: what to do where there is no home folder, as a command.

    Raises:
        SpecError: it begins with ``~``, and HOME is not set for a user that the system does not know.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise SpecError(f"{path} is in no folder: HOME is not set and this user has no home; {instead}") from None


def user_name(instead: str) -> str:
    """The name under which this user signs in elsewhere.

    Args:
        instead: what to do where there is none, as a command.

    Raises:
        SpecError: neither the environment nor the system has a name for this user.
    """
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise SpecError(f"this user has no name to sign in with; {instead}") from None
