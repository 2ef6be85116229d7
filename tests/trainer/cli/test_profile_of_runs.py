"""``--profile`` tells of a run of training how often each part of a step ran, and changes nothing of its result."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tiny import config_file

from hskcache.cache import Cache
from trainer.cli import main

STEP = ("data", "forward", "backward", "clip", "optimizer")


def run(*args: object) -> str:
    done = CliRunner().invoke(main, list(map(str, args)), catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return done.stderr


def spans(trace: Path) -> Counter[str]:
    return Counter(event["name"] for event in json.loads(trace.read_text())["traceEvents"] if event["ph"] == "X")


def weights(out: Path) -> bytes:
    return (out / "model.safetensors").read_bytes()


def test_a_fit_tells_what_its_steps_are_made_of(caches: Any, tsv_file: Path, tmp_path: Path) -> None:
    cache: Cache = caches("bitmask")
    given = ["--cache", cache.root, "--student", config_file(tmp_path, width=16), "--eval-data", tsv_file]
    given += ["--set", "hidden.epochs=1", "--set", "prediction.epochs=1", "--device", "cpu"]
    told = run("fit", *given, "--out", tmp_path / "out", "--profile", tmp_path / "fit.json")
    run("fit", *given, "--out", tmp_path / "plain")
    # Two stages of three steps, each stage asking for data once more than there are.
    found = spans(tmp_path / "fit.json")
    assert {name: found[name] for name in STEP[1:]} == dict.fromkeys(STEP[1:], 6)
    assert found["data"] >= 6
    assert found["evaluate"] == 1
    assert "optimizer" in told
    assert weights(tmp_path / "out") == weights(tmp_path / "plain")


@pytest.mark.parametrize("accumulation", [1, 3])
def test_a_fine_tuning_has_one_clip_a_step_however_many_passes(
    tiny_teacher_dir: Path, tsv_file: Path, tmp_path: Path, accumulation: int
) -> None:
    given = ["--model", tiny_teacher_dir, "--data", tsv_file, "--eval-data", tsv_file, "--task", "sst2"]
    given += ["--epochs", 1, "--batch-size", 16, "--gradient-accumulation", accumulation, "--device", "cpu"]
    run("finetune", *given, "--out", tmp_path / "out", "--profile", tmp_path / "trace.json")
    found = spans(tmp_path / "trace.json")
    assert found["forward"] == found["backward"] == 6
    assert found["clip"] == found["optimizer"] == 6 // accumulation
    assert found["tokenize"] == 2
