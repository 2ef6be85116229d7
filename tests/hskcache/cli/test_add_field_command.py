"""``hskcache build --add-field``: a second teacher's knowledge, seen and refused as a user meets it."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from stored import MANIFESTS


@pytest.fixture
def own(cache: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(cache, tmp_path / "own"))


@pytest.fixture
def args(tiny_teacher_dir: Path, own: Path) -> tuple[object, ...]:
    return ("build", "--add-field", "logits", "--name", "s30", "--teacher", tiny_teacher_dir, "--out", own)


def test_a_field_is_added_told_and_shown(run: Any, data: Any, args: tuple[object, ...], own: Path) -> None:
    before = data("info", own)
    result = run(*args)
    assert result.exit_code == 0
    assert "now has the field s30" in result.stderr
    facts = data("info", own)
    assert facts["cache_id"] != before["cache_id"]
    assert facts["fields"]["s30"]["teacher"]["weights_sha256"] == facts["teacher"]["weights_sha256"]
    assert facts["fields"]["s30"]["spec"]["hidden"] is None
    assert "teacher" not in facts["fields"]["logits"]
    row = data("view", own, 3)
    assert row["added"] == {"s30": row["logits"]}
    assert f"s30  logits 0 {row['logits'][0]:+.3f}" in run("view", own, 3).stdout
    assert f"2 float32; of {facts['fields']['s30']['teacher']['name']}"[:40] in " ".join(
        run("info", own).stdout.split()
    )
    assert run("verify", own).exit_code == 0
    again = run(*args)
    assert again.exit_code == 0
    assert "already has the field s30" in again.stderr


def test_hidden_states_with_the_flags_of_a_build(run: Any, data: Any, own: Path, tiny_teacher_dir: Path) -> None:
    given = ("--add-field", "hidden", "--name", "h2", "--keep", "1l_2t", "--student-layers", "4")
    assert run("build", *given, "--teacher", tiny_teacher_dir, "--out", own).exit_code == 0
    field = data("info", own)["fields"]["h2"]
    assert (field["layers"], field["max_tokens"], field["num_columns"]) == ([4], 2, 32)
    assert field["layer_pairs"] == [{"student": 4, "teacher": 4}]
    assert (field["encoding"], field["spec"]["compute_dtype"]) == ("int8", "float32")
    assert len(data("view", own, 3)["added"]["h2"]["4"]) == 2
    assert "h2 4" in run("view", own, 3).stdout


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (("--data", "x.tsv"), "takes its rows from the cache"),
        (("--task", "sst2"), "takes its rows from the cache"),
        (("--keep-text",), "columns, --copy and --keep-text"),
        (("--copy", "3"), "columns, --copy and --keep-text"),
        (("--corpus", "x.txt"), "takes its rows from the cache"),
        (("--max-length", "8"), "--max-length is the cache's own"),
        (("--shard-rows", "8"), "--shard-rows is the cache's own"),
        (("--keep", "1l"), "a field of logits is to be added, but hidden states are to be kept too"),
        (("--attention", "2t"), "a field of logits is to be added, but attention scores are to be kept too"),
        (("--encoding", "int4"), "--encoding says how hidden states are kept, but none are"),
        (("--name", "logits"), "caches keep for themselves"),
        (("--name", "../s30"), "is not a name for a field"),
    ],
)
def test_flags_that_do_not_belong(refused: Any, args: tuple[object, ...], extra: tuple[str, ...], words: str) -> None:
    assert words in refused(*args, *extra)


def test_a_field_needs_a_name_and_a_name_a_field(refused: Any, sources: Any, own: Path, tiny_teacher_dir: Path) -> None:
    line = refused("build", "--add-field", "logits", "--teacher", tiny_teacher_dir, "--out", own)
    assert "needs a name for the field: give --name" in line
    assert "--name s30 belongs to --add-field" in refused("build", *sources, "--name", "s30", "--out", own)


def test_there_must_be_a_complete_cache(refused: Any, args: tuple[object, ...], own: Path) -> None:
    for name in MANIFESTS:
        (own / name).unlink()
    assert "has no manifest.json" in refused(*args)


@pytest.mark.parametrize("name", ["label", "row_id", "input_ids", "added"])
def test_a_field_may_be_called_like_what_rows_are_shown_by(
    run: Any, data: Any, args: Any, own: Path, name: str
) -> None:
    before = data("view", own, 3)
    assert run(*args, "--name", name).exit_code == 0
    after = data("view", own, 3)
    assert after.pop("added") == {name: before["logits"]}
    assert after == {key: value for key, value in before.items() if key != "added"}
