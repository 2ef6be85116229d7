"""Likelihood of texts by causal language models, and ``hsktrain evaluate`` on a corpus."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from language_models import FAMILIES, language_model, language_tokenizer

from hskcache.errors import MismatchError
from hskcache.model.causal import load_causal
from hskcache.store.targets import places_of_targets
from hskcache.text import TokenizedRows
from hskcache.text.language.texts import documents_of_file
from trainer import likelihood
from trainer.cli import main
from trainer.likelihood import answers_of, scores_of

TEXT = "One film is charming, and one is dull.\nIts plot is flat.\n\nThe cast is a delight.\n\nAll in all: see it.\n"


def hsktrain(*args: object) -> Result:
    return CliRunner().invoke(main, [*map(str, args), "--device", "cpu"], catch_exceptions=False)


def places(rows: TokenizedRows) -> Any:
    return places_of_targets(rows.targets, rows.offsets)


def rows_of(*lengths: int, targets: list[bool] | None = None) -> TokenizedRows:
    draw = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = draw.integers(3, 259, int(offsets[-1]), dtype=np.int32)
    mask = None if targets is None else np.array(targets)
    return TokenizedRows(ids, offsets, None, frozenset(), targets=mask)


@pytest.mark.parametrize("family", FAMILIES)
def test_log_probabilities_are_those_of_transformers_own_loss(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row by row without padding, however many logits exist at a time."""
    model, rows = load_causal(str(language_model(tmp_path, family)), "a model"), rows_of(7, 2, 20, 13)
    whole = answers_of(model, rows)
    monkeypatch.setattr(likelihood, "_NUM_LOGITS", 264 * 3)
    found = answers_of(model, rows)
    np.testing.assert_allclose(found.logp_T, whole.logp_T, rtol=0, atol=1e-5)
    start = 0
    for row in range(4):
        ids = torch.from_numpy(rows.input_ids[rows.offsets[row] : rows.offsets[row + 1]]).long()[None]
        with torch.inference_mode():
            output = model(input_ids=ids, labels=ids)
        part = slice(start, start + ids.shape[1] - 1)
        assert -found.logp_T[part].mean() == pytest.approx(float(output.loss), abs=1e-5)
        assert found.best_T[part].tolist() == output.logits[0, :-1].argmax(1).tolist()
        start = part.stop
    assert start == len(found.logp_T) == len(places(rows))


def test_tokens_that_are_no_targets_are_left_out(tmp_path: Path) -> None:
    model = load_causal(str(language_model(tmp_path)), "a model")
    mask = [False, False, True, False, True, False, True, True]
    some = answers_of(model, rows_of(5, 3, targets=mask)).logp_T
    every = answers_of(model, rows_of(5, 3)).logp_T
    np.testing.assert_array_equal(places(rows_of(5, 3)), [1, 2, 3, 4, 6, 7])
    np.testing.assert_allclose(some, every[[1, 3, 4, 5]], rtol=0, atol=1e-6)


def test_a_model_that_knows_nothing_has_the_perplexity_of_its_ids(tmp_path: Path) -> None:
    model = load_causal(str(language_model(tmp_path, tie_word_embeddings=False)), "a model")
    with torch.no_grad():
        model.get_output_embeddings().weight.zero_()
    logp_T = answers_of(model, rows_of(9, 30)).logp_T
    scores = scores_of(logp_T, num_bytes=37)
    assert scores["perplexity"] == pytest.approx(264, rel=1e-5)
    # 37 targets of one byte each.
    assert scores["bits_per_byte"] == pytest.approx(math.log2(264), rel=1e-5)


def test_rows_that_a_model_cannot_read_are_refused(tmp_path: Path) -> None:
    model = load_causal(str(language_model(tmp_path, "gpt2")), "a model")
    with pytest.raises(MismatchError, match="64"):
        answers_of(model, rows_of(65))


def test_two_windows_of_a_document_score_each_token_once(tmp_path: Path) -> None:
    """What follows the first token of the second window is said without the first window."""
    model = load_causal(str(language_model(tmp_path)), "a model")
    text = tmp_path / "text.txt"
    text.write_text(TEXT, encoding="utf-8")
    rows = documents_of_file(text, language_tokenizer(), 50, one_document=True).rows
    # A mark before it, a byte a token, and the end: all but the first are targets.
    assert rows.num_bytes == len(TEXT.encode())
    assert len(places(rows)) == len(TEXT.encode()) + 1
    assert rows.lengths.tolist() == [50, 50, 6]
    ids = rows.input_ids.tolist()
    assert [ids[50], ids[100]] == [ids[49], ids[99]]
    assert [ids[place] for place in places(rows)] == [*ids[1:50], *ids[51:100], *ids[101:]]
    assert len(answers_of(model, rows).logp_T) == len(TEXT.encode()) + 1


@pytest.fixture(scope="module")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return language_model(tmp_path_factory.mktemp("speaker"), max_position_embeddings=128)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def evaluated(*args: object) -> Any:
    result = hsktrain("evaluate", *args, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_evaluate_tells_perplexity_and_bits_a_byte(speaker: Path, corpus: Path) -> None:
    """Three documents, each from its mark to its end; bytes are those of their texts."""
    found = evaluated("--model", speaker, "--corpus", corpus)
    sizes = [len(one.encode()) for one in TEXT.removesuffix("\n").split("\n\n")]
    assert (found["num_rows"], found["num_targets"], found["num_bytes"]) == (3, sum(sizes) + 3, sum(sizes))
    nll = 0.0
    model, tokenizer = load_causal(str(speaker), "a model"), language_tokenizer()
    for text in TEXT.removesuffix("\n").split("\n\n"):
        ids = torch.tensor([[*tokenizer(text)["input_ids"], 2]])
        with torch.inference_mode():
            nll += float(model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
    assert found["metrics"]["perplexity"] == pytest.approx(math.exp(nll / (sum(sizes) + 3)), rel=1e-5)
    assert found["metrics"]["bits_per_byte"] == pytest.approx(nll / math.log(2) / sum(sizes), rel=1e-5)


def test_evaluate_reads_files_whole_and_texts_of_rows(speaker: Path, corpus: Path, tmp_path: Path) -> None:
    whole = evaluated("--model", speaker, "--corpus", corpus, "--one-document", "--max-length", 64)
    assert (whole["num_bytes"], whole["num_rows"]) == (len(TEXT.encode()), 2)
    lines = tmp_path / "rows.jsonl"
    texts = TEXT.removesuffix("\n").split("\n\n")
    lines.write_text("".join(json.dumps({"text": text, "id": 1}) + "\n" for text in texts), encoding="utf-8")
    of_rows = evaluated("--model", speaker, "--data", lines, "--text", "text")
    assert of_rows["metrics"] == pytest.approx(evaluated("--model", speaker, "--corpus", corpus)["metrics"])
    assert evaluated("--model", speaker, "--corpus", lines)["metrics"] == of_rows["metrics"]


def test_evaluate_refuses_in_a_line_what_does_not_go_together(
    speaker: Path, tiny_teacher_dir: Path, corpus: Path, tsv_file: Path
) -> None:
    for args, words in (
        (["--model", speaker], "give the texts that it is to say with --corpus FILE"),
        (
            ["--model", speaker, "--data", tsv_file, "--task", "sst2"],
            "rows of a causal language model are texts, and have no",
        ),
        (["--model", speaker, "--corpus", corpus, "--text", "text"], "is plain text, without columns"),
        (["--model", speaker, "--corpus", corpus, "--stride", 3], "is for classifiers"),
        (["--model", speaker, "--corpus", corpus, "--field", "next"], "belongs to --cache"),
        (["--model", tiny_teacher_dir, "--corpus", corpus], "is for causal language models, and"),
        (["--model", tiny_teacher_dir], "give labelled rows to score the model on"),
        (["--model", speaker, "--corpus", corpus.with_name("none.txt")], "give the path of a text file"),
    ):
        result = hsktrain("evaluate", *args)
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1), result.stderr
        assert words in result.stderr


def test_predict_refuses_a_causal_model_in_a_line(speaker: Path, tsv_file: Path) -> None:
    result = hsktrain("predict", "--model", speaker, "--data", tsv_file, "--task", "sst2", "--out", "-")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1), result.stderr
    assert "is a causal language model (llama) without classes; hsktrain evaluate" in result.stderr
