"""``hskcache audit`` as a user meets it: a table or JSON, exit codes 0, 1 and 2, and nothing but a line of words."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from models import reweighted
from stored import shard_file

from hskcache.cache import open_cache
from hskcache.store.ledger import Ledger


@pytest.fixture
def own(cache: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(cache, tmp_path / "own"))


@pytest.fixture(scope="module")
def stranger(tiny_teacher_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher of the same shape with other weights."""
    return reweighted(tiny_teacher_dir, tmp_path_factory.mktemp("stranger"))


def test_a_cache_of_its_teacher_passes_with_a_line_for_every_layer(
    run: Any, data: Any, cache: Path, tiny_teacher_dir: Path
) -> None:
    args = ("audit", cache, "--teacher", tiny_teacher_dir, "--device", "cpu", "--rows", 20)
    result = run(*args)
    assert result.exit_code == 0
    assert result.stderr.splitlines()[-1] == f"{cache}: 20 rows audited, all as the teacher gives them"
    lines = [line.split() for line in result.stdout.splitlines()]
    assert [line[:3] for line in lines[2:5]] == [
        ["logits", "float32", lines[2][2]],
        ["hidden", "2", "int8"],
        ["hidden", "4", "int8"],
    ]
    assert lines[5:] == [
        ["chosen", "again", "positions", "columns"],
        ["hidden", "2", "100.00%", "100.00%"],
        ["hidden", "4", "100.00%", "100.00%"],
    ]
    assert max(map(len, result.stdout.splitlines())) < 80
    report = data(*args)
    assert (report["cache"], report["cache_id"]) == (str(cache), open_cache(cache).id)
    assert (report["num_rows"], report["num_skipped"], report["ok"], report["tolerance"]) == (20, 0, True, 1e-4)
    assert report["identities"] == [
        {"fields": ["logits", "hidden"], "same_weights": True, "same_tokenizer": True, "config": None}
    ]
    (layer,) = (one for one in report["layers"] if one["layer"] == 4)
    assert 0 < layer["max_abs"] <= layer["bound"] + 1e-4
    assert (layer["bad_rows"], layer["same_columns"], layer["num_values"]) == ([], 1.0, 20 * 4 * 8)


def test_another_teacher_is_said_before_the_figures_and_fails(run: Any, cache: Path, stranger: Path) -> None:
    result = run("audit", cache, "--teacher", stranger, "--device", "cpu", "--rows", 12)
    assert result.exit_code == 1
    said = result.stderr.splitlines()
    assert said[0] == f"{stranger} is another teacher than logits, hidden came from: the digest of its weights differs"
    assert said[-1] == f"{cache}: 12 rows audited: another teacher, values that the teacher does not give"
    assert "error" not in result.stderr
    bad = [line for line in result.stdout.splitlines() if ": bad rows, the worst first: " in line]
    assert [line.split(":")[0] for line in bad] == ["logits", "hidden layer 2", "hidden layer 4"]
    assert all("and 2 more" in line for line in bad)
    assert "12 with positions or columns that are not the best" in bad[2]
    printed = run("audit", cache, "--teacher", stranger, "--device", "cpu", "--rows", 12, "--json")
    assert printed.exit_code == 1
    assert json.loads(printed.stdout)["ok"] is False


def test_one_bad_row_is_enough_and_is_named(run: Any, own: Path, tiny_teacher_dir: Path) -> None:
    opened, ledger = open_cache(own), Ledger(own)
    arrays = opened.read("logits", 2)
    arrays["logits"][5, 1] += 0.25
    ledger.commit("logits", 2, opened.shards[2], arrays)
    ledger.finish(opened.manifest.request, opened.fields, {})
    assert run("verify", own).exit_code == 0
    args = ("audit", own, "--teacher", tiny_teacher_dir, "--device", "cpu")
    result = run(*args)
    assert result.exit_code == 1
    assert "logits: bad rows, the worst first: 45" in result.stdout.splitlines()
    assert result.stderr.splitlines()[-1].endswith("96 rows audited: values that the teacher does not give")
    assert run(*args, "--field", "hidden").exit_code == 0
    assert run(*args, "--tolerance", "0.5").exit_code == 0


def test_values_that_are_not_finite_are_json_all_the_same(run: Any, own: Path, tiny_teacher_dir: Path) -> None:
    opened, ledger = open_cache(own), Ledger(own)
    arrays = opened.read("logits", 0)
    arrays["logits"][0, 0] = float("nan")
    ledger.commit("logits", 0, opened.shards[0], arrays)
    ledger.finish(opened.manifest.request, opened.fields, {})
    args = ("audit", own, "--teacher", tiny_teacher_dir, "--device", "cpu", "--field", "logits")
    result = run(*args, "--json")
    assert result.exit_code == 1

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    (layer,) = json.loads(result.stdout, parse_constant=refuse)["layers"]
    assert (layer["num_nonfinite"], layer["excess"], layer["bad_rows"]) == (1, None, [0])
    assert "infinite" in run(*args).stdout


def test_an_added_field_is_audited_with_its_own_teacher(run: Any, own: Path, stranger: Path) -> None:
    given = ("--add-field", "hidden", "--name", "h2", "--keep", "1l_2t", "--student-layers", "4", "--device", "cpu")
    assert run("build", *given, "--teacher", stranger, "--out", own).exit_code == 0
    args = ("audit", own, "--teacher", stranger, "--device", "cpu", "--rows", 10)
    assert run(*args, "--field", "h2").exit_code == 0
    assert run(*args).exit_code == 1
    mixed = run(*args, "--field", "h2", "--field", "logits")
    assert mixed.exit_code == 1
    assert "is another teacher than logits came from" in mixed.stderr


def test_a_cache_at_a_url_is_audited(
    run: Any, data: Any, own: Path, tiny_teacher_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HSKCACHE_LOCAL", str(tmp_path / "local"))
    args = ("--teacher", tiny_teacher_dir, "--device", "cpu", "--rows", 7)
    assert data("audit", f"file://{own}", *args)["layers"] == data("audit", own, *args)["layers"]
    said = run("audit", f"file://{own}", *args, "--field", "x").stderr
    assert said == f"error: file://{own} has no field x; it has logits, hidden\n"


def test_labels_are_not_audited_and_the_help_says_so(run: Any, own: Path, tiny_teacher_dir: Path) -> None:
    opened, ledger = open_cache(own), Ledger(own)
    arrays = opened.read("inputs", 0)
    arrays["labels"][:] = 1 - arrays["labels"]
    ledger.commit("inputs", 0, opened.shards[0], arrays)
    ledger.finish(opened.manifest.request, opened.fields, {})
    assert run("audit", own, "--teacher", tiny_teacher_dir, "--device", "cpu").exit_code == 0
    assert "labels are not audited" in " ".join(run("audit", "--help").stdout.split())


def test_the_cache_of_a_corpus_is_audited(run: Any, data: Any, tiny_teacher_dir: Path, tmp_path: Path) -> None:
    text = tmp_path / "corpus.txt"
    text.write_text("the film is charming\nits plot is a waste\n\nthe music is moving\n" * 9, encoding="utf-8")
    keep = ("--keep", "2t", "--attention", "3t", "--student-layers", "2", "--max-length", "16", "--device", "cpu")
    out = tmp_path / "c"
    assert run("build", "--teacher", tiny_teacher_dir, "--corpus", text, *keep, "--out", out).exit_code == 0
    report = data("audit", out, "--teacher", tiny_teacher_dir, "--device", "cpu")
    assert report["ok"]
    assert {layer["kind"] for layer in report["layers"]} == {"hidden", "attention"}


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (("--field", "x"), "has no field x; it has logits, hidden"),
        (("--field", "inputs"), "no knowledge of a teacher to audit in the inputs"),
        (("--device", "tpu"), "--device 'tpu' is not a device"),
        (("--teacher", "./nowhere"), "from ./nowhere: there is no such folder"),
    ],
)
def test_what_cannot_be_audited_is_refused_in_one_line(
    refused: Any, cache: Path, tiny_teacher_dir: Path, extra: tuple[str, ...], words: str
) -> None:
    assert words in refused("audit", cache, "--teacher", tiny_teacher_dir, "--device", "cpu", *extra)


def test_a_damaged_cache_ends_in_one_line(refused: Any, own: Path, tiny_teacher_dir: Path, tmp_path: Path) -> None:
    shard_file(own, "hidden", 1).unlink()
    line = refused("audit", own, "--teacher", tiny_teacher_dir, "--device", "cpu")
    assert line.startswith("hidden shard 1: ")
    assert "does not exist" in refused("audit", tmp_path / "none", "--teacher", tiny_teacher_dir)
