"""A comparison tells everything that differs between two caches, and nothing else."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numcodecs.blosc import Blosc
from rewritten import ANOTHER, changing, golden, part, rewritten, values_of
from stored import shard_file

from hskcache.cache import Cache
from hskcache.compare.difference import Change, Difference, SameShards, difference, work_rows
from hskcache.errors import DamageError
from hskcache.rows import read_rows
from hskcache.store import codec as shards
from hskcache.store.ledger import Ledger
from hskcache.store.tokenizer import digest_of, read_tokenizer

ROOT = Path(__file__).resolve().parents[3]


def test_caches_of_one_id_are_the_same_and_nothing_of_them_is_read(tmp_path: Path) -> None:
    copy = rewritten(golden(), tmp_path / "c")
    assert copy.id == golden().id
    for record in copy.manifest.records:
        shard_file(copy.root, record.field, record.shard).unlink()
    found = difference(golden(), copy)
    assert found == Difference(ids=(copy.id, copy.id))
    assert found.same
    assert work_rows(golden(), copy) == 0


@pytest.mark.parametrize(("name", "shard_rows"), [("tiny", 1), ("tiny", 3), ("tiny", 9), ("corpus", 3)])
def test_shards_that_are_cut_elsewhere_hold_the_same_rows(tmp_path: Path, name: str, shard_rows: int) -> None:
    source = golden(name)
    other = rewritten(source, tmp_path / "c", shard_rows=shard_rows)
    for here, there in ((source, other), (other, source)):
        found = difference(here, there)
        assert not found.same
        assert [change.key for change in found.changes] == ["shard_rows"]
        assert found.rows is not None
        assert (found.rows.here, found.rows.there, found.rows.common) == (source.num_rows,) * 3
        assert (found.rows.num_other_tokens, found.rows.num_other_labels, found.rows.other_tokens) == (0, 0, [])
        assert found.values
        for one in found.values:
            assert one.num_values > 0
            assert (one.max_abs, one.mean_abs, one.same_positions, one.same_entries) == (0, 0, 1, 1)


def test_rows_with_other_tokens_are_named_and_their_values_are_not_compared(tmp_path: Path) -> None:
    def change(name: str, number: int, arrays: dict[str, Any]) -> None:
        if name == "inputs" and number == 1:
            arrays["input_ids"][1] ^= 1
        if name == "logits":
            arrays["logits"][:, 0] += [100, 1][: len(arrays["logits"])]

    other = rewritten(golden(), tmp_path / "c", change)
    found = difference(golden(), other)
    assert found.rows is not None
    assert (found.rows.other_tokens, found.rows.num_other_tokens) == ([(2, 3)], 1)
    one = values_of(found, "logits")
    assert one.num_rows == 4
    assert one.mean_abs == pytest.approx((100 + 1 + 1 + 100) / 8, rel=1e-4)
    here, there = (read_rows(cache, "logits", np.array([0, 1, 3, 4]))["logits"] for cache in (golden(), other))
    logs = [torch.from_numpy(side).double().log_softmax(-1) for side in (here, there)]
    assert one.kl == pytest.approx(float((logs[1].exp() * (logs[1] - logs[0])).sum(-1).mean()))


def test_rows_of_other_lengths_and_other_token_types_are_other_tokens(tmp_path: Path) -> None:
    def shorter(arrays: dict[str, Any]) -> dict[str, Any]:
        ids, types = (np.delete(arrays[name], 1) for name in ("input_ids", "token_type_ids"))
        offsets = arrays["row_offsets"] - np.array([0, 1, 1])
        return arrays | {"input_ids": ids, "token_type_ids": types, "row_offsets": offsets}

    def typed(arrays: dict[str, Any]) -> None:
        arrays["token_type_ids"][-1] ^= 1

    for number, (change, rows) in enumerate(((shorter, [(0, 1)]), (typed, [(1, 2)]))):
        found = difference(golden(), rewritten(golden(), tmp_path / str(number), changing("inputs", 0, change)))
        assert found.rows is not None
        assert found.rows.other_tokens == rows


def test_other_labels_of_the_same_rows_are_counted(tmp_path: Path) -> None:
    def change(arrays: dict[str, Any]) -> None:
        arrays["labels"][:] = 1 - arrays["labels"]

    found = difference(golden(), rewritten(golden(), tmp_path / "c", changing("inputs", 0, change)))
    assert found.rows is not None
    assert (found.rows.num_other_labels, found.rows.num_other_tokens, found.same) == (2, 0, False)


def test_what_was_asked_for_differs_key_by_key_and_names_are_told_too(tmp_path: Path) -> None:
    request = golden().manifest.request
    teacher = request.teacher.model_copy(update={"name": "another", "weights_sha256": "f" * 64})
    data = request.data.model_copy(update={"fingerprint": "other"})
    files = read_tokenizer(golden().tokenizer_path) | {ANOTHER: b"{}"}
    tokenizer = request.tokenizer.model_copy(update={"sha256": digest_of(files)})
    other = rewritten(golden(), tmp_path / "c", teacher=teacher, data=data, tokenizer=tokenizer)
    found = difference(golden(), other)
    assert found.changes == [
        Change(key="teacher.name", here=request.teacher.name, there="another"),
        Change(key="teacher.weights_sha256", here=request.teacher.weights_sha256, there="f" * 64),
        Change(key="tokenizer.sha256", here=request.tokenizer.sha256, there=digest_of(files)),
        Change(key="data.fingerprint", here=request.data.fingerprint, there="other"),
    ]
    assert not found.same_request
    assert not found.same
    assert all(shard.num_rows == 5 for shard in found.shards)


def test_fields_of_one_cache_alone_are_told_and_those_of_both_compared() -> None:
    found = difference(golden("added"), golden("tiny"))
    assert found.fields_here == ["s30", "h2"]
    assert found.fields_there == ["hidden", "hidden_uniform"]
    assert found.values is not None
    assert {one.field for one in found.values} == {"logits"}


def test_a_part_is_matched_by_the_numbers_of_its_rows(tmp_path: Path) -> None:
    piece = part(golden(), tmp_path / "p", ["hidden"], range(1, 3))
    for here, there in ((golden(), piece), (piece, golden())):
        found = difference(here, there)
        assert found.rows is not None
        assert (found.rows.common, found.rows.start, found.rows.num_other_tokens) == (3, 2, 0)
        assert found.shards == [SameShards(field=name, ranges=[(2, 5)], num_rows=3) for name in ("inputs", "hidden")]
        assert not found.same
    assert difference(piece, golden()).fields_there == ["logits", "hidden_uniform"]
    first = part(golden(), tmp_path / "f", ["hidden"], range(1))
    apart = difference(first, piece)
    assert apart.rows is not None
    assert apart.rows.common == 0
    assert all(one.num_rows == one.num_values == 0 for one in apart.values or ())
    assert not apart.same


def test_rows_that_one_has_left_out_are_told_and_not_compared(tmp_path: Path) -> None:
    def spoil(arrays: dict[str, Any]) -> None:
        arrays["logits"][1] = 0

    other = rewritten(golden(), tmp_path / "c", changing("logits", 0, spoil))
    arrays = other.read("logits", 0)
    Ledger(other.root).commit("logits", 0, (0, 2), arrays, {1: 2})
    Ledger(other.root).finish(other.manifest.request, other.manifest.own_fields, {})
    found = difference(golden(), Cache(Ledger(other.root).intact(), other.shelf))
    assert [(change.key, change.here, change.there) for change in found.changes] == [("skipped.logits", [], [1])]
    one = values_of(found, "logits")
    assert (one.num_rows, one.max_abs) == (1, 0)
    assert not found.same


def test_the_same_content_in_other_bytes_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version of a compressor writes other bytes of the same arrays."""
    with monkeypatch.context() as patch:
        patch.setattr(shards.blosc, "Blosc", lambda **given: Blosc(**given | {"shuffle": 0}))
        other = rewritten(golden(), tmp_path / "c")
    assert other.id != golden().id
    found = difference(golden(), other)
    assert found.changes == []
    assert any(shard.num_rows < 5 for shard in found.shards)
    assert found.same
    assert not difference(golden(), other, with_values=False).same


def test_damage_is_told_and_not_compared(tmp_path: Path) -> None:
    other = rewritten(golden(), tmp_path / "c", shard_rows=3)
    path = shard_file(other.root, "hidden", 1)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DamageError, match="hidden shard 1: "):
        difference(golden(), other)


def test_without_values_no_torch_is_needed(tmp_path: Path) -> None:
    rewritten(golden(), tmp_path / "c", shard_rows=3)
    script = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from hskcache.cache import open_cache\n"
        "from hskcache.compare.difference import difference\n"
        "found = difference(open_cache(sys.argv[1]), open_cache(sys.argv[2]), with_values=False)\n"
        "assert found.values is None and found.rows.common == 5 and not found.same\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, golden().root, tmp_path / "c"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
