"""``help`` of either command shows the guide, without torch, laid out on a terminal and as it is in a pipe."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hskcache import guide
from hskcache.cli import main as hskcache
from trainer.cli import main as hsktrain

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "data" / "guide"
EVERY_PAGE = """
import sys
sys.modules["torch"] = sys.modules["transformers"] = None
from hskcache import guide
from hskcache.cli import main
for topic in guide.topics():
    main(["help", topic], standalone_mode=False)
    print("END OF", topic)
"""


def run(*args: str) -> Result:
    return CliRunner().invoke(hskcache, ["help", *args])


def test_the_index_names_every_page_once() -> None:
    assert sorted(guide.topics()) == sorted({path.stem for path in PAGES.glob("*.md")} - {"README"})


def test_both_commands_list_topics_by_section_with_a_line_each() -> None:
    ours, theirs = (CliRunner().invoke(group, ["help"]) for group in (hskcache, hsktrain))
    assert ours.exit_code == theirs.exit_code == 0
    assert ours.stdout.splitlines()[1:] == theirs.stdout.splitlines()[1:]
    assert re.search(r"\n  glossary +one word for one thing\.\n", ours.stdout)
    # A line that is folded belongs to no topic.
    assert sum(line.startswith("  ") for line in ours.stdout.splitlines()) == len(guide.topics())


@pytest.mark.parametrize("topic", guide.topics())
def test_a_page_in_a_pipe_is_its_markdown_with_links_as_words(topic: str) -> None:
    result = run(topic)
    assert result.exit_code == 0
    shown, source = result.stdout.splitlines(), (PAGES / f"{topic}.md").read_text(encoding="utf-8").splitlines()
    assert shown[0].startswith("# ")
    assert not any("](" in line for line in shown)
    assert [one for one, other in zip(shown, source, strict=True) if "](" not in other] == [
        line for line in source if "](" not in line
    ]


def test_every_page_is_laid_out_on_a_terminal() -> None:
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", EVERY_PAGE],
        cwd=ROOT,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "100"},
        stdout=theirs,
        stderr=subprocess.PIPE,
    ) as process:
        os.close(theirs)
        shown = b""
        while piece := _read(ours):
            shown += piece
        os.close(ours)
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 0
    lines = shown.decode().splitlines()
    assert [line.removeprefix("END OF ") for line in lines if line.startswith("END OF")] == guide.topics()
    assert "\x1b[" in shown.decode()
    assert not [line for line in lines if line.startswith(("# ", "```", "|---"))]


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # the other side is closed
        return b""


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("keping", "error: 'keping' is not a topic of the guide; do you mean 'keeping'?\n"),
        ("../../spec", "error: '../../spec' is not a topic of the guide; hskcache help lists them\n"),
        ("README", "error: 'README' is not a topic of the guide; hskcache help lists them\n"),
    ],
)
def test_an_unknown_topic_is_one_line_and_exit_code_2(given: str, line: str) -> None:
    result = run(given)
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", line)
