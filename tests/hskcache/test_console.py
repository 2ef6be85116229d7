"""What a user can mend ends in one line on stderr and a code; data for programs stands alone on stdout."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from hskcache import console, errors, units
from hskcache.console import Commands
from hskcache.units import human_rate, human_time

ROOT = Path(__file__).resolve().parents[2]
RAISED: list[BaseException] = []


@click.command()
def failing() -> None:
    """Raise what a test asks for."""
    raise RAISED[-1]


@click.command()
@click.option("--count", type=click.IntRange(min=1), help="A number.")
def counting(count: int) -> None:
    """Print data and words."""
    console.say("words for people")
    console.print_json({"count": count, "é": None})


group = Commands(
    "demo", commands_at={"failing": f"{__name__}:failing", "counting": f"{__name__}:counting", "torch": "absent:it"}
)


def run(*args: str, error: BaseException | None = None) -> Any:
    if error is not None:
        RAISED.append(error)
    return CliRunner().invoke(group, list(args))


@pytest.mark.parametrize("kind", [errors.CacheError, *errors.CacheError.__subclasses__()])
def test_every_cache_error_is_one_line_and_exit_code_2(kind: type[errors.CacheError]) -> None:
    result = run("failing", error=kind("the width is 2;\n  give one of at most 1"))
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "error: the width is 2; give one of at most 1\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "error: No space left on device\n"),
        (PermissionError(errno.EACCES, "Permission denied", "/a/b"), "error: Permission denied: /a/b\n"),
    ],
)
def test_an_error_of_the_system_is_one_line_too(error: OSError, line: str) -> None:
    result = run("failing", error=error)
    assert (result.exit_code, result.stderr) == (2, line)


def test_an_interrupt_is_one_line_and_exit_code_130() -> None:
    result = run("failing", error=KeyboardInterrupt())
    assert result.exit_code == 130
    assert result.stderr.startswith("error: interrupted")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("error", [ValueError("a fault of ours"), OSError("a library's own")])
def test_a_fault_of_ours_keeps_its_traceback(error: Exception) -> None:
    assert run("failing", error=error).exception is error


def test_a_reader_that_stops_reading_is_no_error() -> None:
    """As in ``hskcache info cache | head -1``."""
    script = f"import sys; sys.path[:0] = {sys.path!r}; import test_console; test_console.flood()"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", script], stdout=writer, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    os.close(writer)
    assert done.stderr == ""


def flood() -> None:
    RAISED.append(BrokenPipeError(errno.EPIPE, "Broken pipe"))
    group(["failing"])


def test_a_package_of_an_extra_that_is_missing_is_named_with_its_extra() -> None:
    result = run("failing", error=ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn"))
    assert result.exit_code == 2
    assert result.stderr == "error: torch is not installed; install the extra: pip install 'hskcache[student]'\n"


def test_another_missing_module_is_a_fault_of_ours_and_shows_itself() -> None:
    assert isinstance(run("failing", error=ModuleNotFoundError("x", name="x")).exception, ModuleNotFoundError)


def test_a_device_without_memory_ends_in_one_line() -> None:
    import torch

    result = run("failing", error=torch.OutOfMemoryError("CUDA out of memory"))
    assert result.exit_code == 2
    assert result.stderr.startswith("error: the device is out of memory; ")
    assert isinstance(run("failing", error=RuntimeError("else")).exception, RuntimeError)


def test_words_go_to_stderr_and_data_to_stdout() -> None:
    result = run("counting", "--count", "3")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"count": 3, "é": None}
    assert result.stderr == "words for people\n"


def test_a_wrong_flag_is_a_usage_error() -> None:
    result = run("counting", "--count", "0")
    assert result.exit_code == 2
    assert "0 is not in the range" in result.stderr
    assert run("unheard-of").exit_code == 2


def test_commands_are_imported_when_they_are_used_and_listed_in_order() -> None:
    assert group.list_commands(click.Context(group)) == ["failing", "counting", "torch"]
    with pytest.raises(ModuleNotFoundError, match="absent"):
        group.get_command(click.Context(group), "torch")


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (1_250_000, "1.25 MB"), (3.2e9, "3.20 GB"), (5e15, "5000.00 TB")],
)
def test_sizes_are_in_powers_of_ten(num_bytes: float, text: str) -> None:
    assert units.human_bytes(num_bytes) == text


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [("1", 1), ("500MB", 500_000_000), ("1.5 tb", 1_500_000_000_000), ("20G", 20_000_000_000), ("2KiB", 2048)],
)
def test_sizes_are_read_as_people_write_them(text: str, num_bytes: int) -> None:
    assert units.parse_bytes(text, "--local-bytes") == num_bytes


@pytest.mark.parametrize("text", ["", "0", "0.0001 kB", "-1GB", "1e9", "many", "5 XB", "1,5GB", "GB"])
def test_what_is_no_size_is_refused_with_one_that_is(text: str) -> None:
    with pytest.raises(errors.SpecError, match=r"--local-bytes .* is not a size; give one such as 500MB or 20GB"):
        units.parse_bytes(text, "--local-bytes")


def test_tables_are_not_broken_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    long = "/a/very/long/path" * 20 + " [bold]"
    console.printer().print(long)
    assert capsys.readouterr().out == f"{long}\n"


@pytest.mark.parametrize("is_done", [False, True])
def test_a_bar_is_left_where_something_was_done_alone(capsys: pytest.CaptureFixture[str], is_done: bool) -> None:
    with console.progress() as bar:
        task = bar.add_task("build", total=3)
        if is_done:
            bar.advance(task, 3)
    assert ("build" in capsys.readouterr().err) is is_done


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0 s"), (42.4, "42 s"), (65, "1 min 5 s"), (120, "2 min"), (7620, "2 h 7 min"), (273_600, "3 d 4 h")],
)
def test_a_duration_is_told_in_its_two_largest_units(seconds: float, words: str) -> None:
    assert human_time(seconds) == words


@pytest.mark.parametrize(
    ("speed", "unit", "words"),
    [
        (1250.4, "rows", "1,250 rows/s"),
        (2.54, "steps", "2.5 steps/s"),
        (0.3125, "steps", "3.2 s/step"),
        (4.1e6, "bytes", "4.10 MB/s"),
    ],
)
def test_a_speed_below_one_a_second_is_told_by_what_one_takes(speed: float, unit: str, words: str) -> None:
    assert human_rate(speed, unit) == words
