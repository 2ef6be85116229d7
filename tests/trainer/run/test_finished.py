"""A finished run that is asked for again is told without torch, as long as all that it read is as it was."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from trainer.cli import main
from trainer.run.finished import ASKED

QUICK = ("--recipe", "logits", "--set", "prediction.epochs=1", "--task", "sst2", "--device", "cpu")
# Whatever imports torch fails.
WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from trainer.cli import main; main()"
SAID = "is finished already"


@pytest.fixture(scope="module")
def words(cache_dir: Path, tsv_file: Path, narrow: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of a run that is finished, over copies of what it reads."""
    folder = tmp_path_factory.mktemp("finished")
    shutil.copytree(cache_dir, folder / "cache")
    shutil.copy(tsv_file, folder / "dev.tsv")
    shutil.copy(narrow, folder / "student.json")
    given = ["--cache", folder / "cache", "--student", folder / "student.json", "--eval-data", folder / "dev.tsv"]
    command = list(map(str, ["fit", *given, *QUICK, "--out", folder / "out"]))
    assert invoke(command).exit_code == 0
    return command


def invoke(words: list[str]) -> Result:
    return CliRunner().invoke(main, words, catch_exceptions=False)


def without_torch(words: list[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *words], capture_output=True, text=True, check=False)


def place(words: list[str], flag: str) -> Path:
    return Path(words[words.index(flag) + 1])


def test_the_same_command_says_the_same_without_torch(words: list[str]) -> None:
    again = without_torch([*words, "--json"])
    assert again.returncode == 0, again.stderr
    out = place(words, "--out")
    assert again.stderr.splitlines()[0] == f"{out.resolve()} {SAID}"
    assert json.loads(again.stdout) == json.loads((out / "metrics.json").read_text(encoding="utf-8"))


def test_another_request_asks_the_run_itself(words: list[str]) -> None:
    other = without_torch([*words, "--seed", "1"])
    assert (other.returncode, SAID in other.stderr) == (2, False)
    refused = invoke([*words, "--seed", "1"])
    assert (refused.exit_code, "holds a run with seed 0 and this one has 1" in refused.stderr) == (2, True)


def later(file: Path) -> None:
    os.utime(file, ns=(0, 0))


def other_rows(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(lines[:-1]), encoding="utf-8")


@pytest.mark.parametrize(
    ("flag", "name", "change", "told"),
    [
        ("--cache", "manifest.json", later, SAID),
        ("--student", "", later, SAID),
        ("--eval-data", "", later, SAID),
        ("--eval-data", "", other_rows, "holds a run with eval"),
        ("--out", ASKED, lambda file: file.write_text("{"), SAID),
    ],
)
def test_whatever_has_changed_asks_the_run_itself(
    words: list[str], tmp_path: Path, flag: str, name: str, change: Callable[[Path], None], told: str
) -> None:
    """Only times that differ are no other run, content is."""
    file, memory = place(words, flag) / name, place(words, "--out") / ASKED
    kept, remembered = shutil.copy2(file, tmp_path / "kept"), memory.read_bytes()
    change(file)
    try:
        assert without_torch(words).returncode == 2
        assert told in invoke(words).stderr
    finally:
        shutil.copy2(kept, file)
        memory.write_bytes(remembered)


def test_what_is_remembered_of_another_run_in_the_folder_does_not_count(words: list[str], tmp_path: Path) -> None:
    """The folder was taken for another run after the one that is remembered."""
    shutil.copytree(place(words, "--out"), tmp_path / "out")
    run = tmp_path / "out" / "run.json"
    run.write_text(json.dumps(json.loads(run.read_text(encoding="utf-8")) | {"seed": 1}), encoding="utf-8")
    again = invoke([*words[:-1], str(tmp_path / "out")])
    assert (again.exit_code, "holds a run with seed 1 and this one has 0" in again.stderr) == (2, True)
