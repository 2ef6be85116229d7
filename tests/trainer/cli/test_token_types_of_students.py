"""A general student that has seen single texts alone: what is remembered of it, and what pairs make of that."""

import json
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from tiny import config_file, weights_of
from torch import Tensor

from hskcache.cache import Cache
from hskcache.cli import main as hskcache
from trainer.cli import main as hsktrain

GENERAL = ("--recipe", "tinybert-general", "--set", "general.batch_size=8", "--set", "general.epochs=1")
# Steps too small to move a weight: what is left is where the student began.
STILL = ("--recipe", "logits", "--set", "prediction.learning_rate=1e-12", "--set", "prediction.epochs=0.5")
SAID = "has seen single texts alone, so its token type 1 begins as a copy of token type 0"


def invoke(*args: object) -> Result:
    result = CliRunner().invoke(hsktrain, list(map(str, args)), catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return result


def types_of(folder: Path) -> Tensor:
    """The embedding of token types, [2, d]."""
    return next(value for name, value in weights_of(folder).items() if name.endswith("token_type_embeddings.weight"))


def remembered(folder: Path) -> dict[str, Any]:
    rows: dict[str, Any] = json.loads((folder / "rows.json").read_text(encoding="utf-8"))
    return rows


@pytest.fixture(scope="module")
def shape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return config_file(tmp_path_factory.mktemp("shape"), width=16, num_attention_heads=4)


@pytest.fixture(scope="module")
def general(written: Callable[..., Cache], shape: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained on the cache of a corpus of single texts."""
    out = tmp_path_factory.mktemp("general") / "out"
    corpus = written(corpus=True).root
    invoke("fit", "--cache", corpus, "--student", shape, *GENERAL, "--out", out, "--device", "cpu")
    return out


@pytest.fixture(scope="module")
def pairs(tiny_teacher_dir: Path, tsv_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Rows of two texts, and their cache."""
    folder = tmp_path_factory.mktemp("pairs")
    lines = [line.split("\t") for line in tsv_file.read_text(encoding="utf-8").splitlines()[1:17]]
    rows = [f"{one[0]}\t{other[0]}\t{one[1]}" for one, other in pairwise(lines)]
    (folder / "pairs.tsv").write_text("\n".join(["first\tsecond\tlabel", *rows]) + "\n", encoding="utf-8")
    columns = ("--text", "first", "--text-pair", "second", "--label", "label")
    build = (
        "build",
        "--teacher",
        tiny_teacher_dir,
        "--data",
        folder / "pairs.tsv",
        *columns,
        "--keep",
        "none",
        "--max-length",
        "48",
    )
    result = CliRunner().invoke(
        hskcache, list(map(str, (*build, "--keep", "none", "--out", folder / "cache", "--device", "cpu")))
    )
    assert result.exit_code == 0, result.stderr
    return folder / "pairs.tsv", folder / "cache"


def on_pairs(pairs: tuple[Path, Path], student: Path, out: Path) -> Result:
    data, cache = pairs
    given = ("fit", "--cache", cache, "--student", student, "--eval-data", data, *STILL)
    return invoke(*given, "--out", out, "--device", "cpu")


def test_pairs_begin_from_a_copy_of_the_type_that_was_trained(
    general: Path, pairs: tuple[Path, Path], tmp_path: Path
) -> None:
    """It is said once, and no longer remembered of the student that comes of it."""
    assert remembered(general)["token_types"] == 1
    before = types_of(general)
    assert not torch.allclose(before[0], before[1])
    result = on_pairs(pairs, general, tmp_path / "out")
    assert result.stderr.count(SAID) == 1
    torch.testing.assert_close(types_of(tmp_path / "out"), before[:1].expand(2, -1), rtol=0, atol=1e-7)
    assert "token_types" not in remembered(tmp_path / "out")
    again = on_pairs(pairs, general, tmp_path / "out")
    assert "finished already" in again.stderr
    assert SAID not in again.stderr


def test_a_student_without_the_note_is_left_alone(general: Path, pairs: tuple[Path, Path], tmp_path: Path) -> None:
    """As students from before it was kept, and those whose corpus had pairs."""
    shutil.copytree(general, tmp_path / "old")
    rows = remembered(general)
    del rows["token_types"]
    (tmp_path / "old" / "rows.json").write_text(json.dumps(rows))
    assert SAID not in on_pairs(pairs, tmp_path / "old", tmp_path / "out").stderr
    torch.testing.assert_close(types_of(tmp_path / "out"), types_of(general), rtol=0, atol=1e-7)


def test_the_note_goes_with_the_student_through_single_texts_and_create_makes_the_copy(
    general: Path, written: Callable[..., Cache], tsv_file: Path, tmp_path: Path
) -> None:
    given = ("fit", "--cache", written().root, "--student", general, "--eval-data", tsv_file, *STILL)
    result = invoke(*given, "--out", tmp_path / "task", "--device", "cpu")
    assert SAID not in result.stderr
    assert remembered(tmp_path / "task")["token_types"] == 1
    torch.testing.assert_close(types_of(tmp_path / "task"), types_of(general), rtol=0, atol=1e-7)
    created = ("create", "--student", general, "--tokenizer", general, "--labels", "a,b", "--out", tmp_path / "created")
    assert invoke(*created).stderr.count(SAID) == 1
    torch.testing.assert_close(types_of(tmp_path / "created"), types_of(general)[:1].expand(2, -1), rtol=0, atol=0)
    assert not (tmp_path / "created" / "rows.json").exists()


def test_a_corpus_of_pairs_leaves_no_note(tiny_teacher_dir: Path, shape: Path, general: Path, tmp_path: Path) -> None:
    """Not even of a student that has one: there, type 1 begins as a copy and is trained."""
    (tmp_path / "corpus.txt").write_text("the film is charming\n\nits plot is a waste\n\nthe music is moving\n" * 4)
    source = ("build", "--teacher", tiny_teacher_dir, "--corpus", tmp_path / "corpus.txt", "--max-length", "16")
    keep = ("--keep", "full", "--attention", "full", "--student-layers", "2", "--device", "cpu")
    result = CliRunner().invoke(hskcache, list(map(str, (*source, *keep, "--out", tmp_path / "corpus"))))
    assert result.exit_code == 0, result.stderr
    for name, student in (("fresh", shape), ("further", general)):
        given = ("fit", "--cache", tmp_path / "corpus", "--student", student, *GENERAL, "--out", tmp_path / name)
        told = invoke(*given, "--device", "cpu").stderr
        assert (SAID in told) == (student == general)
        assert "token_types" not in remembered(tmp_path / name)
        assert not torch.equal(*types_of(tmp_path / name))


def test_fine_tuning_on_labels_begins_from_the_copy_too(
    general: Path, pairs: tuple[Path, Path], tmp_path: Path
) -> None:
    columns = ("--text", "first", "--text-pair", "second", "--label", "label")
    given = ("finetune", "--model", general, "--data", pairs[0], "--eval-data", pairs[0], *columns)
    result = invoke(*given, "--epochs", "1", "--lr", "1e-12", "--out", tmp_path / "out", "--device", "cpu")
    assert SAID in result.stderr
    torch.testing.assert_close(types_of(tmp_path / "out"), types_of(general)[:1].expand(2, -1), rtol=0, atol=1e-7)
