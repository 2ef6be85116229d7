"""Words for the time that a server is waited for: that it refused, at once, and how long it has been silent.

On a terminal a line counts the seconds; in a pipe, or beside a progress bar, one is printed now and then. Threads that
wait together are told of once.
"""

import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from hskcache import console, processes
from hskcache.system import after_fork

EVERY_S = 10.0
"""Seconds between two lines."""

SILENCE_S = 60.0
"""Seconds of silence after which an attempt ends, at the latest."""

_TICK_S, _FIRST_LIVE_S = 1.0, 3.0
_CLEAR = "\r\x1b[2K"


@dataclass(eq=False)
class Wait:
    """One thread's wait for a server.

    Attributes:
        what: is waited for: a URL, or why it is tried again.
        until: when attempts end; None while the first is being made.
        since: when the server was last heard.
    """

    what: str
    until: float | None = None
    since: float = field(default_factory=time.monotonic)

    @property
    def is_retry(self) -> bool:
        """True of attempts that go on for long enough to be read of."""
        return self.until is not None and self.until - self.since >= _TICK_S

    def goes_on(self) -> None:
        """Begin to wait anew."""
        self.since = time.monotonic()

    def rests(self) -> None:
        """Take note that something came, and that nobody waits for more until :meth:`goes_on`."""
        self.since = float("inf")


class Waiting:
    """The waits of all threads of this process, and the thread that tells of them while there are any."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waits: list[Wait] = []
        self._is_telling = False
        self._said_at = float("-inf")
        self._is_shown = False

    @contextmanager
    def answer(self, url: str) -> Iterator[Wait]:
        """Wait for a server's answer, which is told of if it does not come."""
        with self._listed(Wait(url)) as wait:
            yield wait

    @contextmanager
    def another_attempt(self, reason: str, seconds: float) -> Iterator[None]:
        """Try again for some seconds, which is told at once, unless they pass sooner than it is read."""
        begun = time.monotonic()
        with self._listed(Wait(reason, begun + seconds, begun)) as wait:
            if wait.is_retry:
                with self._changed:
                    self._say(wait)
            yield

    @contextmanager
    def _listed(self, wait: Wait) -> Iterator[Wait]:
        with self._changed:
            self._waits.append(wait)
            if not self._is_telling and processes.is_first():
                # Where no more threads are to be had, nothing is told.
                with suppress(RuntimeError):
                    threading.Thread(target=self._tell, name="hskcache-wait", daemon=True).start()
                    self._is_telling = True
        try:
            yield wait
        finally:
            with self._changed:
                self._waits.remove(wait)
                self._show("")

    def _tell(self) -> None:
        """Tell of what is waited for until, at a tick, nothing is; so that quick answers start no thread each."""
        # Where nobody reads any more there is nothing to tell.
        with self._changed, suppress(OSError, ValueError):
            while True:
                self._changed.wait(_TICK_S)
                if not self._waits:
                    self._is_telling = False
                    return
                wait = min(self._waits, key=lambda wait: (wait.until is None, wait.since))
                silent_s = time.monotonic() - wait.since
                if not _is_terminal():
                    if wait.is_retry or silent_s >= EVERY_S:
                        self._say(wait)
                elif wait.is_retry or silent_s >= _FIRST_LIVE_S:
                    self._show(_live(wait))

    def _say(self, wait: Wait) -> None:
        if time.monotonic() - self._said_at >= EVERY_S:
            self._show("")
            console.say(_words(wait))
            self._said_at = time.monotonic()

    def _show(self, words: str) -> None:
        """Show a line that the next one takes the place of; nothing, to clear it."""
        if words or self._is_shown:
            sys.stderr.write(_CLEAR + words[: shutil.get_terminal_size().columns - 1])
            sys.stderr.flush()
        self._is_shown = bool(words)


def _words(wait: Wait) -> str:
    return f"{wait.what}; {_count(wait)}" if wait.until is not None else f"{wait.what} {_count(wait)}"


def _live(wait: Wait) -> str:
    """The same with what changes first, as a terminal may be narrow."""
    return f"{_count(wait)}: {wait.what}"


def _count(wait: Wait) -> str:
    now = time.monotonic()
    if wait.until is not None:
        return f"trying again for {max(0.0, wait.until - now):.0f} s (HSKCACHE_RETRY_S)"
    silent_s = now - wait.since
    return f"has not answered for {silent_s:.0f} s; waiting up to {max(0.0, SILENCE_S - silent_s):.0f} s more"


def _is_terminal() -> bool:
    """True if stderr is a terminal on which nothing else moves: rich puts something else in its place meanwhile."""
    real = sys.__stderr__
    return real is not None and sys.stderr is real and real.isatty()


WAITING = Waiting()
# A child has none of the waits, and none of the threads that would let a lock go.
after_fork(WAITING.__init__)  # type: ignore[misc]
