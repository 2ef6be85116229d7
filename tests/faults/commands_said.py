"""A command of ours in a forked child, on whatever disk and with whatever rights: its exit code and what it says."""

import io
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

from forked import start
from steps import ended


class Said(NamedTuple):
    """How a command ended, and the lines on its stderr."""

    code: int
    lines: list[str]

    def assert_one_line(self, *words: str) -> None:
        """See that a command ended as bad input does, with these words in its only error."""
        assert self.code == 2, self
        errors = [line for line in self.lines if line.startswith("error: ")]
        assert len(errors) == 1, self
        assert errors == self.lines[-1:], self
        assert all(word in errors[0] for word in words), self


def hskcache(*arguments: object) -> None:
    """Run a command of ours in this process, which is a child.

    Args:
        arguments: of the command.

    Raises:
        AssertionError: it ends with anything but 0.
    """
    from hskcache.cli import main

    words = io.StringIO()
    with redirect_stdout(words), redirect_stderr(words):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code
    if code:
        raise AssertionError(f"{arguments[0]} ends with exit code {code}: {words.getvalue().splitlines()[-1:]}")


def said(arguments: Sequence[object], notes: Path, first: Callable[[], object] = lambda: None) -> Said:
    """Run ``hskcache`` in a child.

    Args:
        arguments: of the command.
        notes: file for what it says.
        first: done in the child before.
    """

    def command() -> None:
        stderr = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(stderr, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
        first()
        from hskcache.cli import main

        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            sys.stderr.flush()
            os._exit(int(end.code or 0))

    code = ended(start(command))
    return Said(code, notes.read_text(encoding="utf-8", errors="replace").splitlines())
