"""A study that several processes share, and one that was killed: every run is made once, and gives the same."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from studying import AXIS, QUICK, facts_of, program

from hskcache.studied import StudyResults, read_results


@pytest.fixture(scope="module")
def words(cache_dir: Path, narrow: Path, tsv_file: Path) -> tuple[object, ...]:
    return (*AXIS, "--cache", cache_dir, "--student", narrow, "--eval-data", tsv_file, *QUICK, "--seeds", 2)


@pytest.fixture(scope="module")
def alone(words: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    """The study as one process makes it."""
    out = tmp_path_factory.mktemp("alone") / "out"
    facts_of(*words, "--out", out)
    return read_results(out)


def begun(told: str) -> list[str]:
    """Cells that a process has begun, in the order of its words."""
    return [line.rpartition("/")[2] for line in told.splitlines() if ", seed " in line and "/cells/" in line]


def wait_until(done: Callable[[], Any], process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 120
    while not done():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)


def test_two_processes_share_a_folder(words: tuple[object, ...], alone: StudyResults, tmp_path: Path) -> None:
    out = tmp_path / "out"
    both = [
        subprocess.Popen(program(*words, "--out", out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    told = [process.communicate(timeout=240) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    cells = [begun(err) for _, err in told]
    assert len({*cells[0], *cells[1]}) == len(cells[0]) + len(cells[1]) == 6
    assert read_results(out) == alone
    assert told[0][0] == told[1][0] != ""
    assert not list(out.rglob("*.lock"))


def test_a_study_that_was_killed_goes_on_to_the_same_results(
    words: tuple[object, ...], alone: StudyResults, tmp_path: Path
) -> None:
    """Killed in its third run, of which something may have been saved."""
    out = tmp_path / "out"
    process = subprocess.Popen(program(*words, "--out", out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: len(list(out.glob("cells/*/run.json"))) == 3, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    done = len(list(out.glob("cells/*/metrics.json")))
    assert done < 6
    assert read_results(out).num_left in {6 - done, 7 - done}
    again = subprocess.run(program(*words, "--out", out), capture_output=True, text=True, timeout=240)
    assert again.returncode == 0, again.stderr
    assert len(begun(again.stderr)) == 6 - done
    assert read_results(out) == alone
