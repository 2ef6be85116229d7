"""An audit passes whatever its teacher made, in whatever way it is kept, and no other teacher."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from audited import building, layer_of, report_of
from stored import shard_file

from hskcache.audit.audit import TOLERANCES, Question, audit, compute_dtype, prepare_audit
from hskcache.build.addition import add_field, prepare_addition
from hskcache.build.build import build
from hskcache.build.corpus import CorpusBuild
from hskcache.build.folder import spool_of
from hskcache.build.job import Job
from hskcache.cache import Cache, open_cache
from hskcache.errors import DamageError
from hskcache.spec import Attention, Depth, Length, Spec
from hskcache.store.ledger import Ledger
from hskcache.store.publishing import write_index, write_manifest
from hskcache.teacher.load import Teacher, load_encoder, load_teacher
from hskcache.text import Examples


@pytest.fixture(scope="module")
def built(job_of: Any, examples: Examples, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Cache]:
    return building(job_of, examples, tmp_path_factory)


@pytest.mark.parametrize("encoding", ["float32", "float16", "bfloat16", "int8", "int4"])
def test_what_the_teacher_made_passes_within_the_bound_of_every_encoding(
    built: Any, teacher: Teacher, encoding: str
) -> None:
    report = report_of(teacher, built("2l_4t_0.25h", {"tokens": 3}, encoding=encoding))
    assert report.ok
    assert (report.num_rows, report.num_skipped, report.tolerance) == (13, 0, TOLERANCES["float32"])
    assert [(one.field, one.layer) for one in report.layers] == [
        ("logits", None), ("hidden", 2), ("hidden", 4), ("attention", 2), ("attention", 4),
    ]  # fmt: skip
    for one in report.layers:
        stored = "float32" if one.field == "logits" else encoding
        assert one.encoding == stored
        assert one.num_nonfinite == one.num_wrong == one.num_bad_rows == 0
        assert one.cosine == pytest.approx(1, abs=0.02 if stored == "int4" else 1e-4)
        assert (one.bound > 0) == (stored != "float32")
        assert one.max_abs <= one.bound + 1e-4
        assert one.mean_abs <= one.max_abs
        if stored != "float32":
            assert 0.3 < (one.excess or 0) <= 1
            assert one.max_abs > one.bound / 4
    assert layer_of(report, "hidden", 4).same_columns == layer_of(report, "hidden", 4).same_positions == 1
    assert layer_of(report, "hidden", 4).kl is layer_of(report, "attention", 4).same_columns is None
    kl = layer_of(report, "attention", 4).kl
    assert kl is not None
    assert 0 <= kl < (0.05 if encoding == "int4" else 1e-3)
    assert layer_of(report, "hidden", 2).num_values == 13 * 4 * 8
    assert layer_of(report, "attention", 2).num_values == 13 * 4 * 3 * 3
    assert layer_of(report, "logits").num_values == 13 * 2


@pytest.mark.parametrize(
    "kept",
    [
        {"keep": "1l_4t_0.03h"},
        {"keep": "1l_4t_0.25h", "width__scheme": "uniform"},
        {"keep": "1l_4t_0.25h", "width__scheme": "random"},
        {"keep": "1l_4t_0.25h", "width__scheme": "pca", "encoding": "int8"},
        {"keep": "full"},
        {"keep": "1l_0.5h", "length__specials": False},
        {"keep": "2l_4t", "length__specials": False, "length__score_layer": "last"},
        {"keep": "1l_4t", "length__score": "random", "length__seed": 7},
        {"keep": "1l_4t", "length__score": "received"},
        {"keep": "1l_4t", "length__score": "attention-logit"},
        {"keep": "1l_4t", "length__score": "left"},
        {"keep": "1l_4t", "length__score": "right", "length__specials": False},
        {"keep": "2l_4t", "length__score_layer": "mapped", "depth__target": 3},
        {"keep": "4t", "depth__kept": [0, 1]},
        {"keep": "1l", "length__score": "cls"},
        {"keep": "none"},
    ],
    ids=lambda kept: "-".join(map(str, kept.values())),
)
def test_every_way_to_choose_positions_and_columns_is_made_again(built: Any, teacher: Teacher, kept: Any) -> None:
    report = report_of(teacher, built(**kept))
    assert report.ok
    assert {one.field for one in report.layers} == ({"logits"} if kept["keep"] == "none" else {"logits", "hidden"})
    for one in report.layers:
        assert one.same_positions in {None, 1.0}
        assert one.same_columns in {None, 1.0}


def test_all_positions_stand_as_in_the_row_though_another_field_ranks_them(built: Any, teacher: Teacher) -> None:
    """The score by which the hidden states are chosen is at hand for the attention of all positions, too."""
    assert report_of(teacher, built("1l_3t", {"score": "attention"})).ok


@pytest.mark.parametrize("attention", [{}, {"tokens": 3, "heads": "mean"}, {"tokens": 5, "heads": [3, 0]}])
def test_attention_of_all_positions_some_heads_and_their_mean(built: Any, teacher: Teacher, attention: Any) -> None:
    num_heads = {"mean": 1, "all": 4}.get(str(attention.get("heads", "all")), 2)
    tokens = attention.get("tokens")
    cache = built("none", attention, encoding="int4")
    report = report_of(teacher, cache, Question(num_rows=40))
    assert report.ok
    lengths = np.concatenate([np.diff(cache.read("inputs", shard)["row_offsets"]) for shard in range(10)])
    kept = np.minimum(lengths, tokens or lengths)
    assert layer_of(report, "attention", 4).num_values == num_heads * int((kept**2).sum())
    assert layer_of(report, "attention", 4).same_positions == (None if tokens is None else 1)


def test_another_teacher_is_told_by_its_digest_and_by_its_errors(built: Any, teacher: Teacher, other: Teacher) -> None:
    cache = built("1l_4t_0.25h", encoding="int8")
    report = report_of(other, cache)
    assert not report.ok
    (identity,) = report.identities
    assert (identity.fields, identity.same_weights, identity.same_tokenizer) == (["logits", "hidden"], False, True)
    assert identity.config is None
    for one in report.layers:
        assert one.num_bad_rows == 13
        assert one.excess is not None
        assert one.excess > 2
        assert len(one.bad_rows) == len(set(one.bad_rows)) == 10
        assert one.max_abs > 0.01
    assert layer_of(report, "hidden", 4).num_wrong > 0
    assert report_of(teacher, cache).ok


def test_weights_that_differ_fail_even_where_no_value_does(built: Any, tiny_teacher_dir: Path, tmp_path: Path) -> None:
    """Of all positions the last has an embedding that no row is long enough to use."""
    twin = load_teacher(str(tiny_teacher_dir), "cpu")
    with torch.no_grad():
        twin.model.bert.embeddings.position_embeddings.weight[63] += 1
    twin.model.save_pretrained(tmp_path)
    twin.tokenizer.save_pretrained(tmp_path)
    report = report_of(load_teacher(str(tmp_path), "cpu"), built("1l_4t"))
    assert not any(one.num_bad_rows for one in report.layers)
    assert not report.identities[0].same_weights
    assert not report.ok


def test_a_tokenizer_that_is_not_the_caches_fails(built: Any, tiny_teacher_dir: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_teacher_dir, tmp_path / "t"))
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace('"lowercase": true', '"lowercase": false'))
    report = report_of(load_teacher(str(folder), "cpu"), built("none"))
    assert (report.identities[0].same_weights, report.identities[0].same_tokenizer, report.ok) == (True, False, False)


def test_the_cache_of_a_corpus_is_audited_without_a_classifier(
    tiny_teacher_dir: Path, other_dir: Path, spec_of: Callable[..., Spec], tmp_path: Path
) -> None:
    text = tmp_path / "corpus.txt"
    text.write_text("the film is charming\nits plot is a waste\n\n" * 9, encoding="utf-8")
    attention = Attention(depth=Depth(student_layers=2), length=Length(tokens=2))
    spec = spec_of("2l_3t_0.25h", encoding="int8").model_copy(update={"attention": attention})
    corpus = CorpusBuild(load_encoder(str(tiny_teacher_dir), "cpu"), text, spec)
    build(corpus.job(spool_of(tmp_path / "c")), tmp_path / "c")
    cache = open_cache(tmp_path / "c")
    report = report_of(load_encoder(str(tiny_teacher_dir), "cpu"), cache)
    assert report.ok
    assert {one.field for one in report.layers} == {"hidden", "attention"}
    assert not report_of(load_encoder(str(other_dir), "cpu"), cache).ok


def test_added_fields_are_audited_by_name_with_their_own_teacher(
    cache: Cache, teacher: Teacher, other: Teacher, spec_of: Callable[..., Spec]
) -> None:
    add_field(prepare_addition(other, cache, "logits", "t2"))
    add_field(prepare_addition(other, open_cache(cache.root), "hidden", "h2", spec_of("1l_4t_0.25h", encoding="int8")))
    grown = open_cache(cache.root)
    assert [one.field for one in report_of(teacher, grown).layers] == ["logits"]
    report = report_of(other, grown, Question(("h2", "t2"), 13))
    assert report.ok
    assert [(one.field, one.layer, one.encoding) for one in report.layers] == [
        ("h2", 4, "int8"),
        ("t2", None, "float32"),
    ]
    assert [identity.fields for identity in report.identities] == [["h2"], ["t2"]]
    mixed = report_of(other, grown, Question(("logits", "t2"), 13))
    assert [identity.same_weights for identity in mixed.identities] == [False, True]
    assert layer_of(mixed, "t2").num_bad_rows == 0 < layer_of(mixed, "logits").num_bad_rows
    assert not report_of(teacher, grown, Question(("h2",), 13)).ok


def test_rows_that_a_field_has_left_out_are_not_drawn_and_are_counted(
    job_of: Any, tiny_teacher_dir: Path, teacher: Teacher, tmp_path: Path
) -> None:
    own = load_teacher(str(tiny_teacher_dir), "cpu")
    job: Job = job_of("1l_4t_0.25h", by=own, encoding="int8")
    ids = job.rows.input_ids[job.rows.offsets[17] : job.rows.offsets[18]]

    def spoil(_module: Any, _args: Any, kwargs: Any, output: Any) -> Any:
        batch = kwargs["input_ids"]
        if batch.shape[1] >= len(ids):
            same = (batch[:, : len(ids)] == torch.from_numpy(ids)).all(1) & ((batch != 0).sum(1) == len(ids))
            output.logits[same] = torch.nan
        return output

    own.model.register_forward_hook(spoil, with_kwargs=True)
    build(job, tmp_path / "c", on_nonfinite="skip")
    cache = open_cache(tmp_path / "c")
    skipped = cache.skipped(["logits"]).tolist()
    assert 17 in skipped
    report = report_of(teacher, cache, Question(num_rows=40))
    assert report.ok
    assert (report.num_rows, report.num_skipped) == (40 - len(skipped), len(skipped))
    hidden = report_of(teacher, cache, Question(("hidden",), 40))
    assert (hidden.num_rows, hidden.num_skipped, hidden.ok) == (40, 0, True)


def test_a_part_of_a_cache_is_audited_by_the_rows_of_the_whole(built: Any, teacher: Teacher, tmp_path: Path) -> None:
    """Positions drawn at random go by the row of the data set."""
    whole = built("1l_4t", length__score="random")
    part = whole.manifest.subset(["hidden"], range(3, 6))
    for record in part.records:
        (tmp_path / "p" / record.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(whole.root / record.path, tmp_path / "p" / record.path)
    shutil.copytree(whole.tokenizer_path, tmp_path / "p" / "tokenizer")
    write_index(tmp_path / "p", part)
    write_manifest(tmp_path / "p", part)
    report = report_of(teacher, open_cache(tmp_path / "p"), Question(num_rows=40))
    assert report.ok
    assert report.num_rows == 12
    assert [one.field for one in report.layers] == ["hidden"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_teacher_of_sixteen_bits_is_loaded_as_it_was_and_found_out_as_well(
    job_of: Any, tiny_teacher_dir: Path, other_dir: Path, tmp_path: Path, dtype: Any
) -> None:
    build(
        job_of("1l_4t_0.25h", by=load_teacher(str(tiny_teacher_dir), "cpu", dtype), compute_dtype=dtype), tmp_path / "c"
    )
    cache = open_cache(tmp_path / "c")
    assert compute_dtype(cache) == dtype
    report = report_of(load_teacher(str(tiny_teacher_dir), "cpu", dtype), cache)
    assert report.ok
    assert report.tolerance == TOLERANCES[dtype]
    wrong = report_of(load_teacher(str(other_dir), "cpu", dtype), cache)
    assert layer_of(wrong, "hidden", 4).num_bad_rows > 0


def test_only_the_shards_of_the_drawn_rows_are_read(built: Any, teacher: Teacher) -> None:
    cache = built("1l_4t")
    prepared = prepare_audit(teacher, cache, Question(num_rows=1, seed=5))
    needed = int(prepared.drawn[0]) // 4
    ledger = Ledger(cache.root)
    for name in cache.fields:
        for shard in set(range(10)) - {needed}:
            shard_file(ledger.root, name, shard).unlink()
    seen: list[int] = []
    assert audit(prepared, seen.append).ok
    assert sum(seen) == prepared.work_rows == 1
    shard_file(ledger.root, "hidden", needed).unlink()
    with pytest.raises(DamageError, match=f"hidden shard {needed}: .* is missing"):
        audit(prepare_audit(teacher, cache, Question(num_rows=1, seed=5)))
