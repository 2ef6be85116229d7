"""Remarks on rows and models: lines that a command which reads the same ones many times says once."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from hskcache import console

_SAID: ContextVar[set[str] | None] = ContextVar("remarks", default=None)


@contextmanager
def once() -> Iterator[None]:
    """Say no remark twice until this is left."""
    token = _SAID.set(set())
    try:
        yield
    finally:
        _SAID.reset(token)


def remark(message: str) -> None:
    """Print a line of words on stderr, unless :func:`once` has seen it."""
    said = _SAID.get()
    if said is not None:
        if message in said:
            return
        said.add(message)
    console.say(message)
