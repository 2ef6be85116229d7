"""``hskcache sparsify --unstructured``: exact zeros in ordinary checkpoints, by any ranking, from scores made once."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import saved
from safetensors.numpy import load_file
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from hskcache.sparsity.artifact import load_weight_scores
from hskcache.sparsity.levels import num_removed

LAYERS, WIDTH, NEURONS = 4, 32, 64
EACH = 4 * WIDTH * WIDTH + 2 * WIDTH * NEURONS
TOTAL = LAYERS * EACH


@pytest.fixture(scope="module")
def student(tiny_tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = AutoTokenizer.from_pretrained(tiny_tokenizer_dir)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, num_labels=2, **sizes)
    return saved(lambda: BertForSequenceClassification(config), tokenizer, tmp_path_factory.mktemp("student"))


@pytest.fixture(scope="module")
def bare(tiny_teacher_dir: Path) -> tuple[object, ...]:
    return ("sparsify", "--unstructured", "--teacher", tiny_teacher_dir, "--device", "cpu")


@pytest.fixture(scope="module")
def command(sources: Any, student: Path) -> tuple[object, ...]:
    """A run over three levels, but for --out."""
    given = ("--task", "sst2", "--trial-student", student, "--sparsity", "0,10,90")
    return ("sparsify", "--unstructured", *sources, *given)


@pytest.fixture(scope="module")
def finished(command: Any, run: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The folder of a run, not to be changed, and what the run said."""
    out = tmp_path_factory.mktemp("unstructured") / "o"
    result = run(*command, "--out", out)
    assert result.exit_code == 0, result.stderr
    return out, result


def zeros_of(folder: Path) -> list[int]:
    """Of every layer: weights of its six matrices that are zero."""
    tensors = load_file(folder / "model.safetensors")
    return [
        sum(
            int((array == 0).sum())
            for name, array in tensors.items()
            if f"encoder.layer.{layer}." in name and array.ndim == 2
        )
        for layer in range(LAYERS)
    ]


def test_levels_are_checkpoints_with_exactly_so_many_zeros(finished: Any, tiny_teacher_dir: Path) -> None:
    out, result = finished
    assert {path.name for path in out.iterdir()} == {"scores.safetensors", "scores.json", "s0", "s10", "s90"}
    head, *lines = result.stdout.splitlines()
    assert head.split() == ["level", "weights", "removed", "folder"]
    dense = load_file(tiny_teacher_dir / "model.safetensors")
    for percent, line in zip((0, 10, 90), lines, strict=True):
        count, zeros = num_removed(TOTAL, percent), zeros_of(out / f"s{percent}")
        assert f"{count:,} of {TOTAL:,}" in line
        assert sum(zeros) == count
        info = json.loads((out / f"s{percent}" / "sparsity.json").read_text())
        assert (info["weights_removed"], info["num_weights"], info["scope"]) == (count, TOTAL, "global")
        assert info["weights_kept"] == [EACH - of_layer for of_layer in zeros]
        assert info["scores_sha256"] == load_weight_scores(out)[1].sha256
        sparse = load_file(out / f"s{percent}" / "model.safetensors")
        assert all(((sparse[name] == dense[name]) | (sparse[name] == 0)).all() for name in dense)
        changed = {name for name in dense if sparse[name].tobytes() != dense[name].tobytes()}
        assert all("encoder.layer" in name and name.endswith("weight") and dense[name].ndim == 2 for name in changed)
        assert bool(changed) == (percent > 0)


def test_other_balances_scopes_and_levels_come_of_the_scores_alone(
    finished: Any, bare: Any, data: Any, tmp_path: Path
) -> None:
    """What goes is what the scores rank lowest."""
    out = tmp_path / "o"
    more = ("--scores", finished[0], "--balance", 1, "--scope", "layer", "--sparsity", 25)
    facts = data(*bare, *more, "--out", out)
    assert facts["scope"] == "layer"
    assert [(level["percent"], level["weights_removed"]) for level in facts["levels"]] == [(25, TOTAL // 4)]
    assert zeros_of(out / "s25") == [EACH // 4] * LAYERS
    scores, sparse = load_weight_scores(out)[0].expressive, load_file(out / "s25" / "model.safetensors")
    assert scores is not None
    names = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense")
    for layer, scores_P in enumerate(scores):
        found = [
            sparse[f"bert.encoder.layer.{layer}.{name}.weight"].ravel()
            for name in (*names, "intermediate.dense", "output.dense")
        ]
        gone = np.concatenate(found) == 0
        assert scores_P[gone].max() <= scores_P[~gone].min()


def test_a_second_run_scores_nothing_and_writes_nothing(finished: Any, command: Any, data: Any) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished[0].rglob("*")}
    assert all(level["was_there"] for level in data(*command, "--out", finished[0])["levels"])
    assert {path: path.stat().st_mtime_ns for path in finished[0].rglob("*")} == before


def test_magnitude_and_random_need_no_rows(bare: Any, run: Any, refused: Any, tmp_path: Path) -> None:
    for out, more in (("m", ("--method", "magnitude")), ("r", ("--method", "random", "--seed", 3))):
        assert run(*bare, *more, "--sparsity", 50, "--out", tmp_path / out).exit_code == 0
        assert sum(zeros_of(tmp_path / out / "s50")) == TOTAL // 2
    line = refused(*bare, "--method", "magnitude", "--scope", "layer", "--sparsity", 20, "--out", tmp_path / "m")
    assert "s50 is there with scope global and this command gives layer" in line


def test_scores_and_levels_of_heads_are_no_others(
    finished: Any, bare: Any, command: Any, refused: Any, tiny_teacher_dir: Path, tmp_path: Path, run: Any
) -> None:
    of_heads = ("sparsify", "--teacher", tiny_teacher_dir, "--device", "cpu")
    line = refused(*of_heads, "--scores", finished[0], "--out", tmp_path / "o")
    assert "holds scores of single weights where those of heads and neurons are wanted; give --unstructured" in line
    assert "is there with kind hskcache weight sparsity 1" in refused(
        *(word for word in command if word != "--unstructured"), "--out", finished[0]
    )
    assert run(*of_heads, "--method", "magnitude", "--sparsity", 30, "--out", tmp_path / "h").exit_code == 0
    line = refused(*bare, "--method", "magnitude", "--sparsity", 30, "--out", tmp_path / "h")
    assert "is there with kind hskcache sparsity 1" in line
    assert "give --unstructured" in refused(
        *of_heads, "--method", "magnitude", "--scope", "layer", "--out", tmp_path / "n"
    )
