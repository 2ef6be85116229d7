"""What a forked child must leave alone: the connections of its parent.

A child has a copy of every connection and of the event loop that waits for them, and what the two loops wait with is
one and the same in the kernel. fsspec forgets its systems in the child; the sessions of aiohttp that are cleared away
there would be taken out of what the parent waits with, which would wait in vain for answers that have come. So nothing
is cleared away in the child, and its copy of the loop waits with something else.
"""

import os
import selectors
from contextlib import suppress
from typing import Any

_kept: list[Any] = []


def keep(system: Any) -> None:
    """Keep something as long as this process lives, and its children.

    Args:
        system: a file system of fsspec, or whatever holds connections.
    """
    if not any(one is system for one in _kept):
        _kept.append(system)


def _let_go() -> None:
    kind = getattr(selectors, "EpollSelector", None)
    if kind is None:
        return
    for system in _kept:
        selector = getattr(getattr(system, "_loop", None), "_selector", None)
        # ValueError: it is closed.
        with suppress(OSError, ValueError):
            if isinstance(selector, kind):
                nowhere = os.open(os.devnull, os.O_RDWR)
                os.dup2(nowhere, selector.fileno(), inheritable=False)
                os.close(nowhere)


os.register_at_fork(after_in_child=_let_go)
