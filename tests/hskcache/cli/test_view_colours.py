"""``view`` shades tokens by rank on a terminal, and nowhere else."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hskcache.shading import strength, terminal_style


def on_a_terminal(cache: Path, **variables: str) -> str:
    """Output of the command on a terminal of its own."""
    ours, theirs = pty.openpty()
    known = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "FORCE_COLOR"}}
    words = [sys.executable, "-m", "hskcache", "view", str(cache), "3"]
    environment = known | {"TERM": "xterm-256color", "COLORTERM": "truecolor", "COLUMNS": "200"} | variables
    process = subprocess.Popen(words, stdout=theirs, stderr=subprocess.DEVNULL, env=environment)
    os.close(theirs)
    pieces = []
    try:
        while piece := os.read(ours, 1 << 16):
            pieces.append(piece)
    except OSError:
        # Linux says so when the other end is closed.
        pass
    os.close(ours)
    assert process.wait() == 0
    return b"".join(pieces).decode()


def test_the_best_token_has_the_strongest_colour(built: Path) -> None:
    text = on_a_terminal(built)
    assert terminal_style(1.0) == "white on rgb(11,143,132)"
    first = re.search(r"48;2;11;143;132m\[CLS\]", text)
    assert first is not None
    assert len(set(re.findall(r"48;2;\d+;\d+;\d+m", text))) > 2


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb", "COLORTERM": ""}])
def test_no_colour_where_none_is_wanted(variables: dict[str, str], built: Path) -> None:
    assert not re.search(r"\x1b\[[0-9;]*(3[0-9]|4[0-9]|48;)[0-9;]*m", on_a_terminal(built, **variables))


def test_a_pipe_gets_the_words_alone(built: Path) -> None:
    words = [sys.executable, "-m", "hskcache", "view", str(built), "3"]
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert "\x1b" not in text
    assert "[CLS]" in text


def test_strength_falls_with_the_rank_and_is_0_of_what_was_not_kept() -> None:
    kept = [7, 0, 3, 9]
    assert [strength(position, kept) for position in (7, 0, 3, 9, 1)] == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert strength(0, []) == 0.0
