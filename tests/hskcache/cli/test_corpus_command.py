"""``build --corpus`` and ``estimate --corpus`` by hand: plain text in place of the rows of a task."""

from pathlib import Path
from typing import Any

import pytest

KEEP = ("--keep", "full", "--attention", "4t", "--student-layers", "2", "--max-length", "16", "--device", "cpu")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text("the film is charming\nits plot is a waste\n\nthe music is moving\n" * 9, encoding="utf-8")
    return path


def test_a_corpus_is_built_estimated_looked_at_and_verified(
    run: Any, data: Any, corpus: Path, tiny_teacher_dir: Path, tmp_path: Path
) -> None:
    source = ("--teacher", tiny_teacher_dir, "--corpus", corpus, *KEEP)
    guess = data("estimate", *source)
    built = data("build", *source, "--out", tmp_path / "c")
    assert guess["num_rows"] == built["num_rows"] > 9
    assert set(guess["num_bytes"]) == set(built["num_bytes"]) == {"inputs", "hidden", "attention"}
    again = run("build", *source, "--out", tmp_path / "c")
    assert "already complete" in again.stderr
    facts = data("info", tmp_path / "c")
    assert (facts["data"]["problem"], facts["attention"], facts["keep"]) == ("text", "4t", "full")
    assert facts["attention_layers"] == [{"student": 1, "teacher": 2}, {"student": 2, "teacher": 4}]
    words = run("info", tmp_path / "c").stdout
    assert "plain text" in words
    assert "4 x 4 positions; 4 heads; int8" in words
    row = data("view", tmp_path / "c", 0)
    assert (row["label"], row["logits"]) == (None, [])
    assert [len(kept) for kept in row["attention"].values()] == [4, 4]
    assert "attention 4" in run("view", tmp_path / "c", 0).stdout
    assert data("verify", tmp_path / "c")["ok"]
    assert list(tmp_path.glob("hskcache-*")) == []


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "neither was given"),
        (("--corpus", "x.txt", "--data", "x.tsv"), "both were given"),
        (("--corpus", "x.txt", "--task", "sst2"), "plain text without columns"),
        (("--corpus", "x.txt"), "x.txt: No such file"),
    ],
)
def test_what_is_no_corpus_is_refused_in_one_line(
    flags: tuple[str, ...], words: str, refused: Any, tiny_teacher_dir: Path, tmp_path: Path
) -> None:
    line = refused("build", "--teacher", tiny_teacher_dir, *KEEP, *flags, "--out", tmp_path / "c")
    assert words in line


def test_a_corpus_of_which_nothing_is_kept_is_refused(refused: Any, corpus: Path, tiny_teacher_dir: Path) -> None:
    """There are no logits that would be left."""
    args = ("--teacher", tiny_teacher_dir, "--corpus", corpus, "--keep", "none", "--device", "cpu")
    assert "nothing would be kept" in refused("estimate", *args)
