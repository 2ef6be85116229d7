"""The folder of a run: whose it is, and the place of the best student."""

import json
import os
import resource
import signal
from pathlib import Path
from typing import Any

import forked
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from hskcache.errors import CacheError, MismatchError
from trainer.stark.folder import Folder, Outcome
from trainer.stark.settings import DENSE, KNOWLEDGE, Level
from trainer.stark.start import check_space

RUN: dict[str, Any] = {"seed": 0, "recipe": {"stages": [{"epochs": 2.0}, {"epochs": 3.0}]}, "score": None}
SPARSE, SPARSER = Level(KNOWLEDGE, 30), Level(KNOWLEDGE, 60)
DONE = {"metric": "f1", "scores": {"f1": 0.5}}


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
        (place / "metrics.json").write_text(json.dumps(DONE), encoding="utf-8")
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
    assert folder.trained() == dict.fromkeys((DENSE, SPARSE), Outcome("f1", {"f1": 0.5}))


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


@pytest.mark.parametrize("damage", ["stark.json", "model.safetensors"])
def test_a_best_that_is_not_whole_is_put_there_anew(damage: str, folder: Folder) -> None:
    folder.publish(SPARSE)
    if damage == "stark.json":
        (folder.best / damage).write_text("{", encoding="utf-8")
    else:
        (folder.best / damage).unlink()
    folder.publish(SPARSE)
    assert published(folder) == student_of(SPARSE)
    assert json.loads((folder.best / "stark.json").read_text(encoding="utf-8")) == {"method": KNOWLEDGE, "percent": 30}


def test_a_full_disk_leaves_the_best_as_it_was_and_no_part_of_another(folder: Folder) -> None:
    folder.publish(DENSE)

    def publish() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))
        with pytest.raises(CacheError, match=r"cannot write .*File too large.* run the same command again") as told:
            folder.publish(SPARSE)
        assert len(str(told.value).splitlines()) == 1

    assert forked.in_child(publish) == 0
    assert published(folder) == student_of(DENSE)
    assert sorted(path.name for path in folder.out.iterdir()) == ["levels", "run.json", "student"]


def test_the_room_that_students_need_is_counted_beside_what_is_there(folder: Folder) -> None:
    """Weights of a student for each level, for the best, and 11 for a stage: 3 checkpoints of 3, and 2 of its best."""
    levels = (DENSE, SPARSE)
    assert folder.most_bytes(levels, 1000) == 1000
    folder.publish(SPARSE)
    assert folder.most_bytes(levels, 1000) == 0
    assert folder.most_bytes((*levels, SPARSER), 1000) == (1 + 1 + 11) * 1000
    begun = folder.student(SPARSER) / "stages" / "0-distillation"
    begun.mkdir(parents=True)
    (begun / "best-6.safetensors").write_bytes(bytes(700))
    assert folder.most_bytes((*levels, SPARSER), 1000) == 13_000 - 700


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(folder: Folder) -> None:
    """A student of 4 TB, of which there are the shapes alone; where all are trained it does not matter."""
    with torch.device("meta"):
        huge = BertForSequenceClassification(BertConfig(vocab_size=10**9, hidden_size=1000, num_attention_heads=10))
    new = Folder(folder.out / "new")
    with pytest.raises(CacheError, match=r"the students may need 56\.\d\d TB more and .* free.*--sparsity"):
        check_space(new, (DENSE, SPARSE), huge)
    assert not new.out.exists()
    folder.publish(DENSE)
    check_space(folder, (DENSE, SPARSE), huge)
