"""A value that cannot be used for training is refused by the row and the field it belongs to, or its row left out."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from folders import contents

from hskcache.build.addition import add_field, prepare_addition
from hskcache.build.build import build
from hskcache.build.job import Job
from hskcache.build.nonfinite import refuse
from hskcache.cache import AttentionField, HiddenField, open_cache
from hskcache.encoding import get_encoding
from hskcache.errors import TeacherError
from hskcache.spec import Attention, Depth, Length
from hskcache.store.ledger import Ledger
from hskcache.teacher.load import Teacher, load_teacher
from hskcache.verify import verify

ROW = 22
# Every encoding meets NaN; infinities, which take the same way, one of the floats and one of the integers.
SPOILT = [(encoding, float("nan")) for encoding in ("float32", "float16", "bfloat16", "int8", "int4")]
SPOILT += [("float16", float("inf")), ("int8", float("-inf"))]


@pytest.fixture
def own(tiny_teacher_dir: Path) -> Teacher:
    """A teacher that a test may spoil."""
    return load_teacher(str(tiny_teacher_dir), "cpu")


def spoil(job: Job, row: int, layer: int, value: float) -> None:
    """Make one value of a layer's output for one row ``value``, whatever batch the row is in."""
    ids = torch.from_numpy(job.rows.input_ids[job.rows.offsets[row] : job.rows.offsets[row + 1]]).long()
    seen: dict[str, torch.Tensor] = {}

    def look(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        seen["ids"] = kwargs["input_ids"]

    def change(_module: Any, _args: Any, output: torch.Tensor) -> torch.Tensor:
        batch = seen["ids"]
        if batch.shape[1] < len(ids):
            return output
        same = (batch[:, : len(ids)] == ids).all(1) & ((batch != 0).sum(1) == len(ids))
        output = output.clone()
        output[same, 0, 5] = value
        return output

    job.teacher.model.register_forward_pre_hook(look, with_kwargs=True)
    job.teacher.model.bert.encoder.layer[layer - 1].register_forward_hook(change)


@pytest.mark.parametrize(("encoding", "value"), SPOILT)
def test_the_row_of_the_data_and_the_layer_are_named(
    own: Teacher, job_of: Any, tmp_path: Path, encoding: str, value: float
) -> None:
    job = job_of("2l_3t_0.5h", by=own, encoding=encoding, length__score="left")
    spoil(job, ROW, 2, value)
    with pytest.raises(TeacherError, match=rf"train\.tsv row {ROW}, counted from 0: hidden layer 2 "):
        build(job, tmp_path / "c")
    ledger = Ledger(tmp_path / "c")
    assert all(ledger.is_committed("hidden", shard) for shard in range(ROW // 4))
    assert not ledger.is_committed("hidden", ROW // 4)


def test_bad_logits_are_named_where_nothing_else_is_kept(own: Teacher, job_of: Any, tmp_path: Path) -> None:
    job = job_of("none", by=own)
    spoil(job, ROW, 4, float("nan"))
    with pytest.raises(TeacherError, match=rf"row {ROW}, counted from 0: the logits "):
        build(job, tmp_path / "c")


def test_float16_that_overflows_is_refused_where_bfloat16_holds(own: Teacher, job_of: Any, tmp_path: Path) -> None:
    job = job_of("1l_3t_0.5h", by=own, encoding="float16", length__score="left")
    spoil(job, ROW, 4, 1e6)
    with pytest.raises(TeacherError, match=r"hidden layer 4 .*--encoding bfloat16"):
        build(job, tmp_path / "c")
    build(job_of("1l_3t_0.5h", by=own, encoding="bfloat16", length__score="left"), tmp_path / "d")


def test_what_is_not_kept_may_be_anything(own: Teacher, job_of: Any, tmp_path: Path) -> None:
    """Layer 2 is not finite in a column that is not stored, and no later layer sees it."""
    job = job_of("2l_3t_0.25h", by=own, width__scheme="uniform", length__score="left")
    layer = own.model.bert.encoder.layer[1]
    layer.register_forward_hook(lambda _m, _a, out: out.index_fill(2, torch.tensor([5]), float("inf")))
    own.model.bert.encoder.layer[2].register_forward_pre_hook(lambda _m, args: (args[0].nan_to_num(0, 0, 0), *args[1:]))
    build(job, tmp_path / "c")


def test_rows_are_counted_over_the_fields_that_are_stored_and_the_first_is_named() -> None:
    counts = [np.array([0, 0, 1, 0, 2]), np.array([0, 5, 0, 0, 1]), np.array([1, 0, 0, 0, 0])]
    nonfinite = {"hidden": {"hidden layer 2": counts[0]}, "logits": {"the logits": counts[1]}}
    nonfinite["attention"] = {"attention layer 1": counts[2]}
    with pytest.raises(TeacherError, match=r"d row 41, counted from 0: the logits .* as in 2 more rows of its shard"):
        refuse("d", 40, nonfinite, ("inputs", "hidden", "logits"))
    with pytest.raises(TeacherError, match=r"d row 42, counted from 0: hidden layer 2 .* as in 1 more row of"):
        refuse("d", 40, nonfinite, ("hidden",))
    refuse("d", 40, nonfinite, ("inputs",))


def with_attention(job_of: Any, own: Teacher, encoding: Any) -> Job:
    """Every kind of field, each in the same encoding."""
    attention = Attention(depth=Depth(student_layers=2), length=Length(tokens=3, score="left"), encoding=encoding)
    return job_of("2l_3t_0.5h", by=own, encoding=encoding, length__score="left", attention=attention)


@pytest.mark.parametrize(("encoding", "value"), SPOILT)
def test_a_row_is_left_out_of_the_fields_that_have_such_values_and_all_others_are_as_without_it(
    own: Teacher, tiny_teacher_dir: Path, job_of: Any, tmp_path: Path, encoding: str, value: float
) -> None:
    """The fourth layer is spoilt for one row, whose attention is therefore finite and stays.

    So do its logits after an infinity, of which the tanh before the classifier makes a one.
    """
    build(with_attention(job_of, load_teacher(str(tiny_teacher_dir)), encoding), tmp_path / "sound")
    job = with_attention(job_of, own, encoding)
    spoil(job, ROW, 4, value)
    manifest = build(job, tmp_path / "c", on_nonfinite="skip")
    cache, sound = open_cache(tmp_path / "c"), open_cache(tmp_path / "sound")
    left_out = {
        name: [one.row for record in records for one in record.skipped] for name, records in manifest.shards.items()
    }
    of_logits = [ROW] if np.isnan(value) else []
    assert left_out == {"inputs": [], "hidden": [ROW], "attention": [], "logits": of_logits}
    assert cache.skipped(["hidden", "inputs"]).tolist() == [ROW]
    assert {one.reason for record in manifest.records for one in record.skipped} == {"nonfinite"}
    counts = {name: sum(record.num_nonfinite for record in records) for name, records in manifest.shards.items()}
    assert counts["hidden"] >= 1
    assert counts["logits"] == 2 * len(of_logits)
    assert counts["inputs"] == counts["attention"] == 0
    assert verify(tmp_path / "c").ok
    for row in range(cache.num_rows):
        ours, theirs = cache.row(row), sound.row(row)
        if row != ROW:
            np.testing.assert_equal(ours, theirs)
            continue
        assert ours["input_ids"].tolist() == theirs["input_ids"].tolist()
        np.testing.assert_equal(ours["attention"], theirs["attention"])
        assert ours["logits"].any() == (not of_logits)
        for arrays in ours["hidden"].values():
            stored = {name: torch.from_numpy(arrays[name]) for name in ("values", "scales") if name in arrays}
            assert not get_encoding(encoding).decode(stored, sound.fields["hidden"].num_columns).any()  # type: ignore[union-attr]


def test_attention_scores_are_left_out_too(own: Teacher, job_of: Any, tmp_path: Path) -> None:
    """What the first layer spoils, the scores of the layers above it are made of."""
    job = with_attention(job_of, own, "int8")
    spoil(job, ROW, 1, float("nan"))
    build(job, tmp_path / "c", on_nonfinite="skip")
    cache = open_cache(tmp_path / "c")
    assert cache.skipped(["attention"]).tolist() == [ROW]
    assert isinstance(cache.fields["attention"], AttentionField)
    assert isinstance(cache.fields["hidden"], HiddenField)
    for arrays in cache.row(ROW)["attention"].values():
        assert not arrays["values"].any()
        assert not arrays["scales"].any()
    assert all(arrays["values"].any() for arrays in cache.row(ROW + 1)["attention"].values())
    assert verify(tmp_path / "c").ok


def test_a_build_that_failed_can_go_on_with_rows_left_out_and_ends_with_the_same_bytes(
    own: Teacher, job_of: Any, tmp_path: Path
) -> None:
    job = job_of("2l_3t_0.5h", by=own, length__score="left")
    spoil(job, ROW, 2, float("nan"))
    with pytest.raises(TeacherError, match="--on-nonfinite skip"):
        build(job, tmp_path / "c")
    build(job, tmp_path / "c", on_nonfinite="skip")
    build(job, tmp_path / "at-once", on_nonfinite="skip")
    assert contents(tmp_path / "c") == contents(tmp_path / "at-once")


def test_a_build_that_is_to_fail_does_not_take_what_another_left_out(own: Teacher, job_of: Any, tmp_path: Path) -> None:
    job = job_of("none", by=own)
    spoil(job, ROW, 4, float("nan"))
    manifest = build(job, tmp_path / "c", on_nonfinite="skip")
    unfinished = Path(shutil.copytree(tmp_path / "c", tmp_path / "d"))
    (unfinished / "manifest.json").rename(tmp_path / "manifest.json")
    (unfinished / "building.json").write_text(job.request.model_dump_json())
    with pytest.raises(TeacherError, match=rf"row {ROW}, counted from 0: the logits "):
        build(job, unfinished)
    assert build(job, unfinished, on_nonfinite="skip") == manifest
    # A complete cache says itself what it lacks.
    assert build(job, tmp_path / "c") == manifest


def test_a_build_that_would_leave_out_every_row_is_refused(own: Teacher, job_of: Any, tmp_path: Path) -> None:
    job = job_of("none", by=own)
    own.model.classifier.register_forward_hook(lambda _m, _a, out: out * float("nan"))
    with pytest.raises(TeacherError, match=r"train\.tsv: every row has values that are not finite"):
        build(job, tmp_path / "c", on_nonfinite="skip")
    assert not (tmp_path / "c" / "manifest.json").exists()


def test_an_added_field_fails_or_leaves_rows_out_likewise(own: Teacher, job_of: Any, tmp_path: Path) -> None:
    job = job_of("none")
    build(job, tmp_path / "c")
    spoil(job_of("none", by=own), ROW, 4, float("nan"))
    addition = prepare_addition(own, open_cache(tmp_path / "c"), "logits", "t2")
    with pytest.raises(TeacherError, match=rf"row {ROW}, counted from 0: the logits "):
        add_field(addition)
    add_field(addition, on_nonfinite="skip")
    cache = open_cache(tmp_path / "c")
    assert cache.skipped(["t2"]).tolist() == [ROW]
    assert cache.skipped(["logits"]).tolist() == []
    assert not cache.row(ROW)["added"]["t2"].any()
    assert verify(tmp_path / "c").ok
