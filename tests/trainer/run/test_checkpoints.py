import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hskcache.errors import DamageError, MismatchError
from trainer.run.checkpoints import claim, difference, finish, last_checkpoint, read_json, step_of

RUN = {"learning_rate": 0.1, "model": "tinybert4", "metrics": ("accuracy",)}


def checkpoint(out: Path, step: int, without: str | None = None) -> Path:
    folder = out / "checkpoints" / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    for name in ("optimizer.pt", "scheduler.pt", "model.safetensors", "trainer_state.json"):
        if name != without:
            (folder / name).write_text("{}", encoding="utf-8")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}", encoding="utf-8")
    return path


def test_a_new_folder_has_nothing_to_show(tmp_path: Path) -> None:
    assert claim(tmp_path / "a" / "b", RUN) is None
    assert json.loads((tmp_path / "a" / "b" / "run.json").read_text(encoding="utf-8"))["model"] == "tinybert4"


def test_a_finished_run_gives_its_metrics_and_keeps_no_checkpoint(tmp_path: Path) -> None:
    claim(tmp_path, RUN)
    checkpoint(tmp_path, 10)
    finish(tmp_path, {"metric": "accuracy"})
    assert claim(tmp_path, RUN) == {"metric": "accuracy"}
    assert last_checkpoint(tmp_path) is None
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("finished", [True, False])
def test_another_run_is_refused_by_the_setting_that_differs(finished: bool, tmp_path: Path) -> None:
    claim(tmp_path, RUN)
    checkpoint(tmp_path, 10)
    if finished:
        finish(tmp_path, {})
    before = contents(tmp_path)
    with pytest.raises(MismatchError, match=r"learning_rate 0\.1 and this one has 0\.2"):
        claim(tmp_path, RUN | {"learning_rate": 0.2})
    assert contents(tmp_path) == before


def test_a_run_that_never_got_to_a_checkpoint_may_be_started_differently(tmp_path: Path) -> None:
    claim(tmp_path, RUN)
    changed = RUN | {"learning_rate": 0.2}
    assert claim(tmp_path, changed) is None
    checkpoint(tmp_path, 10)
    assert claim(tmp_path, changed) is None


def test_a_folder_that_holds_something_else_stays_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious", encoding="utf-8")
    before = contents(tmp_path)
    with pytest.raises(MismatchError, match="not empty"):
        claim(tmp_path, RUN)
    assert contents(tmp_path) == before


def test_the_newest_checkpoint_is_by_step_not_by_name(tmp_path: Path) -> None:
    checkpoint(tmp_path, 9)
    newest = checkpoint(tmp_path, 10)
    assert last_checkpoint(tmp_path) == newest
    assert step_of(newest) == 10


@pytest.mark.parametrize("without", ["optimizer.pt", "scheduler.pt", "model.safetensors", "trainer_state.json"])
def test_a_checkpoint_that_a_crash_cut_off_is_passed_over_and_removed(without: str, tmp_path: Path) -> None:
    whole = checkpoint(tmp_path, 9)
    cut = checkpoint(tmp_path, 10, without)
    assert last_checkpoint(tmp_path) == whole
    assert not cut.exists()


def test_a_state_file_that_ends_in_the_middle_is_a_cut_off_checkpoint(tmp_path: Path) -> None:
    whole = checkpoint(tmp_path, 9)
    (checkpoint(tmp_path, 10) / "trainer_state.json").write_text('{"epoch": 1', encoding="utf-8")
    assert last_checkpoint(tmp_path) == whole


def test_a_checkpoint_lacks_what_the_caller_needs_beside_the_trainers_files(tmp_path: Path) -> None:
    whole = checkpoint(tmp_path, 9)
    write(whole / "loader.json")
    cut = checkpoint(tmp_path, 10)
    assert last_checkpoint(tmp_path, also=("loader.json",)) == whole
    assert not cut.exists()


@pytest.mark.parametrize("progress", ["stages/0-hidden/done.json", "stages/1-prediction"])
def test_a_run_with_a_stage_behind_it_is_not_another(progress: str, tmp_path: Path) -> None:
    claim(tmp_path, RUN)
    if progress.endswith(".json"):
        write(tmp_path / progress)
    else:
        checkpoint(tmp_path / progress, 10)
    with pytest.raises(MismatchError, match=r"learning_rate 0\.1 and this one has 0\.2"):
        claim(tmp_path, RUN | {"learning_rate": 0.2})
    assert claim(tmp_path, RUN) is None
    assert (tmp_path / progress).exists()


def test_another_run_begins_in_a_clean_folder(tmp_path: Path) -> None:
    claim(tmp_path, RUN)
    write(tmp_path / "logs" / "hidden" / "events")
    write(tmp_path / "stages" / "0-hidden" / "checkpoints" / "checkpoint-4" / "optimizer.pt")
    claim(tmp_path, RUN | {"learning_rate": 0.2})
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_kill_between_the_result_and_the_tidying_leaves_a_finished_run(tmp_path: Path) -> None:
    claim(tmp_path, RUN)
    checkpoint(tmp_path / "stages" / "0-hidden", 10)
    write(tmp_path / "metrics.json")
    assert claim(tmp_path, RUN) == {}
    assert not (tmp_path / "stages").exists()


def test_a_kill_while_the_folder_is_claimed_leaves_a_new_folder(tmp_path: Path) -> None:
    write(tmp_path / "run.tmp")
    assert claim(tmp_path, RUN) is None


@pytest.mark.parametrize("content", [b"", b'{"seed": 1', b"\xff\xfe{}", b"[" * 100_000])
def test_a_file_that_is_no_json_is_damage_told_in_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(DamageError) as told:
        read_json(path)
    assert str(told.value).startswith(f"{path} is damaged: ")
    assert str(told.value).endswith("; restore it, or delete its folder and run the same command again")
    assert len(str(told.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["run.json", "metrics.json"])
@pytest.mark.parametrize("content", ["{", "[1]", "null"])
def test_records_that_are_no_objects_are_damage(content: str, name: str, tmp_path: Path) -> None:
    claim(tmp_path, RUN)
    finish(tmp_path, {"metric": "accuracy"})
    (tmp_path / name).write_text(content, encoding="utf-8")
    before = contents(tmp_path)
    with pytest.raises(DamageError, match=name):
        claim(tmp_path, RUN)
    assert contents(tmp_path) == before


# Without null, which is as good as missing.
VALUES = st.recursive(
    st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@given(VALUES, VALUES)
def test_there_is_a_difference_unless_two_runs_are_equal(one: Any, other: Any) -> None:
    assert difference({"a": one}, copy.deepcopy({"a": one})) is None
    if one != other:
        assert difference({"a": one, "b": 0}, {"a": other, "b": 0}) is not None


STAGE: dict[str, Any] = {"name": "distillation", "epochs": 2.0, "losses": {"soft": {"temperature": 2.0}}}
RECIPE: dict[str, Any] = {"name": "tiny", "stages": [STAGE, STAGE]}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 1}, "seed 0 and this one has 1"),
        ({"bf16": True}, "bf16 None and this one has True"),
        ({"recipe": {**RECIPE, "stages": [STAGE, STAGE | {"epochs": 3.0}]}}, "recipe.stages.1.epochs 2.0 and this "),
        ({"recipe": None}, "recipe {'name': 'tiny', "),
        ({"recipe": {**RECIPE, "stages": [STAGE]}}, "recipe.stages [{'name': "),
    ],
)
def test_a_difference_names_what_differs_and_never_shows_a_whole_run(changes: dict[str, Any], words: str) -> None:
    found = difference({"seed": 0, "recipe": RECIPE}, {"seed": 0, "recipe": RECIPE} | changes)
    assert found is not None
    assert found.startswith(words)
    assert len(found) < 220
