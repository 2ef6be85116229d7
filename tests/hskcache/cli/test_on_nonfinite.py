"""``hskcache build --on-nonfinite``: a teacher that is broken for some rows, and a student of all the others."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

from hskcache.cache import open_cache
from trainer.loading import KnowledgeLoader

WORD = "tedious"


@pytest.fixture(scope="module")
def broken(tiny_teacher_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedding of a piece of one word is NaN, so every row with it is."""
    folder = tmp_path_factory.mktemp("broken")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny_teacher_dir)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_teacher_dir)
    piece = tokenizer.encode(WORD, add_special_tokens=False)[-1]
    with torch.no_grad():
        model.get_input_embeddings().weight[piece] = float("nan")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_build_that_failed_goes_on_with_rows_left_out_and_training_has_the_rest(
    run: Any, broken: Path, tiny_teacher_dir: Path, tsv_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "c"
    arguments = ("build", "--teacher", broken, "--data", tsv_file, "--task", "sst2", "--keep", "3t", "--shard-rows", 16)
    lines = tsv_file.read_text().splitlines()[1:]
    piece = PreTrainedTokenizerFast.from_pretrained(tiny_teacher_dir).encode(WORD, add_special_tokens=False)[-1]
    failed = run(*arguments, "--out", out)
    assert failed.exit_code == 2
    assert "row" in failed.stderr
    assert "--on-nonfinite skip" in failed.stderr.splitlines()[-1]
    done = run(*arguments, "--out", out, "--on-nonfinite", "skip", "--json")
    assert done.exit_code == 0
    cache = open_cache(out)
    rows = [row for row in range(len(lines)) if piece in cache.row(row)["input_ids"]]
    assert 0 < len(rows) < 96
    assert cache.skipped(["hidden"]).tolist() == cache.skipped(["logits"]).tolist() == rows
    assert json.loads(done.stdout)["num_skipped"] == {"inputs": 0, "logits": len(rows), "hidden": len(rows)}
    assert (
        f"{len(rows)} of 96 rows are left out of hidden, as their values are not finite; row {rows[0]}," in done.stderr
    )
    seen = [row for batch in KnowledgeLoader(cache, batch_size=7) for row in batch.row_ids]
    assert sorted(seen) == sorted(set(range(96)) - set(rows))
    assert run("verify", out).exit_code == 0
    added = ("build", "--teacher", broken, "--out", out, "--add-field", "logits", "--name", "t2")
    assert run(*added).exit_code == 2
    assert f"{len(rows)} of 96 rows are left out of t2" in run(*added, "--on-nonfinite", "skip").stderr
    # What is said of a field that was added is said of no other.
    assert "left out of hidden" not in run(*added).stderr


def test_rows_that_an_append_leaves_out_are_told_and_counted_apart_from_those_before(
    run: Any, broken: Path, tsv_file: Path, tmp_path: Path
) -> None:
    out, more = tmp_path / "c", tmp_path / "more.tsv"
    header, *lines = tsv_file.read_text().splitlines()
    bad = [line for line in lines if WORD in line]
    assert bad
    more.write_text("\n".join([header, *lines[:10], *bad[:2]]) + "\n")
    arguments = ("build", "--teacher", broken, "--data", tsv_file, "--task", "sst2", "--keep", "none")
    assert run(*arguments, "--out", out, "--on-nonfinite", "skip").exit_code == 0
    appended = ("append", out, "--teacher", broken, "--data", more)
    assert run(*appended).exit_code == 2
    done = run(*appended, "--on-nonfinite", "skip", "--json")
    assert done.exit_code == 0
    skipped = [row for row in open_cache(out).skipped(["logits"]).tolist() if row >= 96]
    assert json.loads(done.stdout)["num_skipped"] == {"inputs": 0, "logits": len(skipped)}
    assert f"{len(skipped)} of {12} rows are left out of logits" in done.stderr
