"""Answers row by row, against the model called by hand, in every format, and beside a cached teacher."""

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertForSequenceClassification

from hskcache.cache import open_cache
from hskcache.text.remembered import Remembered, save
from hskcache.text.table import Columns
from trainer.cli import main

CPU = ("--device", "cpu")


def hsktrain(*args: object) -> Result:
    return CliRunner().invoke(main, list(map(str, args)), catch_exceptions=False)


def done(*args: object) -> Result:
    result = hsktrain(*args)
    assert result.exit_code == 0, result.stderr
    return result


def refused(*args: object) -> str:
    result = hsktrain(*args)
    assert result.exit_code == 2, result.output
    return result.stderr.splitlines()[-1]


def by_hand(model: Path, *texts: list[str]) -> torch.Tensor:
    """Logits [N, C] of texts, or of pairs of them, one call a row: nothing is padded or sorted."""
    tokenizer, classifier = (
        AutoTokenizer.from_pretrained(model),
        AutoModelForSequenceClassification.from_pretrained(model),
    )
    rows = [tokenizer(*row, return_tensors="pt", truncation=True, max_length=64) for row in zip(*texts, strict=True)]
    with torch.inference_mode():
        return torch.cat([classifier.eval()(**row).logits for row in rows])


def table(text: str) -> list[dict[str, str]]:
    header, *lines = (line.split("\t") for line in text.splitlines())
    return [dict(zip(header, line, strict=True)) for line in lines]


@pytest.fixture
def regressor(tiny_teacher_dir: Path, tmp_path: Path) -> Path:
    """The tiny teacher with one output."""
    model = BertForSequenceClassification.from_pretrained(tiny_teacher_dir, num_labels=1, ignore_mismatched_sizes=True)
    torch.manual_seed(0)
    torch.nn.init.normal_(model.classifier.weight)
    model.config.problem_type = "regression"
    model.save_pretrained(tmp_path / "scores")
    AutoTokenizer.from_pretrained(tiny_teacher_dir).save_pretrained(tmp_path / "scores")
    return tmp_path / "scores"


def test_answers_are_those_of_the_model_in_the_order_of_the_rows(
    tiny_teacher_dir: Path, tsv_file: Path, tmp_path: Path
) -> None:
    """Classes and probabilities of all rows, in three formats, though batches are sorted by length inside."""
    given = ("predict", "--model", tiny_teacher_dir, "--data", tsv_file, "--task", "sst2", *CPU)
    texts = [line.split("\t")[0] for line in tsv_file.read_text().splitlines()[1:]]
    logits = by_hand(tiny_teacher_dir, texts)
    read = {
        ".tsv": table,
        ".csv": lambda text: list(csv.DictReader(io.StringIO(text))),
        ".jsonl": lambda text: [json.loads(line) for line in text.splitlines()],
    }
    for suffix, reader in read.items():
        out = tmp_path / f"p{suffix}"
        told = json.loads(done(*given, "--out", out, "--json").stdout)
        rows: list[dict[str, Any]] = reader(out.read_text(encoding="utf-8"))
        assert list(rows[0]) == ["index", "prediction", "probability_0", "probability_1"]
        assert [int(row["index"]) for row in rows] == list(range(96))
        assert [row["prediction"] for row in rows] == [str(label) for label in logits.argmax(1).tolist()]
        found = torch.tensor([[float(row[f"probability_{name}"]) for name in "01"] for row in rows])
        torch.testing.assert_close(found, logits.softmax(1), atol=2e-5, rtol=0)
        counts = torch.bincount(logits.argmax(1), minlength=2).tolist()
        assert (told["num_rows"], told["counts"]) == (96, {"0": counts[0], "1": counts[1]})
    assert done(*given, "--out", "-").stdout == (tmp_path / "p.tsv").read_text()


def test_glue_gets_its_own_words_and_its_own_test_files(
    tiny_teacher_dir: Path, regressor: Path, glue: Path, tmp_path: Path
) -> None:
    """RTE's words whatever the model calls its classes, CoLA's test file with its header, scores with 3 decimals."""
    lines = [line.split("\t") for line in (glue / "RTE" / "dev.tsv").read_text(encoding="utf-8").split("\n")[:31]]
    test = tmp_path / "test.tsv"
    test.write_text("".join("\t".join(line[:3]) + "\n" for line in lines), encoding="utf-8")
    given = ("predict", "--model", tiny_teacher_dir, "--glue", "--out", "-", *CPU)
    firsts, seconds = ([line[at] for line in lines[1:]] for at in (1, 2))
    best = by_hand(tiny_teacher_dir, firsts, seconds).argmax(1).tolist()
    words = [("entailment", "not_entailment")[index] for index in best]
    expected = "index\tprediction\n" + "".join(f"{at}\t{word}\n" for at, word in enumerate(words))
    assert done(*given, "--data", test, "--task", "rte", "--max-length", 64).stdout == expected

    cola = tmp_path / "cola.tsv"
    cola.write_text("index\tsentence\n0\tthe film is dull\n1\tits plot is warm\n", encoding="utf-8")
    best = by_hand(tiny_teacher_dir, ["the film is dull", "its plot is warm"]).argmax(1).tolist()
    assert done(*given, "--data", cola, "--task", "cola").stdout == f"index\tprediction\n0\t{best[0]}\n1\t{best[1]}\n"

    scores = by_hand(regressor, firsts, seconds)[:, 0].tolist()
    given = ("predict", "--model", regressor, "--glue", "--out", "-", *CPU, "--max-length", 64)
    rows = table(done(*given, "--data", test, "--task", "stsb").stdout)
    assert all(len(row["prediction"].partition(".")[2]) == 3 for row in rows)
    np.testing.assert_allclose([float(row["prediction"]) for row in rows], scores, atol=6e-4)


def test_classes_are_called_as_the_user_calls_them(tiny_teacher_dir: Path, tsv_file: Path) -> None:
    """The rows have no labels that would tell."""
    given = ("predict", "--model", tiny_teacher_dir, "--data", tsv_file, "--task", "sst2", "--out", "-", *CPU)
    plain, named = (done(*given, *more) for more in ((), ("--classes", "neg,pos")))
    assert named.stderr.count("the classes 0, 1 are taken for neg, pos, in order\n") == 1
    header, *rows = named.stdout.splitlines()
    assert header == "index\tprediction\tprobability_neg\tprobability_pos"
    names = {"0": "neg", "1": "pos"}
    expected = [
        [at, names[word], *shares] for at, word, *shares in (row.split("\t") for row in plain.stdout.splitlines()[1:])
    ]
    assert [row.split("\t") for row in rows] == expected


def test_columns_and_length_are_those_that_the_model_remembers(tiny_teacher_dir: Path, tmp_path: Path) -> None:
    """And a row that cannot be used leaves its place free."""
    model = Path(shutil.copytree(tiny_teacher_dir, tmp_path / "m"))
    save(Remembered("", columns=Columns("said", None, "mood"), is_pairs=False, max_length=7), model)
    data = tmp_path / "rows.jsonl"
    texts = ["the film is dull and short and flat", " ", "its plot is warm"]
    data.write_text("".join(json.dumps({"said": text}) + "\n" for text in texts), encoding="utf-8")
    given = ("predict", "--model", model, "--data", data, "--out", "-", *CPU)
    assert "the text is empty" in refused(*given)
    result = done(*given, "--bad-rows", "skip")
    assert f"columns as in the model {model}: said\n" in result.stderr
    rows = table(result.stdout)
    assert [row["index"] for row in rows] == ["0", "2"]
    tokenizer, classifier = AutoTokenizer.from_pretrained(model), BertForSequenceClassification.from_pretrained(model)
    cut = tokenizer(texts[0], return_tensors="pt", truncation=True, max_length=7)
    with torch.inference_mode():
        share = classifier.eval()(**cut).logits.softmax(1)[0, 1].item()
    assert float(rows[0]["probability_1"]) == pytest.approx(share, abs=2e-5)


def test_a_student_is_compared_with_the_teacher_of_a_cache(
    cache_dir: Path, tiny_teacher_dir: Path, tmp_path: Path
) -> None:
    """The teacher agrees with itself; another model as its logits say, in whichever order it names its classes."""
    same = json.loads(done("predict", "--model", tiny_teacher_dir, "--cache", cache_dir, *CPU, "--json").stdout)
    assert (same["num_rows"], same["fidelity"]["agreement"]) == (96, 1.0)
    assert same["fidelity"]["kl"] == pytest.approx(0, abs=1e-6)

    other = BertForSequenceClassification.from_pretrained(tiny_teacher_dir)
    # The same answers, less sure, by a head whose classes stand the other way round.
    other.classifier.weight.data = other.classifier.weight.data.flip(0) / 3
    other.classifier.bias.data = other.classifier.bias.data.flip(0) + torch.tensor([0.2, 0.0])
    other.config.id2label, other.config.label2id = {0: "1", 1: "0"}, {"1": 0, "0": 1}
    other.save_pretrained(tmp_path / "other")
    AutoTokenizer.from_pretrained(tiny_teacher_dir).save_pretrained(tmp_path / "other")
    cache = open_cache(cache_dir)
    shards = [cache.read("logits", shard)["logits"] for shard in range(len(cache.shards))]
    theirs = torch.from_numpy(np.concatenate(shards)).double()
    bias = BertForSequenceClassification.from_pretrained(tiny_teacher_dir).classifier.bias.detach().double()
    ours = (theirs - bias) / 3 + bias + torch.tensor([0.0, 0.2])
    out = tmp_path / "p.tsv"
    found = json.loads(
        done("predict", "--model", tmp_path / "other", "--cache", cache_dir, "--out", out, *CPU, "--json").stdout
    )
    kl = torch.nn.functional.kl_div(ours.log_softmax(1), theirs.softmax(1), reduction="batchmean").item()
    assert found["fidelity"]["kl"] == pytest.approx(kl, abs=1e-5)
    assert found["fidelity"]["agreement"] == float((ours.argmax(1) == theirs.argmax(1)).double().mean())
    rows = table(out.read_text())
    assert [row["teacher"] for row in rows] == [str(label) for label in theirs.argmax(1).tolist()]
    np.testing.assert_allclose([float(row["probability_0"]) for row in rows], ours.softmax(1)[:, 0], atol=2e-5)
    np.testing.assert_allclose(
        [float(row["teacher_probability_0"]) for row in rows], theirs.softmax(1)[:, 0], atol=2e-5
    )


DATA = ["predict", "--model", "{teacher}", "--data", "{data}"]
MISTAKES = {
    "nothing to answer": (["predict", "--model", "{teacher}", "--out", "-"], "--data FILE, rows to answer, or --cache"),
    "nowhere to write": ([*DATA, "--task", "sst2"], "--out FILE, or --out - to print"),
    "a kind of file that is none": ([*DATA, "--task", "sst2", "--out", "{out}.txt"], ".tsv, .csv, .jsonl"),
    "both on stdout": ([*DATA, "--task", "sst2", "--out", "-", "--json"], "both print on stdout"),
    "labels": ([*DATA, "--text", "sentence", "--label", "label", "--out", "-"], "reads no labels"),
    "glue without a task": ([*DATA, "--text", "sentence", "--glue", "--out", "-"], "say which with --task"),
    "its own rows": ([*DATA, "--task", "sst2", "--out", "{data}", "--force"], "is the file of the rows"),
    "glue in other words": (
        [*DATA, "--task", "sst2", "--glue", "--classes", "neg,pos", "--out", "-"],
        "--classes neg,pos",
    ),
    "classes that are none": ([*DATA, "--text", "sentence", "--classes", "a,b,c", "--out", "-"], "names 3 classes"),
    "no such column": ([*DATA, "--task", "mnli", "--out", "-"], "no column 'sentence1'"),
    "a field without a cache": ([*DATA, "--task", "sst2", "--field", "large", "--out", "-"], "belongs to --cache"),
    "columns of a cache": (["predict", "--model", "{teacher}", "--cache", "{cache}", "--task", "sst2"], "as tokens"),
    "no such field": (["predict", "--model", "{teacher}", "--cache", "{cache}", "--field", "logit"], "no field logit"),
    "a place in a cache": (
        ["predict", "--model", "{teacher}", "--cache", "{cache}", "--out", "{cache}/p.tsv"],
        "within",
    ),
    "no logits": (["predict", "--model", "{teacher}", "--cache", "{cache}", "--field", "hidden"], "no logits there"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_in_one_line(
    mistake: str, tiny_teacher_dir: Path, tsv_file: Path, cache_dir: Path, tmp_path: Path
) -> None:
    places = {"teacher": tiny_teacher_dir, "data": tsv_file, "cache": cache_dir, "out": tmp_path / "out"}
    args, complaint = MISTAKES[mistake]
    before = tsv_file.read_bytes()
    assert complaint in refused(*(arg.format(**places) for arg in args))
    assert (list(tmp_path.iterdir()), tsv_file.read_bytes()) == ([], before)


def test_glue_gets_an_answer_for_rows_that_cannot_be_used(
    tiny_teacher_dir: Path, regressor: Path, tsv_file: Path, tmp_path: Path
) -> None:
    """Its test files hold empty texts, and its server wants every row: the most frequent answer, or the mean score."""
    texts = [line.split("\t")[0] for line in tsv_file.read_text().splitlines()[1:8]]
    data = tmp_path / "test.tsv"
    data.write_text("index\tsentence\n" + "".join(f"{at}\t{text}\n" for at, text in enumerate(["", *texts, " "])))
    given = ("predict", "--model", tiny_teacher_dir, "--data", data, "--task", "sst2", "--glue", "--out", "-", *CPU)
    assert "--bad-rows skip" in refused(*given)
    best = by_hand(tiny_teacher_dir, texts).argmax(1)
    usual = str(best.bincount().argmax().item())
    rows = table(done(*given, "--bad-rows", "skip").stdout)
    assert [row["index"] for row in rows] == list("012345678")
    assert [row["prediction"] for row in rows] == [usual, *map(str, best.tolist()), usual]

    pairs = tmp_path / "pairs.tsv"
    lines = [f"{at}\t{text}\t{'' if at == 2 else texts[0]}\n" for at, text in enumerate(texts)]
    pairs.write_text("index\tsentence1\tsentence2\n" + "".join(lines))
    given = ("predict", "--model", regressor, "--data", pairs, "--task", "stsb", "--glue", "--out", "-", *CPU)
    rows = table(done(*given, "--max-length", 64, "--bad-rows", "skip").stdout)
    others = texts[:2] + texts[3:]
    mean = by_hand(regressor, others, [texts[0]] * len(others)).mean().item()
    assert (len(rows), float(rows[2]["prediction"])) == (len(texts), pytest.approx(mean, abs=6e-4))


def test_scores_are_not_handed_out_as_classes(regressor: Path, tsv_file: Path, tmp_path: Path) -> None:
    given = ("predict", "--model", regressor, "--data", tsv_file, "--task", "sst2", "--glue", *CPU)
    assert "gives a score and sst2 has 2 classes" in refused(*given, "--out", tmp_path / "p.tsv")
    assert not (tmp_path / "p.tsv").exists()


def test_a_class_with_a_tab_in_its_name_goes_where_cells_are_quoted(
    tiny_teacher_dir: Path, tsv_file: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(tiny_teacher_dir, tmp_path / "m"))
    config = json.loads((model / "config.json").read_text())
    config |= {"id2label": {"0": "a\tb", "1": 'q"x, y'}, "label2id": {"a\tb": 0, 'q"x, y': 1}}
    (model / "config.json").write_text(json.dumps(config))
    given = ("predict", "--model", model, "--data", tsv_file, "--text", "sentence", *CPU, "--out")
    for out in (tmp_path / "p.tsv", "-"):
        assert ".csv or .jsonl" in refused(*given, out)
    done(*given, tmp_path / "p.csv")
    with (tmp_path / "p.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["prediction"] for row in rows} == {"a\tb", 'q"x, y'}
    assert list(rows[0])[2:] == ["probability_a\tb", 'probability_q"x, y']


def test_a_file_is_replaced_only_by_force(tiny_teacher_dir: Path, tsv_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.tsv"
    out.write_text("mine")
    given = ("predict", "--model", tiny_teacher_dir, "--data", tsv_file, "--task", "sst2", "--out", out, *CPU)
    assert "--force to replace it" in refused(*given)
    assert out.read_text() == "mine"
    done(*given, "--force")
    assert len(out.read_text().splitlines()) == 97
