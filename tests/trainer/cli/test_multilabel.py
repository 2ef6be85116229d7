"""Several labels a row from the teacher to a student's answers, beside transformers and scikit-learn by hand."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from sklearn.metrics import average_precision_score, f1_score
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertForSequenceClassification

from hskcache import build
from hskcache.cache import open_cache
from hskcache.cli import main as hskcache
from trainer.cli import main as hsktrain

NAMES = ("toxic", "insult", "threat")
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


class Made(NamedTuple):
    teacher: Path
    data: Path
    cache: Path
    student: Path
    flags: Any


def sentences(count: int, seed: int) -> list[str]:
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(["good", "bad", "film", "the", "a", "movie"], 3 + at % 6)) for at in range(count)]


def run(*command: object) -> str:
    program, *args = command
    tool = {"hskcache": hskcache, "hsktrain": hsktrain}[str(program)]
    result = CliRunner().invoke(tool, list(map(str, args)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*command: object) -> str:
    program, *args = command
    result = CliRunner().invoke({"hskcache": hskcache, "hsktrain": hsktrain}[str(program)], list(map(str, args)))
    assert result.exit_code == 2, result.output
    return result.stderr.splitlines()[-1]


def classifier(folder: Path, tokenizer_dir: Path, problem_type: str | None, count: int = 3) -> Path:
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir)
    config = BertConfig(vocab_size=len(tokenizer), num_labels=count, problem_type=problem_type, **SHAPE)
    if count == len(NAMES):
        config.id2label, config.label2id = dict(enumerate(NAMES)), {name: at for at, name in enumerate(NAMES)}
    model = BertForSequenceClassification(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def logits_of(folder: Path, texts: list[str]) -> Any:
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        return np.stack([model(**tokenizer(text, return_tensors="pt")).logits[0].numpy() for text in texts])


def texts_of(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def made(tiny_tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("multilabel")
    teacher = classifier(folder / "teacher", tiny_tokenizer_dir, "multi_label_classification")
    texts = sentences(24, seed=5)
    flags = (logits_of(teacher, texts) > 0) ^ (np.random.default_rng(0).random((24, 3)) < 0.2)
    data, cache, student = folder / "rows.jsonl", folder / "c.hsk", folder / "student"
    rows = (
        {"text": text, "label": [NAMES[at] for at in np.flatnonzero(row)]}
        for text, row in zip(texts, flags, strict=True)
    )
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = ("--text", "text", "--label", "label", "--device", "cpu")
    run("hskcache", "build", "--teacher", teacher, "--data", data, *columns, "--keep", "none", "--out", cache)
    settings = ("--set", "prediction.epochs=1", "--set", "prediction.losses.label.weight=1")
    args = ("--cache", cache, "--student", teacher, "--recipe", "logits", *settings, "--eval-data", data, *columns)
    run("hsktrain", "fit", *args, "--out", student)
    return Made(teacher, data, cache, student, flags)


def test_rows_and_logits_are_stored_as_transformers_gives_them(made: Made) -> None:
    cache = open_cache(made.cache)
    assert cache.manifest.request.data.problem == "multilabel"
    assert cache.read("inputs", 0)["labels"].tolist() == made.flags.astype(np.float32).tolist()
    np.testing.assert_allclose(
        cache.read("logits", 0)["logits"], logits_of(made.teacher, texts_of(made.data)), atol=2e-5
    )
    assert cache.row(0)["label"] == made.flags[0].tolist()
    frame = cache.to_pandas()
    assert np.stack(frame["label"]).tolist() == made.flags.tolist()
    assert cache.to_arrow().read_all()["label"].to_pylist() == made.flags.tolist()


def test_metrics_are_those_of_scikit_learn(made: Made) -> None:
    scores = logits_of(made.student, texts_of(made.data))
    told = json.loads(
        run("hsktrain", "evaluate", "--model", made.student, "--data", made.data, "--device", "cpu", "--json")
    )
    answers, present = scores > 0, made.flags.any(0)
    assert told["metrics"] == pytest.approx(
        {
            "f1_micro": f1_score(made.flags, answers, average="micro"),
            "f1_macro": f1_score(made.flags, answers, average="macro", zero_division=0),
            "subset_accuracy": (answers == made.flags).all(1).mean(),
            "mean_average_precision": average_precision_score(made.flags[:, present], scores[:, present]),
        }
    )


def test_the_student_keeps_its_problem_and_answers_by_sigmoids(made: Made, tmp_path: Path) -> None:
    assert json.loads((made.student / "config.json").read_text())["problem_type"] == "multi_label_classification"
    shares = 1 / (1 + np.exp(-logits_of(made.student, texts_of(made.data))))
    out = tmp_path / "p.jsonl"
    run("hsktrain", "predict", "--model", made.student, "--data", made.data, "--out", out, "--device", "cpu")
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["prediction"] for row in rows] == [[NAMES[at] for at in np.flatnonzero(one > 0.5)] for one in shares]
    np.testing.assert_allclose([[row[f"probability_{name}"] for name in NAMES] for row in rows], shares, atol=1e-4)
    alike = json.loads(
        run("hsktrain", "predict", "--model", made.teacher, "--cache", made.cache, "--device", "cpu", "--json")
    )
    assert alike["fidelity"] == pytest.approx({"agreement": 1.0, "kl": 0.0}, abs=1e-6)


def test_statistics_and_agreement_count_classes(made: Made) -> None:
    answers = logits_of(made.teacher, texts_of(made.data)) > 0
    (told,) = json.loads(run("hskcache", "stats", made.cache, "--no-values", "--json"))["answers"]
    assert told["subset_accuracy"] == pytest.approx((answers == made.flags).all(1).mean())
    assert told["f1_micro"] == pytest.approx(f1_score(made.flags, answers, average="micro"))
    assert [one["num_labels"] for one in told["classes"]] == made.flags.sum(0).tolist()
    agreement = open_cache(made.cache).manifest.agreement["logits"]
    assert agreement.share == told["subset_accuracy"]
    row = json.loads(run("hskcache", "view", made.cache, "1", "--json"))
    assert row["label"] == [NAMES[at] for at in np.flatnonzero(made.flags[1])]


def test_a_cache_grows_travels_and_is_looked_at(made: Made, tmp_path: Path) -> None:
    copy, page = tmp_path / "grown.hsk", tmp_path / "page.html"
    lines = made.data.read_text().splitlines(keepends=True)
    few, more = tmp_path / "few.jsonl", tmp_path / "more.jsonl"
    few.write_text("".join(lines[:8]))
    more.write_text("".join(lines[8:12]))
    columns = ("--text", "text", "--label", "label", "--device", "cpu")
    run("hskcache", "build", "--teacher", made.teacher, "--data", few, *columns, "--keep", "none", "--out", copy)
    run("hskcache", "append", copy, "--teacher", made.teacher, "--data", more, "--device", "cpu")
    labels = np.concatenate([open_cache(copy).read("inputs", shard)["labels"] for shard in range(2)])
    assert labels.tolist() == made.flags[:12].tolist()
    assert open_cache(copy).view("rows=5").read("inputs", 0)["labels"].tolist() == made.flags[:5].tolist()
    run("hskcache", "verify", copy)
    run("hskcache", "push", copy, tmp_path / "there")
    assert "- text-classification" in (tmp_path / "there" / "README.md").read_text()
    assert "0 with other labels" not in run("hskcache", "diff", copy, copy)
    run("hskcache", "report", copy, "--out", page, "--no-values")
    assert "micro F1 of the answers" in page.read_text()


def test_answers_of_another_kind_are_refused(made: Made, tiny_tokenizer_dir: Path, tmp_path: Path) -> None:
    single = classifier(tmp_path / "single", tiny_tokenizer_dir, "single_label_classification")
    told = refused(
        "hskcache", "build", "--teacher", single, "--add-field", "logits", "--name", "x", "--out", made.cache
    )
    assert "rows of a multilabel task" in told
    args = ("--data", made.data, "--text", "text", "--label", "label", "--keep", "none", "--out", tmp_path / "x")
    assert "the task has one class a row" in refused("hskcache", "build", "--teacher", single, *args)
    shares = tmp_path / "shares.jsonl"
    shares.write_text('{"text": "a", "label": [0.5, 0.5, 0]}\n{"text": "b", "label": [0.5, 0.2, 0]}\n')
    told = refused("hskcache", "build", "--teacher", single, "--data", shares, *args[2:])
    assert "line 2: the values of the label add up to 0.7" in told
    told = refused(
        "hsktrain",
        "fit",
        "--cache",
        made.cache,
        "--student",
        single,
        "--recipe",
        "logits",
        "--eval-data",
        made.data,
        "--out",
        tmp_path / "y",
    )
    assert "problem_type single_label_classification" in told


def test_a_reranker_is_a_regression_of_its_raw_score(tiny_tokenizer_dir: Path, tmp_path: Path) -> None:
    """A cross-encoder says no problem_type and has one output: pairs need no labels, and no sigmoid comes between."""
    teacher = classifier(tmp_path / "reranker", tiny_tokenizer_dir, None, count=1)
    texts = sentences(16, seed=9)
    pairs = list(zip(texts, texts[::-1], strict=True))
    data, cache, out = tmp_path / "pairs.jsonl", tmp_path / "p.hsk", tmp_path / "faster"
    data.write_text("".join(json.dumps({"query": one, "passage": other}) + "\n" for one, other in pairs))
    columns = ("--text", "query", "--text-pair", "passage", "--keep", "none", "--device", "cpu")
    run("hskcache", "build", "--teacher", teacher, "--data", data, *columns, "--out", cache)
    model = AutoModelForSequenceClassification.from_pretrained(teacher).eval()
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    with torch.inference_mode():
        scores = [model(**tokenizer(*pair, return_tensors="pt")).logits.item() for pair in pairs]
    np.testing.assert_allclose(open_cache(cache).read("logits", 0)["logits"][:, 0], scores, atol=2e-5)
    settings = ("--set", "prediction.epochs=1", "--set", "prediction.select=last", "--device", "cpu")
    run("hsktrain", "fit", "--cache", cache, "--student", teacher, "--recipe", "logits", *settings, "--out", out)
    assert json.loads((out / "config.json").read_text())["problem_type"] == "regression"
    alike = json.loads(run("hsktrain", "predict", "--model", teacher, "--cache", cache, "--device", "cpu", "--json"))
    assert alike["fidelity"]["mse"] == pytest.approx(0, abs=1e-8)


def test_columns_of_classes_may_be_a_list_in_python(made: Made, tmp_path: Path) -> None:
    rows, names = {"text": ["a film", "bad"], "threat": [1, 0], "toxic": [0, 1], "insult": [1, 0]}, NAMES[::-1]
    cache = build(str(made.teacher), rows, text="text", label=names, keep="none", device="cpu", out=tmp_path / "c.hsk")
    assert [row["label"].tolist() for row in cache] == [[0, 1, 1], [1, 0, 0]]
