"""Students of another tokenizer than their teacher's, from the texts that a cache keeps."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from bytewise import byte_tokenizer
from click.testing import CliRunner, Result
from commanded import run
from embedders import WIDTH, embedder
from torch.nn import functional as F
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

import trainer
from hskcache.cache import Cache, open_cache
from trainer.cli import main as hsktrain

# No dropout: the first step is what the weights alone make of the rows.
SIZES: dict[str, Any] = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2}
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": {"intermediate_size": 24, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    "modernbert": {"intermediate_size": 24, "bos_token_id": 1, "cls_token_id": 1, "eos_token_id": 2, "sep_token_id": 2},
    "mpnet": {"intermediate_size": 24, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    "distilbert": {"hidden_dim": 24, "dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.0},
    "electra": {
        "embedding_size": 8,
        "intermediate_size": 24,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    },
}
NUM_ROWS = 12


@pytest.fixture(scope="module")
def rows(tsv_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One batch of rows."""
    path = tmp_path_factory.mktemp("rows") / "rows.tsv"
    path.write_text("\n".join(tsv_file.read_text().splitlines()[: NUM_ROWS + 1]) + "\n")
    return path


@pytest.fixture(scope="module")
def texts(rows: Path) -> list[str]:
    return [line.partition("\t")[0] for line in rows.read_text().splitlines()[1:]]


@pytest.fixture(scope="module")
def other(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return byte_tokenizer(texts, tmp_path_factory.mktemp("other"))


def built(out: Path, *words: object) -> Cache:
    result = run("build", *words, "--keep-text", "--device", "cpu", "--max-length", 20, "--out", out)
    assert result.exit_code == 0, result.output
    return open_cache(out)


@pytest.fixture(scope="module")
def cache(tiny_teacher_dir: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """Logits and hidden states."""
    out = tmp_path_factory.mktemp("cache") / "c"
    keep = ("--keep", "1l", "--student-layers", 2)
    return built(out, "--teacher", tiny_teacher_dir, "--data", rows, "--task", "sst2", *keep)


def call(*words: object) -> Result:
    logging.disable_progress_bar()
    return CliRunner().invoke(hsktrain, list(map(str, words)), catch_exceptions=False)


def made(*words: object) -> Result:
    result = call(*words)
    assert result.exit_code == 0, result.output
    return result


def config(family: str, folder: Path) -> Path:
    path = folder / f"{family}.json"
    path.write_text(json.dumps({"model_type": family, "max_position_embeddings": 64, **SIZES, **FAMILIES[family]}))
    return path


@pytest.mark.parametrize("family", FAMILIES)
def test_the_first_step_is_that_of_transformers_over_the_texts(
    family: str, cache: Cache, rows: Path, texts: list[str], other: Path, tmp_path: Path
) -> None:
    start, out = tmp_path / "start", tmp_path / "out"
    shape = ("--student", config(family, tmp_path), "--tokenizer", other, "--labels", "0,1")
    made("create", *shape, "--out", start)
    settings = ("--set", "prediction.epochs=1", "--set", f"prediction.batch_size={NUM_ROWS}", "--device", "cpu")
    words = ("--recipe", "logits", "--tokenizer", start, "--student", start, "--eval-data", rows, *settings)
    result = json.loads(made("fit", "--cache", cache.root, *words, "--out", out, "--json").stdout)
    assert result["stages"][0]["steps"] == 1
    tokenizer = AutoTokenizer.from_pretrained(other)
    inputs = tokenizer(texts, truncation=True, max_length=20, padding=True, return_tensors="pt")
    assert inputs["input_ids"].shape[1] == 20
    with torch.no_grad():
        answers = AutoModelForSequenceClassification.from_pretrained(start).eval()(**inputs).logits
    teacher = torch.tensor(cache.logits())
    expected = -(teacher.softmax(-1) * answers.log_softmax(-1)).sum(-1).mean()
    assert result["stages"][0]["losses"]["soft"] == pytest.approx(float(expected), rel=1e-5)
    # The folder brings the tokenizer, and other commands take it up.
    assert AutoTokenizer.from_pretrained(out).get_vocab() == tokenizer.get_vocab()
    with torch.no_grad():
        learned = AutoModelForSequenceClassification.from_pretrained(out).eval()(**inputs).logits.softmax(-1)
    made("predict", "--model", out, "--data", rows, "--out", tmp_path / "answers.jsonl", "--device", "cpu")
    lines = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    found = torch.tensor([[line["probability_0"], line["probability_1"]] for line in lines])
    torch.testing.assert_close(found, learned, rtol=1e-3, atol=1e-4)
    assert "made of the texts that the cache keeps" in (out / "README.md").read_text()


def test_an_embedders_student_reads_its_own_tokens(
    tiny_tokenizer_dir: Path, rows: Path, texts: list[str], other: Path, tmp_path: Path
) -> None:
    folder = embedder(tiny_tokenizer_dir, tmp_path / "embedder", prompts={"query": "a: "}, default_prompt_name="query")
    words = ("--data", rows, "--text", "sentence", "--embedding", "model", "--encoding", "float32")
    cache = built(tmp_path / "c", "--teacher", folder, *words)
    assert cache.row(0)["texts"] == [texts[0]]
    settings = {"embedding.epochs": 1, "embedding.batch_size": NUM_ROWS, "embedding.learning_rate": 1e-12}
    student, out = config("bert", tmp_path), tmp_path / "out"
    result = trainer.fit(cache, student, tokenizer=other, recipe="embedding", changes=settings, out=out, device="cpu")
    # The rate is so small that the student is still as it began.
    model, tokenizer = AutoModel.from_pretrained(out).eval(), AutoTokenizer.from_pretrained(out)
    assert tokenizer.get_vocab() == AutoTokenizer.from_pretrained(other).get_vocab()
    vectors = []
    for text in texts:
        inputs = tokenizer(f"a: {text}", truncation=True, max_length=20, return_tensors="pt")
        with torch.no_grad():
            vectors.append(F.normalize(model(**inputs).last_hidden_state[0].mean(0), dim=-1))
    expected = F.mse_loss(torch.stack(vectors), torch.tensor(cache.column("embedding")))
    assert result["stages"][0]["losses"]["sentence"] == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("residency", ["host", "stream"])
def test_other_tokens_are_the_same_wherever_rows_live(
    residency: str, cache: Cache, rows: Path, other: Path, tmp_path: Path
) -> None:
    scores = [
        trainer.fit(
            cache,
            config("bert", tmp_path),
            tokenizer=other,
            recipe="logits",
            changes={"prediction.epochs": 2, "prediction.batch_size": 5},
            eval_data=rows,
            task="sst2",
            residency=where,
            out=tmp_path / f"{where}-{place}",
            device="cpu",
        )["stages"][0]["losses"]
        for place, where in enumerate(("auto", residency))
    ]
    assert scores[0] == scores[1]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--recipe", "mud"), "learns from hidden states, which .* keeps of its teacher's tokens, and those of .* are"),
        (("--recipe", "logits", "--view", "fields=hidden"), "keeps none"),
        (("--recipe", "logits", "--tokenizer", "missing/folder"), "missing/folder"),
    ],
)
def test_what_other_tokens_cannot_learn_is_refused(
    words: tuple[str, ...], line: str, cache: Cache, rows: Path, other: Path, tmp_path: Path
) -> None:
    given = ("--cache", cache.root, "--tokenizer", other, "--student", config("bert", tmp_path), "--eval-data", rows)
    result = call("fit", *given, *words, "--out", tmp_path / "out")
    assert result.exit_code == 2
    told = result.stderr.splitlines()[-1]
    assert told.startswith("error: ")
    assert re.search(line, told), told
    assert not (tmp_path / "out").exists()


def test_a_student_with_a_tokenizer_of_its_own_is_told_the_option(
    cache: Cache, rows: Path, other: Path, tmp_path: Path
) -> None:
    shape = ("--student", config("bert", tmp_path), "--tokenizer", other, "--labels", "0,1")
    made("create", *shape, "--out", tmp_path / "start")
    words = ("--cache", cache.root, "--student", tmp_path / "start", "--eval-data", rows, "--recipe", "logits")
    result = call("fit", *words, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert (
        "use a student with the teacher's tokenizer, or give --tokenizer where the cache keeps its text"
        in result.stderr
    )
