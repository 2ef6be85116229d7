"""Every step that a program takes on the disk, seen from inside its process, which may be ended at any of them.

Nothing is replaced by something that pretends: what Python tells audit hooks is noted before it happens, and writing
and syncing go through the real calls, once they are noted. It works in a child of its own and is never taken back.
"""

import builtins
import io
import json
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from forked import start

Work = Callable[[], object]

PATIENCE_S = 120
# Parts of names that are drawn at random, and files without a name.
_RANDOM = re.compile(r"#\d+ \(deleted\)|[0-9a-f]{16,}|(?<=tmp)[a-z0-9_]{8}")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_EVENTS = {"os.rename": 1, "os.remove": 0, "os.mkdir": 0, "os.rmdir": 0, "os.link": 1, "os.symlink": 1}
_FOLDERS = {"os.rename": 3, "os.remove": 1, "os.mkdir": 2, "os.rmdir": 1, "os.link": 3, "os.symlink": 2}


class Step(NamedTuple):
    """One thing done to the disk.

    Attributes:
        verb: ``open`` (for writing), ``write``, ``sync``, ``rename``, ``remove``, ``mkdir``, ``rmdir``, ``link``,
            ``symlink`` or ``lock``.
        file: it is done to, within the watched folder; random parts of a name as ``*``. Of a rename the new name.
        nth: time that this is done to this file, from 0.
        source: of a rename, the old name.
    """

    verb: str
    file: str
    nth: int
    source: str = ""

    def __str__(self) -> str:
        return f"{self.verb} {self.file}" + (f" ({self.nth + 1})" if self.nth else "")


class Moment(NamedTuple):
    """When to end a process: right before a step, or when half of what it writes is on the disk."""

    step: Step
    half: bool = False

    def __str__(self) -> str:
        return f"{'half of' if self.half else 'before'} {self.step}"


# Called before a step with it and, for a write, what writes its first half.
OnStep = Callable[[Step, Callable[[], object] | None], None]


class Watch:
    """Call something before every step below a folder.

    Args:
        root: the folder; it need not exist.
        on_step: what to call, in whichever thread takes the step.
    """

    def __init__(self, root: Path, on_step: OnStep) -> None:
        self._root = root.resolve()
        self._on_step = on_step
        self._seen: Counter[tuple[str, str]] = Counter()

    def install(self) -> None:
        """Watch this process from now on."""
        sys.addaudithook(self._audit)
        for name in ("fsync", "fdatasync"):
            setattr(os, name, self._after_noting("sync", getattr(os, name)))
        for name in ("write", "pwrite"):
            setattr(os, name, self._halved(getattr(os, name)))
        self._open, watch = io.open, self

        class File(io.FileIO):
            def write(self, data: Any) -> int:
                view, write = memoryview(data).cast("B"), super().write
                watch._note("write", watch._path(self.fileno()), lambda: write(view[: len(view) // 2]))
                return write(data)

        self._file = File
        io.open = builtins.open = self._watched_open  # type: ignore[assignment]

    def _watched_open(self, file: Any, mode: str = "r", buffering: int = -1, *more: Any, **named: Any) -> Any:
        if not set(mode) & set("wxa+") or self._inside(self._path(file)) is None:
            return self._open(file, mode, buffering, *more, **named)
        raw = self._file(file, mode.replace("b", "").replace("t", ""), **_of_raw(named))
        if buffering == 0:
            return raw
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        kept = {name: value for name, value in named.items() if name in {"encoding", "errors", "newline"}}
        return buffered if "b" in mode else io.TextIOWrapper(buffered, *more, **kept)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and arguments[0] is not None and arguments[2] & _WRITES:
            self._note("open", self._path(arguments[0]))
        elif event in _EVENTS:
            path, folder = arguments[_EVENTS[event]], arguments[_FOLDERS[event]]
            source = self._path(arguments[0], arguments[2]) if event == "os.rename" else None
            self._note(event.removeprefix("os."), self._path(path, folder), source=source)
        elif event == "fcntl.flock":
            self._note("lock", self._path(arguments[0]))

    def _after_noting(self, verb: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def noted(file: Any) -> Any:
            self._note(verb, self._path(file if isinstance(file, int) else file.fileno()))
            return real(file)

        return noted

    def _halved(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def noted(file: int, data: Any, *where: Any) -> Any:
            view = memoryview(data).cast("B")
            self._note("write", self._path(file), lambda: real(file, view[: len(view) // 2], *where))
            return real(file, data, *where)

        return noted

    def _note(
        self, verb: str, path: Path, half: Callable[[], object] | None = None, source: Path | None = None
    ) -> None:
        name = self._inside(path)
        if name is None:
            return
        nth = self._seen[verb, name]
        self._seen[verb, name] += 1
        self._on_step(Step(verb, name, nth, self._inside(source) or "" if source is not None else ""), half)

    def _inside(self, path: Path) -> str | None:
        """Path within the folder, random parts as ``*``; None outside of it."""
        return _RANDOM.sub("*", path.relative_to(self._root).as_posix()) if path.is_relative_to(self._root) else None

    def _path(self, file: Any, folder: int = -1) -> Path:
        """Absolute path of a name, of a name within an open folder, or of an open file."""
        if isinstance(file, int):
            try:
                return Path(f"/proc/self/fd/{file}").readlink()
            except OSError:
                return Path()
        above = Path(f"/proc/self/fd/{folder}").readlink() if folder >= 0 else Path.cwd()
        path = above / os.fsdecode(file)
        return path.parent.resolve() / path.name


def _of_raw(named: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in named.items() if name in {"closefd", "opener"}}


def ended(child: int, patience_s: float = PATIENCE_S) -> int:
    """Exit code of a child, negative after a signal.

    Raises:
        AssertionError: it does not come to an end.
    """
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError(f"does not come to an end within {patience_s} s")


def run(work: Work) -> None:
    """Do something in a child.

    Raises:
        AssertionError: it fails there; the child has printed why.
    """
    code = ended(start(work))
    assert code == 0, f"ends with exit code {code} when nothing disturbs it"


def recorded(work: Work, root: Path, notes: Path) -> list[Step]:
    """The steps that a piece of work takes below a folder when nothing disturbs it.

    Args:
        work: is done in a child.
        root: the folder.
        notes: file that the child leaves them in; outside of ``root``.
    """

    def noting() -> None:
        steps: list[Step] = []
        Watch(root, lambda step, _half: steps.append(step)).install()
        work()
        notes.write_text(json.dumps(steps), encoding="utf-8")

    run(noting)
    return [Step(*step) for step in json.loads(notes.read_bytes())]


def moments(steps: list[Step]) -> list[Moment]:
    """When a process that takes these steps can be ended: before each, and half-way through what it writes."""
    return [Moment(step, half) for step in steps for half in ((False, True) if step.verb == "write" else (False,))]


def killed_at(work: Work, root: Path, moment: Moment) -> None:
    """Do something in a child that SIGKILL ends at a moment.

    Raises:
        AssertionError: it ends otherwise, or the moment never comes.
    """

    def kill(step: Step, half: Callable[[], object] | None) -> None:
        if step != moment.step:
            return
        if moment.half and half is not None:
            half()
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(PATIENCE_S)

    def watched() -> None:
        Watch(root, kill).install()
        work()

    code = ended(start(watched))
    assert code == -signal.SIGKILL, f"ends with exit code {code} instead of being killed"
