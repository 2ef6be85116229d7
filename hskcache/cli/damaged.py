"""The end of commands that read a whole cache, where a part of it is damaged."""

from collections.abc import Iterator
from contextlib import contextmanager

from hskcache import console
from hskcache.errors import DamageError


@contextmanager
def damage_is_an_answer() -> Iterator[None]:
    """Let damage end the command with exit code 1, as it does that of ``verify``, and its words on stderr."""
    try:
        yield
    except DamageError as error:
        console.fail(str(error), code=1)
