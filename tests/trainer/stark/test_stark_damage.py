"""What a full disk or a damaged file leaves: one line that tells what to do, and a run that goes on."""

import resource
import shutil
from pathlib import Path
from types import SimpleNamespace

import children
import pytest
from whole import Places, error_of, files, invoke, read, same_weights

METRICS = "levels/s30/metrics.json"
DAMAGED: dict[str, tuple[str, bytes, str]] = {
    "the run, cut short": ("run.json", b'{"seed": ', "run.json is damaged: "),
    "the run, no object": ("run.json", b"[]", "run.json is damaged: it holds [] in place of an object"),
    "the run, no text": ("run.json", b"\xff\xfe\x00", "run.json is damaged: "),
    "a level, cut short": (METRICS, b'{"metric": "accu', f"{METRICS} is damaged: "),
    "a level, empty": (METRICS, b"{}", f"{METRICS} is damaged: it holds no scores"),
    "a level, no object": (METRICS, b"3", f"{METRICS} is damaged: it holds 3"),
    "a level, other scores": (METRICS, b'{"metric": "f1", "scores": {"accuracy": 1}}', "holds no scores"),
    "a level, words": (METRICS, b'{"metric": "accuracy", "scores": {"accuracy": "high"}}', "holds no scores"),
    "a level of another command": ("levels/plain-s60/metrics.json", b"{}", "it holds no scores"),
    "the trial": ("levels/s0/metrics.json", b'{"metric": "accuracy", "scores": []}', "it holds no scores"),
}


@pytest.fixture(scope="module")
def copied(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(finished, tmp_path_factory.mktemp("copied") / "out")


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_record_ends_in_one_line(damage: str, copied: Path, finished: Path, places: Places) -> None:
    name, content, words = DAMAGED[damage]
    (copied / name).write_bytes(content)
    before = files(copied)
    said = error_of(invoke(places.args(copied, "--compare", "")))
    assert words in said
    assert said.endswith("restore it, or delete its folder and run the same command again")
    assert files(copied) == before
    shutil.copy2(finished / name, copied / name)


def test_a_level_without_weights_is_not_taken_for_trained(finished: Path, places: Places, tmp_path: Path) -> None:
    out = shutil.copytree(finished, tmp_path / "out")
    (out / "levels" / "s30" / "model.safetensors").unlink()
    said = error_of(invoke(places.args(out)))
    assert f"{out / 'levels' / 's30'} lacks its weights" in said
    assert "delete it and run the same command again" in said
    shutil.rmtree(out / "levels" / "s30")
    assert invoke(places.args(out)).exit_code == 0
    assert same_weights(out / "levels" / "s30", finished / "levels" / "s30")
    assert read(out / "results.json") == read(finished / "results.json")


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"])
def test_what_can_be_made_anew_is(content: bytes, finished: Path, copied: Path, places: Places) -> None:
    for name in ("results.json", "student/stark.json"):
        (copied / name).write_bytes(content)
    assert invoke(places.args(copied)).exit_code == 0
    for name in ("results.json", "student/stark.json"):
        assert (copied / name).read_bytes() == (finished / name).read_bytes()


def test_a_run_that_the_disk_has_no_room_for_is_refused_before_anything_is_written(
    finished: Path, places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finished one needs none."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=400_000))
    assert f"{tmp_path / 'out'} has 400.00 kB free; free space" in error_of(invoke(places.args(tmp_path / "out")))
    assert not (tmp_path / "out").exists()
    assert invoke(places.args(finished)).exit_code == 0


def starved(num_bytes: int, words: str, args: list[str]) -> None:
    """A run of which no file can grow beyond ``num_bytes``."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))
    said = error_of(invoke(args))
    assert words in said, said
    assert "run the same command again, which goes on from" in said, said


def test_a_full_disk_ends_in_one_line_and_the_run_goes_on_from_there(
    finished: Path, places: Places, tmp_path: Path
) -> None:
    """Told by safetensors and by torch; with room at last it ends as one that nothing disturbed."""
    out = tmp_path / "out"
    args = places.args(out, "--sparsity", "0", "--compare", "")
    weights = (finished / "levels" / "s0" / "model.safetensors").stat().st_size
    for num_bytes, words in ((weights - 100, "os error 27"), (weights + 500, "a checkpoint cannot be written")):
        assert children.run(starved, num_bytes, words, args) == 0, words
    assert invoke(args).exit_code == 0
    assert same_weights(out / "levels" / "s0", finished / "levels" / "s0")
    found = read(out / "results.json")
    assert found["rows"] == read(finished / "results.json")["rows"][:1]


def test_a_file_that_cannot_be_written_ends_in_one_line(copied: Path, finished: Path, places: Places) -> None:
    (copied / "results.json").unlink()
    (copied / "results.json").mkdir()
    said = error_of(invoke(places.args(copied)))
    assert f"cannot write {copied}: Is a directory: {copied / 'results.json'}; mend that" in said
    (copied / "results.json").rmdir()
    assert invoke(places.args(copied)).exit_code == 0
    assert (copied / "results.json").read_bytes() == (finished / "results.json").read_bytes()
