"""Every command does what it says on a real cache, for people and for programs."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from stored import plain, shard_file
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from hskcache.cache import open_cache
from hskcache.store.files import sha256_hex


def contents(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): sha256_hex(path.read_bytes()) for path in root.rglob("*") if path.is_file()
    }


def test_build_reports_what_it_wrote(cache: Path, build_args: Any, data: Any, tmp_path: Path) -> None:
    printed = data(*build_args, "--out", tmp_path / "c")
    opened = open_cache(tmp_path / "c")
    assert printed["cache_id"] == opened.id == open_cache(cache).id
    assert printed["num_rows"] == opened.num_rows == 96
    assert printed["num_bytes"] == {name: opened.num_bytes(name) for name in opened.fields}


def test_build_on_a_complete_cache_says_so_and_changes_nothing(cache: Path, build_args: Any, run: Any) -> None:
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    result = run(*build_args, "--out", cache)
    assert result.exit_code == 0
    assert "is already complete: 96 rows" in result.stderr
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*")} == before


def test_the_spec_that_info_prints_builds_the_same_cache(
    cache: Path, sources: Any, run: Any, data: Any, tmp_path: Path
) -> None:
    printed = run("info", cache, "--spec").stdout
    assert yaml.safe_load(printed)["hidden"]["depth"]["target"] == 4
    (tmp_path / "s.yaml").write_text(printed)
    again = data("build", *sources, "--task", "sst2", "--spec", tmp_path / "s.yaml", "--out", tmp_path / "c")
    assert again["cache_id"] == open_cache(cache).id
    assert contents(tmp_path / "c") == contents(cache)
    assert run("info", tmp_path / "c", "--spec").stdout == printed


def test_seeds_of_a_spec_file_reach_the_cache(sources: Any, data: Any, tmp_path: Path) -> None:
    ids = set()
    for part in ("length", "width"):
        for seed in (1, 2):
            spec = {
                "hidden": {"length": {"score": "random", "tokens": 3}, "width": {"scheme": "random", "fraction": 0.2}}
            }
            spec["hidden"][part]["seed"] = seed
            (tmp_path / "s.yaml").write_text(yaml.safe_dump(spec))
            out = tmp_path / f"{part}-{seed}"
            data("build", *sources, "--task", "sst2", "--spec", tmp_path / "s.yaml", "--out", out)
            ids.add(sha256_hex(shard_file(out, "hidden", 0).read_bytes()))
            ids.add(sha256_hex(shard_file(out, "hidden", -1).read_bytes()))
    # Four choices of positions; of columns those of seeds 0, 1 and 2.
    assert len(ids) == 4 + 3


def test_info_tells_the_facts(cache: Path, data: Any, run: Any, tiny_teacher_dir: Path) -> None:
    facts, opened = data("info", cache), open_cache(cache)
    assert facts["cache_id"] == opened.id
    assert (facts["keep"], facts["num_rows"], facts["num_shards"]) == ("2l_4t_0.25h", 96, 5)
    assert facts["layers"] == [{"student": 1, "teacher": 2}, {"student": 2, "teacher": 4}]
    assert facts["teacher"]["name"] == str(tiny_teacher_dir)
    assert facts["data"]["label_names"] == ["0", "1"]
    assert facts["data"]["task"] == "sst2"
    assert facts["num_bytes"] == sum(path.stat().st_size for path in cache.rglob("*.zarr.zip"))
    assert facts["fields"]["hidden"]["num_columns"] == 8
    shown = run("info", cache).stdout
    for words in (str(cache), facts["cache_id"][:12], "2l_4t_0.25h", "2->1, 4->2", "8 of 32 columns (bitmask)", "int8"):
        assert words in shown


@pytest.mark.parametrize("row", [0, 19, 20, 95])
def test_view_shows_the_row_that_was_asked_for(
    row: int, cache: Path, data: Any, run: Any, tsv_file: Path, tiny_tokenizer_dir: Path
) -> None:
    text, label = tsv_file.read_text().splitlines()[row + 1].split("\t")
    tokens = PreTrainedTokenizerFast.from_pretrained(tiny_tokenizer_dir)(text).tokens()
    facts, stored = data("view", cache, row), open_cache(cache).row(row)
    assert (facts["row"], facts["row_id"], facts["label"], facts["tokens"]) == (row, row, label, tokens)
    assert np.allclose(facts["logits"], stored["logits"], atol=1e-6)
    assert facts["kept"] == {str(layer): arrays["positions"].tolist() for layer, arrays in stored["hidden"].items()}
    shown = run("view", cache, row).stdout.splitlines()
    assert f"label {label}" in shown[0]
    for position, token in enumerate(tokens):
        ranks = [kept.index(position) + 1 for kept in facts["kept"].values() if position in kept]
        assert shown[2 + position].split() == [str(position), token, *map(str, ranks)]


def test_verify_names_the_shard_of_a_flipped_byte_and_exits_1(cache: Path, run: Any, data: Any, tmp_path: Path) -> None:
    assert run("verify", cache).exit_code == 0
    assert data("verify", cache)["ok"] is True
    broken = Path(shutil.copytree(cache, tmp_path / "c"))
    shard = shard_file(broken, "hidden", 3)
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    result = run("verify", broken)
    assert result.exit_code == 1
    assert plain(result.stdout).startswith("hidden/000003.zarr.zip ")
    assert "1 problem" in result.stderr
    report = json.loads(run("verify", broken, "--json").stdout)
    assert report["ok"] is False
    assert [(problem["field"], problem["shard"]) for problem in report["problems"]] == [("hidden", 3)]


def test_estimate_tells_what_the_build_then_takes(cache: Path, build_args: Any, data: Any, run: Any) -> None:
    args = ("estimate", *build_args[1:])
    guess, opened = data(*args), open_cache(cache)
    assert (guess["keep"], guess["num_rows"], guess["num_shards"]) == ("2l_4t_0.25h", 96, 5)
    for name in opened.fields:
        assert opened.num_bytes(name) <= guess["most_bytes"][name]
        assert 0.7 < guess["num_bytes"][name] / opened.num_bytes(name) < 1.4
    shown = run(*args).stdout
    assert "96 in 5 shards of 20" in shown
    assert "at most" in shown


def test_rows_without_labels_take_the_classes_of_the_teacher(sources: Any, data: Any, tmp_path: Path) -> None:
    data("build", *sources, "--text", "sentence", "--keep", "none", "--out", tmp_path / "c")
    facts = data("info", tmp_path / "c")
    assert facts["fields"]["inputs"]["has_labels"] is False
    assert (facts["data"]["problem"], facts["data"]["label_names"]) == ("classification", ["0", "1"])
    assert data("view", tmp_path / "c", 0)["label"] is None


@pytest.fixture
def regression_teacher(tiny_teacher_dir: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "regression"
    config = BertConfig.from_pretrained(tiny_teacher_dir, num_labels=1, problem_type="regression")
    BertForSequenceClassification(config).save_pretrained(folder)
    PreTrainedTokenizerFast.from_pretrained(tiny_teacher_dir).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("columns", [("--text", "0"), ("--text", "0", "--label", "1")])
def test_a_teacher_of_scores_makes_a_cache_of_scores(
    columns: tuple[str, ...], regression_teacher: Path, data: Any, tmp_path: Path
) -> None:
    file = tmp_path / "scores.tsv"
    file.write_text("the film is warm\t3\nthe film is dull\t1\nthe film is long\t2\n")
    out = tmp_path / "c"
    data("build", "--teacher", regression_teacher, "--data", file, *columns, "--keep", "1l_2t", "--out", out)
    facts = data("info", out)
    assert (facts["data"]["problem"], facts["data"]["label_names"]) == ("regression", [])
    assert facts["fields"]["logits"]["num_labels"] == 1
    row = data("view", out, 1)
    assert row["label"] == (1.0 if len(columns) == 4 else None)
    assert len(row["logits"]) == 1
