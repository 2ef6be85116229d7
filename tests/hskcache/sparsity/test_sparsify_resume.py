"""A run of ``hskcache sparsify`` that was cut off, by whatever, goes on; a finished one is left as it is."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from process import contents, line_of, sparsify, touched

from hskcache.locks import WRITING
from hskcache.sparsity.artifact import load_scores, save_scores
from hskcache.sparsity.levels import Importance
from hskcache.sparsity.scores import UnitScores


def test_a_second_run_writes_nothing(whole: Path, command: Any) -> None:
    before = touched(whole)
    done = sparsify(*command, "--out", whole)
    assert (done.code, "already there 4" in done.stderr) == (0, True)
    assert touched(whole) == before


def test_the_scores_that_are_there_are_taken(whole: Path, args: Any, tmp_path: Path) -> None:
    """Scores of the same pass with other numbers: were the pass made again, these would not be told of."""
    info = load_scores(whole)[1]
    draw = np.random.default_rng(0)
    other = Importance(draw.random((4, 4)), draw.random((4, 64)))
    marked = save_scores(tmp_path / "o", UnitScores(other, other), info)
    assert sparsify(*args).code == 0
    told = json.loads((tmp_path / "o" / "s50" / "sparsity.json").read_text())
    assert told["scores_sha256"] == marked.sha256 != info.sha256


@pytest.mark.parametrize("at", ["scores.safetensors", "scores.json", "s0", "s50"])
def test_a_killed_run_leaves_only_what_is_whole_and_goes_on(at: str, whole: Path, args: Any, tmp_path: Path) -> None:
    out = tmp_path / "o"

    def kill(target: str) -> None:
        if target == str(out / at):
            os.kill(os.getpid(), signal.SIGKILL)

    assert sparsify(*args, at_rename=kill).code == -signal.SIGKILL
    assert not (out / at).exists()
    assert [path.name for path in out.iterdir() if path.name.startswith(f"{at}.") and path.suffix == ".tmp"]
    # Of the killed one it says who wrote there.
    (out / WRITING).unlink()
    left = {name: digest for name, digest in contents(out).items() if ".tmp" not in name}
    assert left.items() <= contents(whole).items()
    before = {name: stamp for name, stamp in touched(out).items() if ".tmp" not in name}
    assert sparsify(*args).code == 0
    assert contents(out) == contents(whole)
    # A file of scores without its record is the one thing that is made anew.
    kept = [name for name in before if at != "scores.json" or not name.endswith(".safetensors")]
    after = touched(out)
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}


def test_an_interrupt_ends_in_one_line(args: Any, tmp_path: Path) -> None:
    def interrupt(target: str) -> None:
        if target.endswith("/s10"):
            raise KeyboardInterrupt

    done = sparsify(*args, at_rename=interrupt)
    assert (done.code, done.stderr.splitlines()[-1]) == (
        130,
        "error: interrupted; the same command goes on from the scores and levels that are written",
    )
    assert {path.name for path in (tmp_path / "o").iterdir()} == {"scores.safetensors", "scores.json", "s0"}


@pytest.mark.parametrize("limit", [100, 50_000])
def test_a_full_disk_ends_in_one_line_and_leaves_nothing_half_done(limit: int, args: Any, tmp_path: Path) -> None:
    """Files of scores have 4 kB, of weights 200 kB."""
    line = line_of(sparsify(*args, limit_bytes=limit))
    assert line.startswith(f"error: cannot write {tmp_path / 'o'}: ")
    assert line.endswith("the last whole sparse teacher")
    left = {"scores.safetensors", "scores.json"} if limit > 10_000 else set()
    assert {path.name for path in (tmp_path / "o").glob("*")} == left
