"""``--traceback`` shows what the line of an error hides, and changes neither the line nor the exit code."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BAD_KEEP = ("build", "--teacher", "t", "--data", "d.tsv", "--keep", "1k", "--out", "c")
INTERRUPTED = """
import os, signal
import click
from hskcache.console import Commands

@click.command()
def stopping() -> None:
    os.kill(os.getpid(), signal.SIGINT)

group = Commands("demo", commands_at={"stopping": "__main__:stopping"})
if __name__ == "__main__":
    group(["--traceback", "stopping"])
"""


def run(*args: str, module: str = "hskcache.cli", **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"from {module} import main; main()", *args],
        cwd=ROOT,
        env=os.environ | {"HSKCACHE_RETRY_S": "0"} | variables,
        capture_output=True,
        text=True,
    )


def test_a_line_is_all_without_it_and_the_first_of_many_with_it() -> None:
    plain = run(*BAD_KEEP)
    assert plain.stderr.count("\n") == 1
    for told in (run("--traceback", *BAD_KEEP), run(*BAD_KEEP, HSKCACHE_TRACEBACK="1")):
        assert (told.returncode, told.stdout) == (plain.returncode, plain.stdout) == (2, "")
        line, *rest = told.stderr.splitlines(keepends=True)
        assert line == plain.stderr
        assert rest[0] == "Traceback (most recent call last):\n"
        assert "in parse_keep\n" in "".join(rest)
    assert run(*BAD_KEEP, HSKCACHE_TRACEBACK="0").stderr == plain.stderr


def test_hsktrain_has_it_too() -> None:
    told = run("--traceback", "fit", "--student", "tinybert4", "--out", "o", module="trainer.cli")
    assert told.returncode == 2
    assert told.stderr.startswith("error: give either --cache CACHE or --teacher DIR")
    assert "trainer/cli/fit.py" in told.stderr


def test_the_error_of_a_library_that_a_line_stands_for_is_named(tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_bytes(b"\xff\xfe")
    told = run("--traceback", "build", "--teacher", "t", "--data", "d.tsv", "--spec", str(file), "--out", "c")
    assert told.stderr.startswith(f"error: --spec {file} is not UTF-8 text")
    assert "builtins.UnicodeDecodeError, for which was raised:\n" in told.stderr


@pytest.mark.parametrize("url", ["http://user:pass-word@127.0.0.1:9/x.hsk?signature=pass-word"])
def test_no_password_of_a_url_is_in_it(url: str, tmp_path: Path) -> None:
    told = run("--traceback", "pull", url, str(tmp_path / "c"))
    assert told.returncode == 2
    assert "is out of reach" in told.stderr
    assert "Traceback" in told.stderr
    assert "pass-word" not in told.stderr


def test_an_interrupt_keeps_its_exit_code(tmp_path: Path) -> None:
    script = tmp_path / "interrupted.py"
    script.write_text(INTERRUPTED, encoding="utf-8")
    told = subprocess.run([sys.executable, script], cwd=ROOT, capture_output=True, text=True)
    assert told.returncode == 130
    assert told.stderr.startswith("error: interrupted; ")
    assert "in stopping\n" in told.stderr
