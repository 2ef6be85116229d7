"""Scores on the disk: the same numbers back, told apart by what made them, and never half of them."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hskcache.errors import CacheError, DamageError, MismatchError
from hskcache.sparsity.artifact import ModelId, ScoredRows, ScoreInfo, load_scores, save_scores
from hskcache.sparsity.levels import Importance
from hskcache.sparsity.run import stored_scores
from hskcache.sparsity.scores import UnitScores
from hskcache.store.files import file_sha256

INFO = ScoreInfo(
    teacher=ModelId(name="t", weights_sha256="1" * 64),
    student=ModelId(name="s", weights_sha256="2" * 64),
    data=ScoredRows(name="dev.tsv", fingerprint="3" * 64, num_rows=7, seed=5),
    batch_size=4,
    temperature=2.0,
    max_length=128,
    environment={"torch": "0"},
)


def scores_of(seed: int = 0, **changes: Any) -> UnitScores:
    draw = np.random.default_rng(seed)
    parts = (Importance(draw.random((2, 3)), draw.random((2, 5)) * 1e-300) for _ in range(2))
    return replace(UnitScores(*parts), **changes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_scores(tmp_path / "o", scores_of(), INFO)
    return tmp_path / "o"


def arrays(scores: UnitScores) -> list[list[Any]]:
    parts = (scores.expressive, scores.friendly)
    return [[] if part is None else [part.heads_LH.tolist(), part.neurons_LF.tolist()] for part in parts]


@pytest.mark.parametrize("lacking", ["nothing", "expressive", "friendly"])
def test_what_is_saved_comes_back_to_the_bit(lacking: str, tmp_path: Path) -> None:
    scores = scores_of(**({} if lacking == "nothing" else {lacking: None}))
    info = save_scores(tmp_path, scores, INFO)
    assert info.sha256 == file_sha256(tmp_path / "scores.safetensors")
    for path in (tmp_path, tmp_path / "scores.safetensors", tmp_path / "scores.json"):
        found, record = load_scores(path)
        assert arrays(found) == arrays(scores)
        assert record == info
    assert {path.name for path in tmp_path.iterdir()} == {"scores.safetensors", "scores.json"}


def test_the_same_scores_are_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    save_scores(tmp_path, scores_of(), INFO)
    for name in ("scores.safetensors", "scores.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_a_renamed_file_is_found_beside_its_record(folder: Path) -> None:
    for suffix in ("safetensors", "json"):
        (folder / f"scores.{suffix}").rename(folder / f"rte.{suffix}")
    assert arrays(load_scores(folder / "rte.safetensors")[0]) == arrays(scores_of())


def drop(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def flip(folder: Path) -> None:
    data = bytearray((folder / "scores.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "scores.safetensors").write_bytes(data)


def edited(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        record = json.loads((folder / "scores.json").read_text()) | changes
        (folder / "scores.json").write_text(json.dumps(record))

    return edit


def resaved(scores: UnitScores) -> Callable[[Path], None]:
    return lambda folder: void(save_scores(folder, scores, INFO))


def void(_value: object) -> None:
    """Forget what a lambda gives back."""


BAD = Importance(np.full((2, 3), np.nan), np.ones((2, 5)))
SHORT = Importance(np.ones((1, 3)), np.ones((2, 5)))
OTHER = Importance(np.ones((2, 4)), np.ones((2, 5)))


@pytest.mark.parametrize(
    ("harm", "kind", "words"),
    [
        (drop("scores.json"), MismatchError, "holds no scores"),
        (drop("scores.safetensors"), DamageError, "is missing"),
        (flip, DamageError, "is not what scores.json tells of"),
        (edited(sha256="0" * 64), DamageError, "is not what scores.json tells of"),
        (edited(kind="hskcache scores 2"), DamageError, "scores.json is damaged: kind"),
        (edited(more=1), DamageError, "scores.json is damaged: more"),
        (resaved(scores_of(expressive=BAD)), DamageError, "expressive scores are not finite"),
        (resaved(scores_of(friendly=SHORT)), DamageError, "friendly scores are not finite float64 numbers of layers"),
        (resaved(scores_of(friendly=OTHER)), DamageError, "the scores of one teacher"),
        (resaved(UnitScores(None, None)), DamageError, "the scores of one teacher"),
    ],
)
def test_what_is_damaged_is_refused_in_one_line(
    harm: Callable[[Path], None], kind: type[CacheError], words: str, folder: Path
) -> None:
    harm(folder)
    with pytest.raises(kind, match=words) as error:
        load_scores(folder)
    assert "\n" not in str(error.value)


def test_scores_of_the_same_pass_are_found_whatever_it_was_called(folder: Path, tmp_path: Path) -> None:
    same = {
        "teacher": INFO.teacher.model_copy(update={"name": "elsewhere/t"}),
        "student": ModelId(name="elsewhere/s", weights_sha256="2" * 64),
        "data": INFO.data.model_copy(update={"name": "hub:dev"}),
        "environment": {"torch": "1"},
    }
    found = stored_scores(folder, INFO.model_copy(update=same))
    assert found is not None
    assert arrays(found[0]) == arrays(scores_of())
    assert stored_scores(tmp_path / "empty", INFO) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("teacher", ModelId(name="t", weights_sha256="9" * 64)),
        ("student", None),
        ("data", INFO.data.model_copy(update={"fingerprint": "9"})),
        ("data", INFO.data.model_copy(update={"num_rows": 8})),
        ("data", INFO.data.model_copy(update={"seed": None})),
        ("has_labels", False),
        ("batch_size", 5),
        ("temperature", 2.5),
        ("max_length", 64),
    ],
)
def test_scores_of_another_pass_are_refused_and_what_differs_is_named(key: str, value: Any, folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(MismatchError, match=f"holds scores with {key}.* and these would have .*--scores"):
        stored_scores(folder, INFO.model_copy(update={key: value}))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_pass_that_was_cut_off_between_the_files_has_no_scores(folder: Path) -> None:
    (folder / "scores.json").unlink()
    assert stored_scores(folder, INFO) is None
    shutil.copy(folder / "scores.safetensors", folder / "scores.json.0123.tmp")
    assert stored_scores(folder, INFO) is None
