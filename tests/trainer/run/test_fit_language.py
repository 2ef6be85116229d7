"""``hsktrain fit`` of causal students from a cache of next tokens, and what their folders are good for."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from language_models import language_model, language_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from hskcache.cache import open_cache
from hskcache.cli import main as hskcache
from hskcache.model.causal import load_causal
from hskcache.text.language.texts import documents_of_file
from trainer.cli import main as hsktrain
from trainer.likelihood import answers_of, scores_of
from trainer.run.selecting import Best

SUBJECTS, ENDS = ("the film", "this story", "the cast"), ("is warm", "is dull", "has charm", "was long")
SET = ["--set", "prediction.learning_rate=0.01", "--set", "prediction.batch_size=8"]


def run(group: Any, *args: object) -> Result:
    return CliRunner().invoke(group, list(map(str, args)), catch_exceptions=False)


def done(group: Any, *args: object) -> Result:
    result = run(group, *args)
    assert result.exit_code == 0, result.stderr
    return result


class Shelf:
    """A teacher, texts, a student of two of its layers, and a cache of what the teacher says of the texts."""

    def __init__(self, folder: Path) -> None:
        self.teacher, self.start = language_model(folder / "teacher"), folder / "start"
        self.texts, self.dev, self.cache = folder / "train.txt", folder / "dev.txt", folder / "cache.hsk"
        sentences = [f"{subject} {end}." for subject in SUBJECTS for end in ENDS]
        self.texts.write_text("\n\n".join(sentences) + "\n", encoding="utf-8")
        self.dev.write_text("\n\n".join(sentences[::3]) + "\n", encoding="utf-8")
        rows = ["--corpus", self.texts, "--max-length", 16, "--vocabulary", "top:8"]
        done(hskcache, "build", "--teacher", self.teacher, *rows, "--out", self.cache, "--device", "cpu")
        done(hsktrain, "create", "--from", self.teacher, "--layers", "1,3", "--out", self.start)

    def fit(self, out: Path, *args: object, student: object = None) -> Result:
        base = ["--cache", self.cache, "--student", student or self.start, "--recipe", "lm", "--device", "cpu"]
        return run(hsktrain, "fit", *base, *SET, "--out", out, *args)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("language"))


@pytest.fixture(scope="module")
def fitted(shelf: Shelf, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fitted") / "student"
    result = shelf.fit(out, "--eval-data", shelf.dev, "--set", "prediction.epochs=3", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout) == json.loads((out / "metrics.json").read_text())
    return out


def loss_of(model: Path, texts: Path) -> dict[str, float]:
    rows = documents_of_file(texts, language_tokenizer(), 16).rows
    return scores_of(answers_of(load_causal(str(model), "a model"), rows).logp_T, rows.num_bytes)


def test_the_best_evaluation_is_that_of_the_fewest_bits(fitted: Path, shelf: Shelf) -> None:
    result = json.loads((fitted / "metrics.json").read_text())
    evaluations = result["stages"][0]["evaluations"]
    assert result["metric"] == "bits_per_byte"
    assert len(evaluations) == 3
    bits = [one["bits_per_byte"] for one in evaluations]
    assert result["best"]["step"] == evaluations[int(np.argmin(bits))]["step"]
    assert result["scores"]["bits_per_byte"] == pytest.approx(min(bits), rel=1e-5)
    assert loss_of(fitted, shelf.dev) == pytest.approx(result["scores"], rel=1e-5)


def test_a_student_comes_nearer_to_what_its_teacher_says(fitted: Path, shelf: Shelf) -> None:
    """The teacher is of random weights, so that what it says is none of the texts."""
    before, after = (
        json.loads(done(hsktrain, "evaluate", "--model", one, "--cache", shelf.cache, "--json").stdout)
        for one in (shelf.start, fitted)
    )
    assert after["metrics"]["agreement"] > before["metrics"]["agreement"]
    assert after["num_targets"] == 12 + sum(len(text) for text in shelf.texts.read_text().split("\n\n")) - 1
    own = json.loads(done(hsktrain, "evaluate", "--model", shelf.teacher, "--cache", shelf.cache, "--json").stdout)
    assert own["metrics"]["agreement"] == 1.0
    # Stored in 16 bits.
    assert own["teacher"]["perplexity"] == pytest.approx(own["metrics"]["perplexity"], rel=1e-3)


@pytest.mark.parametrize("form", ["head", "sampled:8"])
def test_other_forms_are_scored_too(form: str, shelf: Shelf, tmp_path: Path) -> None:
    """From the head the teacher's likeliest tokens are told, in 8 bits not all of them; from draws they are not."""
    rows = ["--corpus", shelf.texts, "--max-length", 16, "--vocabulary", form]
    done(hskcache, "build", "--teacher", shelf.teacher, *rows, "--out", tmp_path / "cache", "--device", "cpu")
    result = done(hsktrain, "evaluate", "--model", shelf.teacher, "--cache", tmp_path / "cache", "--json")
    metrics = json.loads(result.stdout)["metrics"]
    assert ("agreement" in metrics) is (form == "head")
    assert metrics.get("agreement", 1.0) > 0.9


def test_the_folder_is_a_checkpoint_that_generates_and_chats(fitted: Path) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(fitted), AutoTokenizer.from_pretrained(fitted)
    assert model.config.num_hidden_layers == 2
    given = tokenizer.apply_chat_template([{"role": "user", "content": "the"}], return_tensors="pt", return_dict=True)
    made = model.generate(**given, max_new_tokens=4, do_sample=False)
    assert given["input_ids"].shape[1] < made.shape[1] <= given["input_ids"].shape[1] + 4
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    card = (fitted / "README.md").read_text()
    assert "A causal language model: llama, 2 layers of width 32, distilled from teacher by hskcache." in card
    assert 'pipeline("text-generation", model="student")("a text")' in card
    assert "| parameters | 23,968 | 39,456 |" in card


def test_a_run_that_was_cut_off_goes_on_to_the_same_weights(shelf: Shelf, fitted: Path, tmp_path: Path) -> None:
    """Back to the checkpoint of the first epoch, whose head and embeddings are one."""
    out = tmp_path / "student"
    args = ["--eval-data", shelf.dev, "--set", "prediction.epochs=3"]

    def cut(self: Any, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        saved(self, _args, state, _control)
        if state.epoch == 1:
            raise KeyboardInterrupt

    saved = Best.on_save
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Best, "on_save", cut)
        shelf.fit(out, *args)
    assert not (out / "metrics.json").exists()
    assert shelf.fit(out, *args).exit_code == 0
    ours, theirs = (load_causal(str(one), "a model").state_dict() for one in (out, fitted))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_shape_begins_with_the_ids_of_the_teacher(shelf: Shelf, tmp_path: Path) -> None:
    config = json.loads((shelf.teacher / "config.json").read_text()) | {"num_hidden_layers": 1, "vocab_size": 9}
    (tmp_path / "config.json").write_text(json.dumps(config))
    result = shelf.fit(tmp_path / "out", student=tmp_path / "config.json")
    assert result.exit_code == 0, result.stderr
    assert "random weights" in result.stderr
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.config.vocab_size == 264
    assert model.generation_config.eos_token_id == 2
    assert math.isfinite(loss_of(tmp_path / "out", shelf.dev)["perplexity"])


def test_what_does_not_fit_is_refused_in_a_line(shelf: Shelf, tiny_teacher_dir: Path, tmp_path: Path) -> None:
    other = shutil.copytree(shelf.start, tmp_path / "other")
    tokens = json.loads((other / "tokenizer.json").read_text())
    vocabulary = tokens["model"]["vocab"]
    vocabulary["!"], vocabulary["#"] = vocabulary["#"], vocabulary["!"]
    (other / "tokenizer.json").write_text(json.dumps(tokens))
    for student, args, words in (
        ("tinybert4", [], "tinybert4 is a shape of an encoder"),
        (tiny_teacher_dir, [], "bert is an encoder, which reads the words on both sides"),
        (other, [], "is not the one of the cache"),
        (None, ["--eval-data", shelf.dev, "--metric", "accuracy"], "is not one of language models"),
        (
            None,
            ["--eval-data", shelf.dev, "--task", "sst2"],
            "rows of a causal language model are texts, and have no",
        ),
        (None, ["--set", "prediction.select=best"], "texts that pick the best epoch"),
    ):
        result = shelf.fit(tmp_path / "out", *args, student=student)
        assert result.exit_code == 2, (words, result.stderr)
        assert words in result.stderr
        assert result.stderr.rstrip().splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_further_rows_and_prompts_are_scored(shelf: Shelf, tmp_path: Path) -> None:
    """Of prompts with completions the completions alone, of which bytes tell nothing."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"prompt": "the film", "answer": " is warm."}) + "\n", encoding="utf-8")
    args = ["--eval-data", shelf.dev, "--eval-data", shelf.texts, "--set", "prediction.epochs=1", "--json"]
    result = json.loads(shelf.fit(tmp_path / "one", *args).stdout)
    assert set(result["others"][str(shelf.texts)]) == {"bits_per_byte", "perplexity"}
    columns = ["--text", "prompt", "--completion", "answer"]
    result = json.loads(shelf.fit(tmp_path / "two", "--eval-data", rows, *columns, "--json").stdout)
    assert (result["metric"], set(result["scores"])) == ("perplexity", {"perplexity"})


def test_the_cache_is_of_next_tokens(shelf: Shelf) -> None:
    cache = open_cache(shelf.cache)
    assert cache.manifest.request.data.problem == "language"
    assert "vocabulary" in cache.fields
