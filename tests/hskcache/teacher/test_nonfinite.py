"""A value that cannot be used for training is refused by the row and the field it belongs to."""

from pathlib import Path
from typing import Any

import pytest
import torch

from hskcache.errors import TeacherError
from hskcache.store.ledger import Ledger
from hskcache.teacher.build import build
from hskcache.teacher.job import Job
from hskcache.teacher.load import Teacher, load_teacher

ROW = 22


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


@pytest.mark.parametrize("encoding", ["float32", "float16", "bfloat16", "int8", "int4"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
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
