"""A student that learns embeddings is a folder that gives them: for sentence-transformers, and as a teacher."""

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from commanded import run
from embedders import WIDTH, embedder
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

from hskcache.cache import Cache, open_cache
from hskcache.model.sentence import sentence_modules
from hskcache.move.commands import fit_command
from trainer.cli import main as hsktrain
from trainer.recipe import load_recipe
from trainer.source.reduced import principal_directions

SHAPE = {"model_type": "bert", "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def trained(*args: object) -> Result:
    result = CliRunner().invoke(hsktrain, [*map(str, args)])
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def teacher(tiny_tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return embedder(tiny_tokenizer_dir, tmp_path_factory.mktemp("embedder"), "mean", ("Normalize",))


@pytest.fixture(scope="module")
def cache(teacher: Path, tsv_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return embedded(teacher, tsv_file, tmp_path_factory.mktemp("cache") / "c")


def embedded(teacher: Path, data: Path, out: Path) -> Cache:
    options = ("--embedding", "model", "--encoding", "float32", "--device", "cpu")
    result = run("build", "--teacher", teacher, "--data", data, "--text", "sentence", *options, "--out", out)
    assert result.exit_code == 0, result.output
    return open_cache(out)


def by_hand(folder: Path, texts: list[str]) -> Any:
    """Embeddings of a student's folder, from its weights alone."""
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    rows = []
    for text in texts:
        with torch.no_grad():
            rows.append(model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0))
    vectors = torch.stack(rows)
    if (dense := folder / "2_Dense" / "model.safetensors").is_file():
        weights = load_file(dense)
        vectors = vectors @ weights["linear.weight"].T + weights["linear.bias"]
    return torch.nn.functional.normalize(vectors, dim=-1).numpy()


@pytest.mark.parametrize("width", [WIDTH, 16])
def test_the_students_folder_gives_what_it_learned(cache: Cache, tsv_file: Path, tmp_path: Path, width: int) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SHAPE | {"hidden_size": width}))
    out = tmp_path / "student"
    settings = ("--set", "embedding.epochs=20", "--set", "embedding.learning_rate=5e-3", "--device", "cpu")
    options = ("--student", tmp_path / "config.json", "--recipe", "embedding", *settings, "--out", out)
    result = trained("fit", "--cache", cache.root, *options)
    assert "SentenceTransformer(" in result.stderr
    card = (out / "README.md").read_text()
    assert "library_name: sentence-transformers" in card
    assert 'SentenceTransformer("student")' in card
    modules = sentence_modules(str(out))
    assert modules is not None
    assert (modules.pooling, modules.normalize, modules.max_length) == ("mean", True, 20)
    assert len(modules.dense) == (width != WIDTH)
    assert all(one.activation == "Identity" for one in modules.dense)
    texts = [line.partition("\t")[0] for line in tsv_file.read_text().splitlines()[1:]]
    ours, theirs = by_hand(out, texts), cache.read("embedding", 0)["values"]
    assert np.mean(np.sum(ours * theirs, -1)) > 0.9, "vectors of other models have cosines around 0"
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("one\ttwo\tscore\n" + "".join(f"{text}\t{texts[0]}\t{row}\n" for row, text in enumerate(texts)))
    scored = ("--data", pairs, "--text", "one", "--text-pair", "two", "--label", "score", "--device", "cpu")
    assert "spearman" in trained("evaluate", "--model", out, *scored).stdout, "though it learned from single texts"
    again = embedded(out, tsv_file, tmp_path / "again")
    np.testing.assert_allclose(again.read("embedding", 0)["values"], ours, atol=2e-6)


def test_a_student_of_the_embedders_layers_begins_from_an_encoder(teacher: Path, cache: Cache, tmp_path: Path) -> None:
    result = trained("create", "--from", teacher, "--layers", "2", "--out", tmp_path / "start")
    assert "classes" not in result.stderr
    ours, theirs = (AutoModel.from_pretrained(folder).state_dict() for folder in (tmp_path / "start", teacher))
    name = "encoder.layer.{}.output.dense.weight"
    assert torch.equal(ours[name.format(0)], theirs[name.format(1)])
    options = ("--student", tmp_path / "start", "--recipe", "embedding", "--device", "cpu", "--out", tmp_path / "out")
    trained("fit", "--cache", cache.root, *options, "--set", "embedding.losses.similarity.weight=1")
    (stage,) = json.loads((tmp_path / "out" / "metrics.json").read_text())["stages"]
    assert set(stage["losses"]) == {"sentence", "similarity"}


def test_the_command_that_a_cache_tells_runs_as_it_stands(cache: Cache, tmp_path: Path) -> None:
    words = shlex.split(fit_command(cache.manifest, str(cache.root)))
    assert words[:2] == ["hsktrain", "fit"]
    (tmp_path / "config.json").write_text(json.dumps(SHAPE | {"hidden_size": WIDTH}))
    words[words.index("--student") + 1] = str(tmp_path / "config.json")
    trained(*words[1:-1], tmp_path / "student", "--device", "cpu")


def test_what_a_cache_of_texts_cannot_serve_is_refused(cache: Cache, tsv_file: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SHAPE | {"hidden_size": WIDTH}))
    options = ["fit", "--cache", cache.root, "--student", tmp_path / "config.json", "--out", tmp_path / "out"]
    for further, words in (
        (["--recipe", "logits"], "holds texts without a task; use --recipe embedding"),
        (["--recipe", "mud"], "learns from hidden states"),
        (["--recipe", "embedding", "--eval-data", tsv_file, "--text", "sentence", "--label", "label"], "single texts"),
        (["--recipe", "embedding", "--set", "embedding.select=best"], "give --eval-data FILE"),
        (["--recipe", "embedding", "--student-dims", "33"], "have 32 values; give at most so many"),
        (["--recipe", "embedding", "--metric", "auc"], "--metric auc scores a classifier"),
    ):
        result = CliRunner().invoke(hsktrain, [*map(str, [*options, *further])])
        assert result.exit_code == 2
        assert words in result.stderr, result.stderr


@pytest.fixture(scope="module")
def pairs(tsv_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of the texts that were learned from, alike where both begin with the same word."""
    texts = [line.partition("\t")[0] for line in tsv_file.read_text().splitlines()[1:]]
    lines = [
        f"{one}\t{two}\t{int(one.split()[0] == two.split()[0])}"
        for one, two in zip(texts, texts[1:] + texts[:1], strict=True)
    ]
    path = tmp_path_factory.mktemp("pairs") / "pairs.tsv"
    path.write_text("\n".join(["one\ttwo\tscore", *lines]) + "\n")
    return path


PAIRS = ("--text", "one", "--text-pair", "two", "--label", "score", "--device", "cpu")
RATE = ("--set", "embedding.learning_rate=5e-3")


def test_pairs_score_the_student_while_it_learns_and_pick_its_best_evaluation(
    cache: Cache, pairs: Path, tmp_path: Path
) -> None:
    """By its whole way to a vector, through the Dense to the teacher's width."""
    (tmp_path / "config.json").write_text(json.dumps(SHAPE | {"hidden_size": 16}))
    asked = ("--student", tmp_path / "config.json", "--recipe", "embedding", "--eval-data", pairs, *PAIRS, *RATE)
    out = tmp_path / "student"
    trained("fit", "--cache", cache.root, *asked, "--set", "embedding.epochs=4", "--out", out)
    found = json.loads((out / "metrics.json").read_text())
    assert found["metric"] == "auc"
    scores = [one["auc"] for one in found["stages"][0]["evaluations"]]
    assert len(scores) == 4
    assert found["scores"]["auc"] == pytest.approx(max(scores), abs=1e-6)
    told = json.loads(trained("evaluate", "--model", out, "--data", pairs, *PAIRS, "--json").stdout)
    assert told["metrics"] == pytest.approx(found["scores"], abs=1e-6)
    last = trained("fit", "--cache", cache.root, *asked, "--set", "embedding.select=last", "--out", tmp_path / "last")
    assert "epoch 1" not in last.stderr, "who asks for the end has no evaluation on the way"


def test_a_teacher_in_the_loop_teaches_as_its_cache_does(
    teacher: Path, cache: Cache, tsv_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SHAPE | {"hidden_size": WIDTH, "hidden_dropout_prob": 0.0}))
    (tmp_path / "spec.yaml").write_text(run("info", cache.root, "--spec").stdout)
    asked = ("--student", tmp_path / "config.json", "--recipe", "embedding", *RATE, "--device", "cpu")
    trained("fit", "--cache", cache.root, *asked, "--out", tmp_path / "cached")
    live = ("--teacher", teacher, "--data", tsv_file, "--text", "sentence", "--spec", tmp_path / "spec.yaml")
    trained("fit", *live, *asked, "--out", tmp_path / "live")
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("cached", "live"))
    for name, weights in theirs.items():
        torch.testing.assert_close(ours[name], weights, atol=1e-4, rtol=1e-3)
    assert sentence_modules(str(tmp_path / "live")) is not None


def test_principal_directions_are_those_of_the_singular_values(cache: Cache) -> None:
    vectors = np.asarray(cache.column("embedding"), np.float64)
    found = principal_directions(cache, "embedding", 5)
    _, values, rows = np.linalg.svd(vectors, full_matrices=False)
    aligned = np.abs(found.basis_VN.numpy().T @ rows[:5].T)
    np.testing.assert_allclose(aligned, np.eye(5), atol=1e-3)
    assert found.share == pytest.approx((values[:5] ** 2).sum() / (values**2).sum())


@pytest.mark.parametrize(("width", "dims"), [(WIDTH, 6), (16, 6), (16, 16)])
def test_a_student_of_fewer_values_is_compared_as_its_teacher_is(
    cache: Cache, tsv_file: Path, tmp_path: Path, width: int, dims: int
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SHAPE | {"hidden_size": width}))
    asked = ("--student", tmp_path / "config.json", "--recipe", "embedding", *RATE, "--device", "cpu")
    out = tmp_path / "student"
    result = trained(
        "fit", "--cache", cache.root, *asked, "--set", "embedding.epochs=20", "--student-dims", dims, "--out", out
    )
    assert f"the student gives {dims} values" in result.stderr
    assert ("begins with the directions of the teacher" in result.stderr) == (width == WIDTH)
    modules = sentence_modules(str(out))
    assert modules is not None
    assert [one.out_features for one in modules.dense] == ([] if width == dims else [dims])
    texts = [line.partition("\t")[0] for line in tsv_file.read_text().splitlines()[1:]]
    ours, theirs = by_hand(out, texts), cache.read("embedding", 0)["values"]
    assert ours.shape == (len(texts), dims)
    led = theirs @ principal_directions(cache, "embedding", dims).basis_VN.numpy()
    led /= np.linalg.norm(led, axis=1, keepdims=True)
    assert np.mean(np.sum(ours * led, -1)) > 0.85
    refused = CliRunner().invoke(hsktrain, [*map(str, ("fit", "--cache", cache.root, *asked, "--out", out))])
    assert refused.exit_code == 2, "another number of values is another run"


def test_values_of_a_student_that_gives_no_embeddings_are_refused(tmp_path: Path) -> None:
    cache, out = Path(__file__).resolve().parents[2] / "golden" / "tiny-2.hsk", tmp_path / "out"
    words = ("--cache", cache, "--student", "tinybert4", "--recipe", "logits", "--student-dims", 4, "--out", out)
    result = CliRunner().invoke(hsktrain, ["fit", *map(str, words)])
    assert result.exit_code == 2
    assert "--student-dims 4 is of students that give embeddings, and the recipe makes none of" in result.stderr
    assert not out.exists()


def test_a_study_compares_first_values_of_one_cache(cache: Cache, pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SHAPE | {"hidden_size": 16}))
    asked = ("--student", tmp_path / "config.json", "--eval-data", pairs, *PAIRS, "--seeds", 1)
    trained("study", "--axis", "dims=4,16,all", "--cache", cache.root, *asked, "--out", tmp_path / "study")
    found = json.loads((tmp_path / "study" / "results.json").read_text())
    assert (found["metric"], found["labels"], found["baseline"]) == ("auc", None, "full")
    assert {one["name"]: one["bytes_per_row"] for one in found["points"]} == {"dims=4": 16, "dims=16": 64, "full": 128}
    assert all(one["mean"] is not None for one in found["points"])


def test_the_recipe_has_the_settings_of_its_source() -> None:
    (stage,) = load_recipe("embedding").stages
    assert (stage.epochs, stage.batch_size, stage.learning_rate) == (1, 64, 1e-4)
    assert (stage.schedule, stage.weight_decay, list(stage.losses.terms)) == ("linear", 0.01, ["sentence"])
