"""The folder of a run: whose it is, and the place of the best student."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import forked
import pytest

from hskcache.errors import MismatchError
from trainer.stark.folder import Folder
from trainer.stark.settings import DENSE, KNOWLEDGE, Level

RUN: dict[str, Any] = {"seed": 0, "recipe": {"stages": [{"epochs": 2.0}, {"epochs": 3.0}]}, "score": None}
SPARSE = Level(KNOWLEDGE, 30)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """With the students of two levels as ``fit`` leaves them."""
    folder = Folder(tmp_path / "out")
    folder.claim(RUN)
    for level in (DENSE, SPARSE):
        place = folder.student(level)
        (place / "logs").mkdir(parents=True)
        (place / "tokenizer").mkdir()
        for name in ("logs/events", "run.json", "tokenizer/vocab.txt"):
            (place / name).write_text(level.folder, encoding="utf-8")
        (place / "metrics.json").write_text(json.dumps({"scores": {"f1": 0.5}}), encoding="utf-8")
        (place / "model.safetensors").write_text(level.folder * 9, encoding="utf-8")
    return folder


def published(folder: Folder) -> dict[str, str]:
    return {
        path.relative_to(folder.best).as_posix(): path.read_text(encoding="utf-8")
        for path in folder.best.rglob("*")
        if path.is_file() and path.name != "stark.json"
    }


def student_of(level: Level) -> dict[str, str]:
    return {"model.safetensors": level.folder * 9, "tokenizer/vocab.txt": level.folder}


def test_the_same_settings_go_on_and_nothing_is_written(folder: Folder) -> None:
    before = (folder.out / "run.json").stat().st_mtime_ns
    folder.claim(RUN)
    assert (folder.out / "run.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"seed": 1}, "with seed 0 and this one has 1;"),
        ({"recipe": {"stages": [{"epochs": 2.0}, {"epochs": 4.0}]}}, r"recipe\.stages\.1\.epochs 3\.0 and .* 4\.0"),
        ({"recipe": {"stages": [{"epochs": 2.0}]}}, "with recipe.stages "),
        ({"score": {"rows": 3}}, "with score None and"),
        ({"balance": 0.5}, "with balance None and this one has 0.5"),
    ],
)
def test_other_settings_are_refused_by_name(change: dict[str, Any], complaint: str, folder: Folder) -> None:
    with pytest.raises(MismatchError, match=complaint):
        folder.claim(RUN | change)
    folder.claim(RUN)


def test_a_folder_in_which_nothing_was_begun_takes_other_settings(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.claim(RUN)
    folder.claim(RUN | {"seed": 7})
    assert json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))["seed"] == 7


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(MismatchError, match="is not empty and holds no run"):
        Folder(tmp_path).claim(RUN)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_what_is_trained_is_told_whoever_asked_for_it(folder: Folder) -> None:
    (folder.out / "levels" / "s40").mkdir()
    (folder.out / "levels" / "notes").mkdir()
    assert folder.trained() == {DENSE: {"f1": 0.5}, SPARSE: {"f1": 0.5}}


def test_the_best_is_the_student_without_the_run_that_made_it(folder: Folder) -> None:
    folder.publish(DENSE)
    assert published(folder) == student_of(DENSE)
    before = {path: path.stat().st_mtime_ns for path in folder.best.rglob("*")}
    folder.publish(DENSE)
    assert {path: path.stat().st_mtime_ns for path in folder.best.rglob("*")} == before
    folder.publish(SPARSE)
    assert published(folder) == student_of(SPARSE)


@pytest.mark.parametrize("rename", [1, 2, 3])
def test_the_best_is_whole_or_absent_whenever_its_change_is_killed(rename: int, folder: Folder) -> None:
    """The record's, then the old student's out of the way, then the new one's into its place."""
    folder.publish(DENSE)
    seen = 0

    def die(event: str, _args: tuple[Any, ...]) -> None:
        nonlocal seen
        seen += event == "os.rename"
        if event == "os.rename" and seen == rename:
            os.kill(os.getpid(), signal.SIGKILL)

    assert forked.in_child(lambda: folder.publish(SPARSE), die) == -signal.SIGKILL
    assert published(folder) in ({}, student_of(DENSE))
    folder.publish(SPARSE)
    assert published(folder) == student_of(SPARSE)
    assert sorted(path.name for path in folder.out.iterdir()) == ["levels", "run.json", "student"]
