"""``hsktrain compare``: each side is a run of ``fit``, what is done is not run again, and intervals are Student's."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from trainer.cli import main as hsktrain
from trainer.comparison import Compared

ONCE = ("--set", "hidden.epochs=1", "--set", "prediction.epochs=1", "--device", "cpu")


def compare(*words: object) -> Result:
    return CliRunner().invoke(hsktrain, ["compare", *map(str, words)], catch_exceptions=False)


@pytest.fixture(scope="module")
def compared(
    cache_dir: Path, narrow: Path, tiny_teacher_dir: Path, tsv_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Words and answer of a comparison with the teacher in the loop."""
    out = tmp_path_factory.mktemp("compared") / "out"
    words = ("--cache", cache_dir, "--student", narrow, "--eval-data", tsv_file, "--task", "sst2", "--out", out, *ONCE)
    words += ("--teacher", tiny_teacher_dir)
    done = compare(*words, "--seeds", 2, "--json")
    assert done.exit_code == 0, done.stderr
    return {"words": words, "out": out, "facts": json.loads(done.stdout)}


def test_each_side_and_seed_is_a_run_of_its_own(compared: dict[str, Any]) -> None:
    facts, out = compared["facts"], compared["out"]
    assert list(facts["sides"]) == ["labels alone", "logits", "cache", "teacher in the loop"]
    assert json.loads((out / "results.json").read_text()) == facts
    for side in ("labels alone", "logits", "cache"):
        scores = []
        for seed in (0, 1):
            folder = out / side.replace(" ", "-") / f"seed-{seed}"
            run = json.loads((folder / "run.json").read_text())
            epochs = [stage["epochs"] for stage in run["recipe"]["stages"]]
            assert (run["seed"], sum(epochs)) == (seed, 2)
            scores.append(json.loads((folder / "metrics.json").read_text())["scores"]["accuracy"])
        assert facts["sides"][side]["scores"] == scores
        assert facts["sides"][side]["mean"] == pytest.approx(sum(scores) / 2)
    loop = facts["sides"]["teacher in the loop"]
    assert loop["scores"] == []
    assert loop["seconds_per_step"] > 0
    assert loop["num_bytes"] > facts["sides"]["cache"]["num_bytes"] > facts["sides"]["logits"]["num_bytes"] > 0


def test_what_is_done_is_not_run_again_and_a_seed_more_is_added(compared: dict[str, Any]) -> None:
    before = {path: path.stat().st_mtime_ns for path in compared["out"].rglob("model.safetensors")}
    done = compare(*compared["words"], "--seeds", 3)
    assert done.exit_code == 0, done.stderr
    after = {path: path.stat().st_mtime_ns for path in compared["out"].rglob("model.safetensors")}
    assert after.items() > before.items()
    assert len(after) == len(before) + 3
    table = done.stdout.splitlines()
    assert table[0].split() == ["student", "accuracy", "s", "a", "step", "knowledge", "on", "disk"]
    assert any(line.startswith("cache") and "±" in line for line in table)
    assert "95 % interval over 3 seeds" in done.stderr


def test_the_interval_over_seeds_is_students() -> None:
    """t of 2 degrees of freedom at 97.5 % is 4.302653 (any table)."""
    side = Compared((0.80, 0.82, 0.84), 0.5, 0.1, 0)
    assert side.interval == pytest.approx(4.302653 * 0.02 / math.sqrt(3), rel=1e-6)
    assert Compared((0.8,), 0.01, 0.1, 0).interval == pytest.approx(0.0196)
    assert Compared((0.8,), None, 0.1, 0).interval is None


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--set", "hiden.epochs=1"), "no side has a stage 'hiden'; they have hidden, prediction, labels"),
        (("--recipe", "mudd"), "do you mean 'mud'?"),
        (("--cache", "nowhere"), "nowhere does not exist"),
    ],
)
def test_what_cannot_be_is_said_before_the_first_run(
    compared: dict[str, Any], words: tuple[str, ...], line: str, tmp_path: Path
) -> None:
    done = compare(*compared["words"], "--out", tmp_path / "out", *words)
    assert done.exit_code == 2
    assert line in done.stderr.replace("\n", " ")
    assert not (tmp_path / "out").exists()
