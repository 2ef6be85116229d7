"""Work in a forked child that may be killed: what the tests of interrupted builds have in common."""

import faulthandler
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

Hook = Callable[[str, tuple[Any, ...]], None]

LONGEST_S = 200
"""More than any child takes. One that hangs, as a fork of a process with threads may, tells its stacks and dies."""


def start(work: Callable[[], object], hook: Hook | None = None) -> int:
    """Process id of a child that does ``work`` under an audit hook; its exit code is 0, or 1 after an error.

    Whatever happens, the child ends here: one that came back would go on with the tests, and with the messages of the
    process that deals them out, for which its parent would wait without end.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            faulthandler.register(signal.SIGALRM, file=2, chain=True)
            signal.alarm(LONGEST_S)
            if hook is not None:
                sys.addaudithook(hook)
            work()
            code = 0
        except BaseException:  # noqa: BLE001 - told, as there is nobody to catch it
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def until(is_so: Callable[[], object]) -> None:
    """Wait for something that other threads or processes do, which may fail to do it."""
    end = time.monotonic() + LONGEST_S / 2
    while not is_so():
        assert time.monotonic() < end, "what is waited for does not happen"
        time.sleep(0.002)


def heard(pipe: int, num_bytes: int = 1) -> bytes:
    """Bytes that a child writes into a pipe, which is open here, too, so that it does not end with the child."""
    found = b""
    while len(found) < num_bytes:
        until(lambda: select.select([pipe], [], [], 0.1)[0])
        found += os.read(pipe, num_bytes - len(found))
    return found


def in_child(work: Callable[[], object], hook: Hook | None = None) -> int:
    """Exit code of such a child: 1 after an error, negative after a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(start(work, hook), 0)[1])
