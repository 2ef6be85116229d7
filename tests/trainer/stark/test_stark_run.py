"""Levels are trained alike, a run goes on after a kill at any moment, and a finished one takes more levels."""

import gc
import os
import re
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import children
import pytest
from stored import MANIFESTS
from transformers import BertForSequenceClassification, PreTrainedModel
from whole import QUICK, STUDENTS, Places, files, invoke, read, same_weights

from hskcache.build.addition import add_field, prepare_addition
from hskcache.cache import open_cache
from hskcache.sparsity.artifact import load_scores
from hskcache.sparsity.levels import Importance, kept_at
from hskcache.sparsity.masks import sparse
from hskcache.sparsity.scores import random_importance
from hskcache.teacher.load import Teacher, load_teacher
from hskcache.text.layout import Layout
from trainer.cli import main
from trainer.recipe import load_recipe
from trainer.run.fit import Fit
from trainer.run.prepare import prepare_fit
from trainer.run.request import FitRequest, FromCache, Machine
from trainer.stark import run as steps
from trainer.stark.settings import Data, Stark


def test_every_level_starts_as_the_trial_and_differs_by_its_teacher_alone(finished: Path) -> None:
    runs = [read(finished / "levels" / name / "run.json") for name in STUDENTS]
    assert len({run.pop("knowledge") for run in runs}) == len(STUDENTS)
    assert all(run == runs[0] for run in runs)
    assert runs[0]["student"] == read(finished / "run.json")["student"]
    assert not any(same_weights(finished / "levels" / "s0", finished / "levels" / name) for name in STUDENTS[1:])


def lacks(out: Path, field: str, dense: Teacher, importance: Importance) -> bool:
    """Whether the teacher of a field is the dense one without what ranks lowest."""
    stored = open_cache(out / "cache.hsk").manifest.added[field].teacher.weights_sha256
    with sparse(dense, kept_at(importance, int(field.rpartition("s")[2])), field) as expected:
        return stored == expected.info.weights_sha256


def test_each_level_removes_what_its_method_ranks_lowest(finished: Path, places: Places) -> None:
    """The method itself by both scores, half of each, ``plain`` by the expressive ones alone."""
    dense, (scores, _) = load_teacher(str(places.teacher), "cpu"), load_scores(finished)
    both, plain = scores.knowledgeable(0.5), scores.knowledgeable(1.0)
    assert all(lacks(finished, field, dense, both) for field in ("s30", "s60"))
    assert all(lacks(finished, field, dense, plain) for field in ("plain-s30", "plain-s60"))
    assert not lacks(finished, "plain-s30", dense, both)


def test_the_dense_teacher_under_the_name_of_a_level_gives_the_trial_again(
    finished: Path, places: Places, tmp_path: Path
) -> None:
    """Bit for bit: nothing but the logits tells a level from the trial."""
    out = shutil.copytree(finished, tmp_path / "out")
    dense = load_teacher(str(places.teacher), "cpu")
    add_field(prepare_addition(dense, open_cache(out / "cache.hsk"), "logits", "s40"))
    assert invoke(places.args(out, "--sparsity", "40")).exit_code == 0
    assert same_weights(out / "levels" / "s40", out / "levels" / "s0")
    assert read(out / "levels" / "s40" / "metrics.json")["scores"] == read(out / "results.json")["rows"][0]["metrics"]


def die_at(pattern: str, count: int, args: list[str]) -> None:
    """Run the command and be killed when a name like ``pattern`` is to be given for the ``count``-th time."""
    seen = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event == "os.rename" and re.search(pattern, str(arguments[1])):
            seen += 1
            if seen == count:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    main(args, standalone_mode=False)


def test_killed_again_and_again_a_run_ends_as_one_that_nothing_disturbed(
    finished: Path, places: Places, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    deaths = {
        "while the cache is built": (r"cache\.hsk/logits/000000\.json$", 1),
        "in the middle of the trial": (r"levels/s0/.*checkpoint-6/loader\.json$", 1),
        "between scores and their record": (r"/scores\.json$", 1),
        "before the second sparse teacher is in the cache": (r"cache\.hsk/manifest\.json$", 2),
        "in the middle of a level": (r"levels/s60/.*checkpoint-12/loader\.json$", 1),
        "before the best is in its place": (r"out/student$", 1),
    }
    for when, (pattern, count) in deaths.items():
        assert children.run(die_at, pattern, count, places.args(out)) == -signal.SIGKILL, when
    assert not (out / "results.json").exists()
    assert invoke(places.args(out)).exit_code == 0
    for name in ("results.json", "scores.safetensors", "student/stark.json"):
        assert (out / name).read_bytes() == (finished / name).read_bytes(), name
    assert open_cache(out / "cache.hsk").id == open_cache(finished / "cache.hsk").id
    for name in (*(f"levels/{student}" for student in STUDENTS), "student"):
        assert same_weights(out / name, finished / name), name
    # The names of logs hold the process and the time.
    ours, theirs = ({name for name in files(one) if "/logs/" not in name} for one in (out, finished))
    assert ours == theirs


def test_a_finished_run_takes_more_levels_and_leaves_the_others_as_they_are(
    finished: Path, places: Places, tmp_path: Path
) -> None:
    """It tells of all of them, also where the command names some."""
    out = shutil.copytree(finished, tmp_path / "out")
    before = files(out)
    assert invoke(places.args(out, "--sparsity", "15", "--compare", "random")).exit_code == 0
    touched = {name for name, stat in before.items() if files(out).get(name) != stat}
    assert {name.split("/")[0] for name in touched} <= {"results.json", "sparsity.png", "student", "cache.hsk"}
    assert {name for name in touched if name.startswith("cache")} == {f"cache.hsk/{name}" for name in MANIFESTS}
    rows = read(out / "results.json")["rows"]
    assert [row["field"] for row in rows] == [
        *["logits", "s15", "s30", "s60", "plain-s30", "plain-s60", "random-s15"],
    ]
    dense = load_teacher(str(places.teacher), "cpu")
    assert lacks(out, "random-s15", dense, random_importance(dense.model, 3))
    old = {row["field"]: row for row in read(finished / "results.json")["rows"]}
    assert [row for row in rows if row["field"] in old] == list(old.values())


def test_the_metric_of_the_task_by_name_and_the_length_of_the_run_untold_are_the_same_run(
    finished: Path, places: Places, tmp_path: Path
) -> None:
    out = shutil.copytree(finished, tmp_path / "out")
    args = places.args(out, "--metric", "accuracy")
    place = args.index("--max-length")
    del args[place : place + 2]
    again = invoke(args)
    assert again.exit_code == 0, again.stderr
    assert read(out / "run.json") == read(finished / "run.json")
    other = invoke([*args, "--metric", "f1"])
    assert (other.exit_code, "metric None and this one has 'f1'" in other.stderr) == (2, True), other.stderr


def test_levels_of_a_teacher_that_has_changed_are_refused(finished: Path, places: Places, tmp_path: Path) -> None:
    out = shutil.copytree(finished, tmp_path / "out")
    original = shutil.copytree(places.teacher, tmp_path / "teacher")
    model = BertForSequenceClassification.from_pretrained(places.teacher)
    model.classifier.bias.data += 1
    model.save_pretrained(places.teacher)
    try:
        result = invoke(places.args(out, "--sparsity", "45"))
    finally:
        shutil.copytree(original, places.teacher, dirs_exist_ok=True)
    assert result.exit_code == 2
    assert "has other weights than when" in result.stderr
    assert open_cache(out / "cache.hsk").id == open_cache(finished / "cache.hsk").id


def watched(places: Places, out: Path) -> None:
    """A run that looks for models in memory whenever a student is about to be trained."""
    recipe, fields = load_recipe("stark", QUICK), []
    # What is in cycles, as a student in bfloat16 is, stays until the run itself looks for it.
    gc.disable()
    machine = Machine("cpu", bf16=True)

    def watching(request: FitRequest, *args: Any, **given: Any) -> Fit:
        # By type: to ask some objects for their class loads modules.
        found = [type(one) for one in gc.get_objects() if issubclass(type(one), (Teacher, PreTrainedModel))]
        assert found == [], found
        assert isinstance(request.source, FromCache)
        if request.source.fields:
            places.teacher.rename(places.teacher.with_name("away"))
        fields.append(request.source.fields)
        return prepare_fit(request, *args, **given)

    steps.prepare_fit = watching
    data = Data(str(places.train), str(places.dev), None, None, Layout("sst2", None, None, None, None))
    settings: dict[str, Any] = {"balance": 0.5, "max_length": 24, "batch_size": 32, "seed": 0}
    given = {"teacher": str(places.teacher), "student": str(places.student), "data": data, "recipe": recipe}
    results = steps.run(Stark(**given, **settings, percents=(0, 50), others=(), machine=machine), out)
    assert fields == [(), ("s50",)]
    assert [row.percent for row in results.rows] == [0, 50]


def test_no_model_is_in_memory_when_a_student_begins_nor_a_teacher_loaded_for_levels(
    places: Places, tmp_path: Path
) -> None:
    """The teacher is gone at the trial, at the level even from the disk, and so is the trial."""
    own = places._replace(teacher=shutil.copytree(places.teacher, tmp_path / "teacher"))
    assert children.run(watched, own, tmp_path / "out") == 0


def test_several_processes_are_refused(places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    result = invoke(places.args(tmp_path / "out"))
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [line for line in result.stderr.splitlines() if "runs in one process" in line]
    assert not (tmp_path / "out").exists()
