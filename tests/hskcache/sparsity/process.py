"""``hskcache sparsify`` as a process of its own, forked from one that has imported torch."""

import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from forked import in_child

from hskcache.cli import main
from hskcache.store.files import sha256_hex


class Done(NamedTuple):
    """How a process ended and what it said."""

    code: int
    stdout: str
    stderr: str


def sparsify(*args: object, at_rename: Callable[[str], None] | None = None, limit_bytes: int | None = None) -> Done:
    """Run the command.

    Args:
        args: words after its name.
        at_rename: called in the process with the target of each rename, before it happens.
        limit_bytes: that a file may grow to, as if the disk were full.
    """
    torch.set_num_threads(1)
    # What is said fits a pipe; a file would count under the limit.
    pipes = [os.pipe(), os.pipe()]

    def work() -> None:
        for number, (_, end) in enumerate(pipes, start=1):
            os.dup2(end, number)
        _work(["sparsify", *map(str, args), "--device", "cpu"], at_rename, limit_bytes)

    code = in_child(work)
    said = []
    for begin, end in pipes:
        os.close(end)
        with os.fdopen(begin, encoding="utf-8") as file:
            said.append(file.read())
    done = Done(code, *said)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def _work(args: list[str], at_rename: Callable[[str], None] | None, limit_bytes: int | None) -> None:
    sys.stdout, sys.stderr = os.fdopen(1, "w", encoding="utf-8"), os.fdopen(2, "w", encoding="utf-8")
    # Whoever starts the tests in the background may have turned the signal off.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if at_rename is not None:
        sys.addaudithook(lambda event, given: at_rename(str(given[1])) if event == "os.rename" else None)
    if limit_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))
    code = 99
    try:
        main(args)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    finally:
        if code == 99:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def changed(args: tuple[object, ...], **changes: object) -> list[object]:
    """The same with other values of options; None leaves an option out."""
    given = dict(zip(args[::2], args[1::2], strict=True))
    given |= {f"--{name.replace('_', '-')}": value for name, value in changes.items()}
    return [part for name, value in given.items() if value is not None for part in (name, value)]


def line_of(done: Done) -> str:
    """The one line that a refusal ends in."""
    assert (done.code, done.stdout) == (2, ""), done
    *_, last = done.stderr.splitlines()
    assert [line for line in done.stderr.splitlines() if line.startswith("error: ")] == [last], done.stderr
    return last


def contents(root: Path) -> dict[str, str]:
    paths = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): sha256_hex(path.read_bytes()) for path in paths}


def touched(root: Path) -> dict[str, tuple[int, int]]:
    """What changes if a file is written again, even with the same bytes."""
    return {path.as_posix(): (path.stat().st_mtime_ns, path.stat().st_ino) for path in root.rglob("*")}
