"""``build --corpus`` and ``estimate --corpus`` by hand: plain text in place of the rows of a task."""

import json
from pathlib import Path
from typing import Any

import pytest
from stored import shard_file

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


def spec_of(data: Any, cache: Path) -> Any:
    return data("info", cache)["spec"]["packing"]


def test_rows_are_pairs_for_a_teacher_with_two_types_and_every_command_knows_it(
    run: Any, data: Any, refused: Any, corpus: Path, tiny_teacher_dir: Path, tmp_path: Path
) -> None:
    """Half of them; append and repair pack as the cache was packed, with nothing said."""
    cache, teacher = tmp_path / "c", ("--teacher", tiny_teacher_dir, "--device", "cpu")
    flags = (*KEEP[:-2], "--shard-rows", "8")
    built = run("build", *teacher, "--corpus", corpus, *flags, "--out", cache)
    assert "half with what follows the first text" in built.stderr
    assert "--pairs says otherwise" in built.stderr
    assert (
        "says otherwise"
        not in run("build", *teacher, "--corpus", corpus, *flags, "--pairs", "next", "--out", f"{cache}2").stderr
    )
    assert spec_of(data, cache) == {"pairs": "mixed", "short_rows": 0.1, "copies": 1, "mask": 0.0, "seed": 0}
    words = " ".join(run("info", cache).stdout.split())
    assert "packing pairs, half with what follows the first text, half with one of another document; 0.1 of" in words
    row = data("view", cache, 0)
    first = row["tokens"].index("[SEP]")
    assert row["tokens"].count("[SEP]") == 2
    assert row["token_type_ids"] == [0] * (first + 1) + [1] * (len(row["tokens"]) - first - 1)
    assert "type" in run("view", cache, 0).stdout.splitlines()[1].split()
    more = tmp_path / "more.txt"
    more.write_text("the film is a waste\n\nthe plot is moving\n\nits music\n")
    run("append", cache, *teacher, "--corpus", more)
    total = data("info", cache)
    assert [part["num_rows"] > 0 for part in total["appended"]] == [True]
    assert data("view", cache, total["num_rows"] - 1)["token_type_ids"][-1] == 1
    before = shard_file(cache, "inputs", 0).read_bytes()
    shard_file(cache, "inputs", 0).unlink()
    assert run("repair", cache, *teacher, "--corpus", corpus).exit_code == 0
    assert shard_file(cache, "inputs", 0).read_bytes() == before
    assert "packing" in refused("build", *teacher, "--corpus", corpus, *flags, "--copies", "2", "--out", cache)


def test_a_build_goes_on_as_it_was_packed_whatever_the_default_is(
    run: Any, data: Any, corpus: Path, tiny_teacher_dir: Path, tmp_path: Path
) -> None:
    """A cache of single texts, as all were once, is known by the command that made it."""
    source = ("--teacher", tiny_teacher_dir, "--corpus", corpus, *KEEP)
    singles = data("build", *source, "--pairs", "none", "--out", tmp_path / "c")
    assert not any(data("view", tmp_path / "c", 0)["token_type_ids"])
    assert "type" not in run("view", tmp_path / "c", 0).stdout.splitlines()[1].split()
    again = run("build", *source, "--out", tmp_path / "c")
    assert "already complete" in again.stderr
    spec = tmp_path / "spec.yaml"
    spec.write_text(run("info", tmp_path / "c", "--spec").stdout)
    from_spec = ("--teacher", tiny_teacher_dir, "--corpus", corpus, "--spec", spec, "--device", "cpu")
    assert data("build", *from_spec, "--out", tmp_path / "d")["cache_id"] == singles["cache_id"]
    assert data("build", *from_spec, "--seed", "5", "--out", tmp_path / "e")["cache_id"] == singles["cache_id"]
    pairs = data("build", *from_spec, "--pairs", "next", "--short-rows", "0", "--out", tmp_path / "f")
    assert pairs["cache_id"] != singles["cache_id"]
    guess = data("estimate", *source, "--pairs", "random", "--copies", "3")
    assert guess["num_rows"] > 3 * singles["num_rows"]


def test_a_teacher_with_one_type_has_single_texts_and_pairs_on_request(
    data: Any, corpus: Path, tiny_teacher_dir: Path, tmp_path: Path
) -> None:
    """What RoBERTa's tokenizer lacks is left out of the tiny one."""
    teacher = tmp_path / "teacher"
    teacher.mkdir()
    for path in tiny_teacher_dir.iterdir():
        (teacher / path.name).write_bytes(path.read_bytes())
    config = json.loads((teacher / "tokenizer_config.json").read_text())
    config["model_input_names"] = ["input_ids", "attention_mask"]
    (teacher / "tokenizer_config.json").write_text(json.dumps(config))
    source = ("--teacher", teacher, "--corpus", corpus, *KEEP)
    data("build", *source, "--out", tmp_path / "c")
    assert spec_of(data, tmp_path / "c")["pairs"] == "none"
    data("build", *source, "--pairs", "next", "--out", tmp_path / "d")
    assert data("view", tmp_path / "d", 0)["tokens"].count("[SEP]") == 2
    assert data("info", tmp_path / "d")["fields"]["inputs"]["has_token_types"] is False


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--pairs", "random"), "is one document, and --pairs random"),
        (("--pairs", "mixed", "--max-length", "4"), "4 tokens at most leave no room"),
        (("--pairs", "mixd"), "'mixd' is not one of"),
        (("--mask", "1.5"), "1.5 is not in the range"),
        (("--short-rows", "-1"), "is not in the range"),
    ],
)
def test_what_no_corpus_can_be_packed_as_is_told_in_one_line(
    flags: tuple[str, ...], words: str, run: Any, tiny_teacher_dir: Path, tmp_path: Path
) -> None:
    alone = tmp_path / "alone.txt"
    alone.write_text("the film is charming\nits plot is a waste\n")
    done = run("build", "--teacher", tiny_teacher_dir, "--corpus", alone, *KEEP, *flags, "--out", tmp_path / "c")
    assert done.exit_code == 2
    assert words in done.stderr.splitlines()[-1]


def test_rows_of_a_task_are_not_packed(refused: Any, tiny_teacher_dir: Path, tsv_file: Path, tmp_path: Path) -> None:
    source = ("--teacher", tiny_teacher_dir, "--data", tsv_file, "--task", "sst2", "--out", tmp_path / "c")
    assert "--pairs says how a corpus is packed" in refused("build", *source, "--pairs", "next")
    adding = ("--add-field", "logits", "--name", "more", "--teacher", tiny_teacher_dir, "--out", tmp_path / "c")
    assert "--copies says how a corpus is packed" in refused("build", *adding, "--copies", "2")
