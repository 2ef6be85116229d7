"""``hskcache diff`` as a user meets it: what differs as a table or JSON, exit codes 0, 1 and 2."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from stored import both_manifests, shard_file

from hskcache.cache import open_cache
from hskcache.store.files import write_atomic
from hskcache.store.ledger import Ledger
from hskcache.store.publishing import MANIFEST


@pytest.fixture(scope="module")
def coarse(run: Any, build_args: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same rows of the same teacher in int4 and in shards of another size, with attention besides."""
    out = tmp_path_factory.mktemp("diff") / "coarse"
    given = ("--encoding", "int4", "--shard-rows", "30", "--attention", "2t")
    assert run(*build_args, *given, "--out", out).exit_code == 0
    return out


def test_a_copy_is_the_same_bytes(run: Any, data: Any, cache: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(cache, tmp_path / "copy"))
    result = run("diff", cache, copy)
    assert result.exit_code == 0
    assert result.stdout == f"the same bytes: both have the id {open_cache(cache).id}\n"
    # No bar: nothing is compared.
    assert result.stderr == f"{cache} and {copy}: the same content\n"
    found = data("diff", cache, copy)
    assert (found["same"], found["changes"], found["here"], found["there"]) == (True, [], str(cache), str(copy))


def test_what_differs_is_told_key_by_key_and_layer_by_layer(run: Any, cache: Path, coarse: Path) -> None:
    result = run("diff", cache, coarse)
    assert result.exit_code == 1
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["spec.hidden.encoding", "int8", "int4"] in lines
    assert ["fields.hidden.encoding", "int8", "int4"] in lines
    assert ["shard_rows", "20", "30"] in lines
    assert "rows: 96 in A, 96 in B, 96 in both, with the same tokens" in result.stdout.splitlines()
    assert "inputs: no shard is the same" in result.stdout.splitlines()
    (row,) = (line for line in lines if line[:2] == ["hidden", "4"])
    assert row[2] == "96"
    assert 0.01 < float(row[3]) < 1
    assert row[-2:] == ["100.00%", "100.00%"]
    (row,) = (line for line in lines if line[:2] == ["logits", "96"])
    # In other shards rows stand in other batches, which moves the last bits.
    assert float(row[2]) < 1e-5
    assert result.stderr.splitlines()[-1] == f"{cache} and {coarse}: different"
    assert "error" not in result.stderr


def test_what_is_listed_is_told_in_words(run: Any, cache: Path, coarse: Path, tmp_path: Path) -> None:
    opened, other = open_cache(cache), Path(shutil.copytree(cache, tmp_path / "other"))
    request = opened.manifest.request
    parts = (
        request.data.model_copy(update={"num_rows": 80}),
        request.data.model_copy(update={"num_rows": 16, "name": "more.tsv"}),
    )
    grown = request.model_copy(update={"data": parts[0], "appended": [parts[1]]})
    manifest = opened.manifest.model_copy(update={"request": grown, "request_digest": grown.digest}).signed()
    write_atomic(other / MANIFEST, manifest.to_json())
    assert ["appended", "none", "more.tsv (16 rows)"] in _cells(run("diff", cache, other).stdout)
    cells = _cells(run("diff", cache, coarse).stdout)
    assert ["spec.attention", "none", "2t"] in cells
    assert ["attention_layers", "none", "2->1, 4->2"] in cells
    assert ["cache id", opened.id[:12], open_cache(coarse).id[:12]] in cells


def _cells(text: str) -> list[list[str]]:
    return [re.split(" {2,}", line.strip()) for line in text.splitlines()]


def test_figures_fit_into_a_terminal_and_none_is_told_where_nothing_was_compared(
    run: Any, coarse: Path, build_args: tuple[object, ...], tmp_path: Path
) -> None:
    mean = tmp_path / "mean"
    assert run(*build_args, "--attention", "2t", "--heads", "mean", "--out", mean).exit_code == 0
    lines = run("diff", coarse, mean).stdout.splitlines()
    first = next(place for place, line in enumerate(lines) if line.startswith("field"))
    assert max(map(len, lines[first - 1 :])) < 80
    assert [line.split() for line in lines if line.startswith("attention 4")] == [["attention", "4", "96", "0.00%"]]


def test_a_cache_at_a_url_is_compared(
    run: Any, data: Any, cache: Path, coarse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HSKCACHE_LOCAL", str(tmp_path / "local"))
    url = f"file://{coarse}"
    near, far = (json.loads(run("diff", cache, there, "--json").stdout) for there in (coarse, url))
    assert far == near | {"there": url}
    back = run("diff", url, cache)
    assert back.exit_code == 1
    assert back.stderr.splitlines()[-1] == f"{url} and {cache}: different"
    assert data("diff", url, coarse)["same"]


def test_json_tells_the_same_and_values_may_be_left_out(run: Any, cache: Path, coarse: Path) -> None:
    found = json.loads(run("diff", cache, coarse, "--json").stdout)
    assert found["ids"] == [open_cache(cache).id, open_cache(coarse).id]
    assert {"key": "shard_rows", "here": 20, "there": 30} in found["changes"]
    assert [(one["field"], one["layer"]) for one in found["values"]] == [
        ("logits", None),
        ("hidden", 2),
        ("hidden", 4),
    ]
    assert found["rows"]["common"] == 96
    bare = run("diff", cache, coarse, "--no-values", "--json")
    assert bare.exit_code == 1
    assert json.loads(bare.stdout) == found | {"values": None}
    assert "max difference" not in run("diff", cache, coarse, "--no-values").stdout


def test_fields_rows_and_labels_that_differ_are_told(run: Any, cache: Path, sources: Any, tmp_path: Path) -> None:
    other = Path(shutil.copytree(cache, tmp_path / "other"))
    opened, ledger = open_cache(other), Ledger(other)
    arrays = opened.read("inputs", 1)
    arrays["input_ids"][arrays["row_offsets"][3] + 1] ^= 1
    arrays["labels"][7] = 1 - arrays["labels"][7]
    ledger.commit("inputs", 1, opened.shards[1], arrays)
    ledger.finish(opened.manifest.request, opened.fields, {})
    teacher = sources[1]
    given = ("--add-field", "logits", "--name", "t2", "--teacher", teacher, "--out", other, "--device", "cpu")
    assert run("build", *given).exit_code == 0
    result = run("diff", cache, other)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert "only B has the fields t2" in lines
    assert "rows: 96 in A, 96 in B, 96 in both; 1 with other tokens (23 to 23); 1 with other labels" in lines
    assert "inputs: shards of the rows 0 to 19, 40 to 95 are the same" in lines
    assert "hidden: shards of the rows 0 to 95 are the same" in lines
    assert "only A has the fields t2" in run("diff", other, cache).stdout.splitlines()


def test_what_is_no_cache_is_refused_in_one_line(refused: Any, cache: Path, tmp_path: Path) -> None:
    assert "does not exist" in refused("diff", cache, tmp_path / "none")
    assert "does not exist" in refused("diff", tmp_path / "none", cache)
    damaged = Path(shutil.copytree(cache, tmp_path / "damaged"))
    both_manifests(damaged, b"{}")
    assert "is not the manifest of a cache" in refused("diff", cache, damaged)


def test_damage_that_is_met_ends_in_one_line(refused: Any, cache: Path, coarse: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(coarse, tmp_path / "damaged"))
    shard_file(damaged, "hidden", 2).unlink()
    assert refused("diff", cache, damaged).startswith("hidden shard 2: ")
