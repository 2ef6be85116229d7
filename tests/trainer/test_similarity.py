"""Cosines of pairs against gold scores, by hand and through ``hsktrain evaluate``."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from embedders import embedder
from safetensors.torch import load_file
from scipy.stats import pearsonr, spearmanr
from transformers import AutoModel, AutoTokenizer

from hskcache.metrics import auc, average_precision
from trainer.cli import main
from trainer.similarity import cosines

PAIRS = [
    ("the film is dull", "this movie is tedious", 4.5),
    ("a small story", "a small story", 5.0),
    ("its plot is warm and short", "the cast is a waste", 0.5),
    ("the music is moving", "an old tale is flat for all who are patient enough to stay", 1.25),
    ("funny", "the music is clever from start to end", 2.0),
]


@pytest.fixture
def pairs_file(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.tsv"
    lines = ["one\ttwo\tscore", *(f"{one}\t{two}\t{score}" for one, two, score in PAIRS)]
    path.write_text("\n".join(lines) + "\n")
    return path


def evaluated(*args: object) -> Result:
    return CliRunner().invoke(main, ["evaluate", *map(str, args)])


def columns(path: Path) -> tuple[object, ...]:
    return ("--data", path, "--text", "one", "--text-pair", "two", "--label", "score", "--device", "cpu")


def by_hand(folder: Path, text: str, prompt: str = "seek ") -> Any:
    """An embedding without normalization: cosines do not see it."""
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        inputs = tokenizer(prompt + text, truncation=True, max_length=20, return_tensors="pt")
        pooled = model(**inputs).last_hidden_state[0].amax(0)
    weights = load_file(folder / "2_Dense" / "model.safetensors")
    return torch.tanh(weights["linear.weight"] @ pooled + weights["linear.bias"]).numpy()


def test_the_metrics_are_those_of_the_cosines(tiny_tokenizer_dir: Path, pairs_file: Path, tmp_path: Path) -> None:
    settings = {"prompts": {"query": "seek "}, "default_prompt_name": "query"}
    folder = embedder(tiny_tokenizer_dir, tmp_path / "t", "max", ("Dense", "Normalize"), **settings)
    similar = []
    for one, two, _ in PAIRS:
        first, second = by_hand(folder, one), by_hand(folder, two)
        similar.append(float(first @ second / np.linalg.norm(first) / np.linalg.norm(second)))
    gold = [score for *_, score in PAIRS]
    result = evaluated("--model", folder, *columns(pairs_file), "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert list(facts["metrics"]) == ["spearman", "pearson"], "the one that STS-B is judged by comes first"
    assert facts["metrics"]["spearman"] == pytest.approx(spearmanr(similar, gold).statistic, abs=1e-6)
    assert facts["metrics"]["pearson"] == pytest.approx(pearsonr(similar, gold).statistic, abs=1e-4)
    assert (facts["num_rows"], facts["max_length"]) == (len(PAIRS), 20)
    assert set(facts["standard_errors"]) == {"spearman", "pearson"}


@pytest.mark.parametrize("options", [("--label", "score"), ("--label", "word", "--classes", "apart,alike")])
def test_of_two_classes_the_area_under_the_curve_is_told(
    tiny_tokenizer_dir: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    folder, path, alike = embedder(tiny_tokenizer_dir, tmp_path / "t", "max", ("Dense",)), tmp_path / "pairs.tsv", []
    lines = ["one\ttwo\tscore\tword"]
    for one, two, score in PAIRS:
        alike.append(score > 2)
        lines.append(f"{one}\t{two}\t{int(score > 2)}\t{'alike' if score > 2 else 'apart'}")
    path.write_text("\n".join(lines) + "\n")
    asked = ("--model", folder, "--data", path, "--text", "one", "--text-pair", "two", "--device", "cpu", "--json")
    result = evaluated(*asked, *options)
    assert result.exit_code == 0, result.output
    assert ("alike is taken for alike" in result.stderr) == ("--classes" in options)
    similar = []
    for one, two, _ in PAIRS:
        first, second = by_hand(folder, one, ""), by_hand(folder, two, "")
        similar.append(float(first @ second / np.linalg.norm(first) / np.linalg.norm(second)))
    found = json.loads(result.stdout)["metrics"]
    wins = [(mine > other) + (mine == other) / 2 for mine, other in _across(similar, alike)]
    assert found["auc"] == pytest.approx(np.mean(wins), abs=1e-9)
    order = np.argsort(similar)[::-1]
    hits = np.array(alike)[order]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    assert found["average_precision"] == pytest.approx(precision[hits].mean(), abs=1e-9)
    assert list(found) == ["auc", "average_precision", "spearman"]


def _across(similar: list[float], alike: list[bool]) -> list[tuple[float, float]]:
    """Every cosine of a pair that is alike beside every one of a pair that is not."""
    sides = [[value for value, is_alike in zip(similar, alike, strict=True) if is_alike == side] for side in (1, 0)]
    return [(mine, other) for mine in sides[0] for other in sides[1]]


def test_areas_say_nothing_of_one_class() -> None:
    assert auc(np.array([0.1, 0.9]), np.array([1, 1])) == 0.5
    assert average_precision(np.array([0.1, 0.9]), np.array([0, 0])) == 0.0
    assert auc(np.array([0.5, 0.5, 0.7]), np.array([0, 1, 1])) == 0.75, "equal ones count half"


def test_neighbouring_vectors_are_compared() -> None:
    vectors = np.array([[1, 0], [2, 0], [1, 1], [1, -1], [0, 0], [1, 0], [3, 4], [-3, -4]], np.float32)
    np.testing.assert_allclose(cosines(vectors), [1, 0, 0, -1], atol=1e-7)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--text", "one", "--label", "score"), "has single texts"),
        (("--text", "one", "--text-pair", "two"), "has no labels"),
        (
            ("--text", "one", "--text-pair", "two", "--label", "score", "--classes", "5.0,4.5,0.5,1.25,2.0"),
            "two classes",
        ),
    ],
)
def test_rows_without_pairs_or_scores_are_refused(
    tiny_tokenizer_dir: Path, pairs_file: Path, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    folder = embedder(tiny_tokenizer_dir, tmp_path / "t")
    result = evaluated("--model", folder, "--data", pairs_file, *options, "--device", "cpu")
    assert result.exit_code == 2
    assert words in result.stderr, result.stderr
