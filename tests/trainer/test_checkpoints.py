import json
from pathlib import Path

import pytest

from hskcache.errors import MismatchError
from trainer.checkpoints import claim, finish, last_checkpoint, step_of

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
