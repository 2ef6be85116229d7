"""Whole runs over three levels that the tests of this room share: how they are asked for and looked at."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from click.testing import CliRunner, Result
from tiny import weights_of

from trainer.cli import main

EPOCHS = ["distillation.epochs=2", "distillation.batch_size=16", "distillation.learning_rate=3e-3"]
# Other settings than the defaults of what they are handed on to, and several batches.
BATCH_SIZE, TEMPERATURE = 8, 3.0
QUICK = [*EPOCHS, f"distillation.losses.soft.temperature={TEMPERATURE}"]
STUDENTS = ("s0", "s30", "s60", "plain-s30", "plain-s60")
ROWS, SEED, MAX_LENGTH = 32, 3, 24


class Places(NamedTuple):
    """Of the inputs, a teacher of their own among them."""

    teacher: Path
    student: Path
    train: Path
    dev: Path

    def args(self, out: Path, *more: object) -> list[str]:
        """The command, with 3 levels and a comparison unless ``more`` says otherwise."""
        given = ["stark", "--teacher", self.teacher, "--student", self.student, "--data", self.train, "--eval-data"]
        given += [self.dev, "--task", "sst2", "--max-length", MAX_LENGTH, "--device", "cpu", "--out", out]
        given += ["--sparsity", "0,30,60", "--compare", "plain", "--seed", SEED, "--batch-size", BATCH_SIZE]
        return [*map(str, given), *(word for change in QUICK for word in ("--set", change)), *map(str, more)]


def invoke(args: list[str]) -> Result:
    return CliRunner().invoke(main, args, catch_exceptions=False)


def error_of(result: Result) -> str:
    """The one line that a refusal ends in, after the steps that were announced."""
    assert (result.exit_code, result.stdout) == (2, ""), result.stderr
    lines = result.stderr.splitlines()
    assert [line for line in lines if "error" in line] == lines[-1:], lines
    assert lines[-1].startswith("error: ")
    return lines[-1]


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def same_weights(one: Path, other: Path) -> bool:
    ours, theirs = weights_of(one), weights_of(other)
    return ours.keys() == theirs.keys() and all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def files(out: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file."""
    stats = {path.relative_to(out).as_posix(): path.stat() for path in out.rglob("*") if path.is_file()}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}
