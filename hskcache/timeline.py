"""Time that a long run spends, by phase, from samples of its calls: a table, and a trace that browsers show.

Whoever does the work says what it is, ``with span("forward"): ...``, whether or not anybody wants to know; without a
recording that costs next to nothing. A phase within another one is taken out of it. Of what is done very often the
first calls are timed and then every tenth, with all that is done within; their mean stands for the others. A GPU goes
on computing while the program does, so it is waited for before and behind a call of the main thread that is timed.
"""

import json
import os
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import NamedTuple

from hskcache.errors import SpecError

FIRST_CALLS, EVERY = 20, 10
"""Calls of a phase that are timed: the first so many, and then every so manieth."""


class TimedCall(NamedTuple):
    """One call that was timed; seconds since the recording began, ``own_s`` without the phases within."""

    name: str
    thread: str
    begin_s: float
    end_s: float
    own_s: float


class Phase(NamedTuple):
    """A phase of a recording.

    Attributes:
        name: as its spans are called.
        is_main: whether it is a part of the main thread's time; others run beside it.
        num_calls: all of them, timed or not.
        mean_s: of those that were timed; without the first, which pays for what later ones find ready, if there are
            others.
    """

    name: str
    is_main: bool
    num_calls: int
    mean_s: float

    @property
    def total_s(self) -> float:
        """Seconds of all calls."""
        return self.mean_s * self.num_calls


@dataclass
class Timeline:
    """Spans of a recording, from all of its threads."""

    began_s: float = field(default_factory=perf_counter)
    spans: list[TimedCall] = field(default_factory=list)
    calls: dict[tuple[str, str], int] = field(default_factory=dict)
    within: threading.local = field(default_factory=threading.local)

    def phases(self) -> list[Phase]:
        """The phases, those of the main thread first, each in the order of their time."""
        calls, timed = Counter[tuple[str, bool]](), defaultdict[tuple[str, bool], list[float]](list)
        for (name, thread), count in self.calls.items():
            calls[name, thread == _MAIN] += count
        for one in self.spans:
            timed[one.name, one.thread == _MAIN].append(one.own_s)
        found = [Phase(*phase, calls[phase], fmean(own[1:] or own)) for phase, own in timed.items()]
        return sorted(found, key=lambda phase: (not phase.is_main, -phase.total_s))

    def table(self) -> str:
        """Phases with their calls, milliseconds a call, seconds, and share of the time since the recording began."""
        elapsed_s = perf_counter() - self.began_s
        phases = self.phases()
        lines = [("phase", "calls", "ms each", "s", "share")]
        for phase in phases:
            place = phase.name if phase.is_main else f"beside: {phase.name}"
            share = f"{phase.total_s / elapsed_s:.1%}"
            lines.append((place, f"{phase.num_calls:,}", f"{phase.mean_s * 1e3:,.2f}", f"{phase.total_s:,.2f}", share))
        rest_s = elapsed_s - sum(phase.total_s for phase in phases if phase.is_main)
        lines.append(("everything else", "", "", f"{rest_s:,.2f}", f"{rest_s / elapsed_s:.1%}"))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        aligned = ([first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])] for first, *rest in lines)
        return "\n".join(map("  ".join, aligned))

    def trace(self) -> str:
        """The spans as JSON in the trace event format, which chrome://tracing and ui.perfetto.dev open."""
        numbers = {thread: number for number, thread in enumerate(dict.fromkeys(span.thread for span in self.spans))}
        common = {"pid": os.getpid()}
        events = [
            {"ph": "M", "name": "thread_name", "tid": number, "args": {"name": thread}, **common}
            for thread, number in numbers.items()
        ]
        for span in self.spans:
            times = {"ts": span.begin_s * 1e6, "dur": (span.end_s - span.begin_s) * 1e6}
            events.append({"ph": "X", "name": span.name, "tid": numbers[span.thread], **times, **common})
        return json.dumps({"traceEvents": events})


_MAIN = threading.main_thread().name
_recording: list[Timeline] = []


@contextmanager
def recorded(path: Path | None) -> Iterator[None]:
    """Record a run: its trace is written to a file, and its table said at the end, however that comes.

    Args:
        path: of the trace; None records nothing.

    Raises:
        SpecError: it cannot be written, which is found before the run begins.
    """
    if path is None:
        yield
        return
    from hskcache import console

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise SpecError(f"--profile {path}: {error.strerror}; give a file in a folder that can be written") from None
    with recording() as timeline:
        try:
            yield
        finally:
            path.write_text(timeline.trace(), encoding="utf-8")
            console.say(f"{timeline.table()}\n{path} shows it in chrome://tracing or ui.perfetto.dev")


@contextmanager
def recording() -> Iterator[Timeline]:
    """Record what this process does; one recording at a time."""
    timeline = Timeline()
    _recording.append(timeline)
    try:
        yield timeline
    finally:
        _recording.remove(timeline)


@contextmanager
def span(name: str) -> Iterator[None]:
    """A phase of the work; also a decorator."""
    if not _recording:
        yield
        return
    timeline, thread = _recording[-1], threading.current_thread().name
    number = timeline.calls[name, thread] = timeline.calls.get((name, thread), 0) + 1
    outer_s = getattr(timeline.within, "seconds", None)
    if outer_s is None and number > FIRST_CALLS and number % EVERY:
        yield
        return
    timeline.within.seconds = 0.0
    _settle(thread)
    begin_s = perf_counter() - timeline.began_s
    try:
        yield
    finally:
        _settle(thread)
        end_s = perf_counter() - timeline.began_s
        own_s = end_s - begin_s - timeline.within.seconds
        timeline.within.seconds = None if outer_s is None else outer_s + end_s - begin_s
        timeline.spans.append(TimedCall(name, thread, begin_s, end_s, own_s))


def _settle(thread: str) -> None:
    """Wait for what the main thread has asked the GPU for."""
    torch = sys.modules.get("torch")
    if thread == _MAIN and torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()
