"""Rows that follow others in a cache are written as if they had been there from the start."""

from pathlib import Path
from typing import Any

import pytest
import torch
from rows_like import with_content
from stored import shard_file

from hskcache.build.job import Job
from hskcache.build.writing import Writing
from hskcache.store.ledger import Ledger
from hskcache.store.reading import read_shard
from hskcache.teacher.load import load_teacher
from hskcache.text import Examples

FIRST = (4, 20)


def written(job: Job, root: Path, **given: Any) -> tuple[list[int], Ledger]:
    """Write the fields of a job and nothing else; what was reported."""
    reported: list[int] = []
    ledger = Ledger(root)
    Writing(job, ledger, {name: name for name in job.fields}, **given).write(reported.append)
    return reported, ledger


@pytest.fixture(scope="module")
def later(examples: Examples) -> Examples:
    """The rows from the twentieth on."""
    assert examples.labels is not None
    return with_content(examples, texts=examples.texts[FIRST[1] :], labels=examples.labels[FIRST[1] :])


@pytest.mark.parametrize("score", ["random", "attention"])
def test_shards_and_rows_are_numbered_from_where_they_follow_on(
    job_of: Any, later: Examples, tmp_path: Path, score: str
) -> None:
    given = {"shard_rows": 5, "length__score": score}
    job, part = job_of("1l_3t_0.5h", **given), job_of("1l_3t_0.5h", rows=later, **given)
    _, whole = written(job, tmp_path / "whole")
    reported, ledger = written(part, tmp_path / "part", first=FIRST)
    assert sum(reported) == 20
    for name, field in job.fields.items():
        for shard in range(4, 8):
            record = ledger.record(name, shard)
            assert (record.start, record.stop) == (shard * 5, shard * 5 + 5)
            assert record == whole.record(name, shard)
            read_shard(shard_file(ledger.root, name, shard), record, field)
        assert not ledger.is_committed(name, 0)


def test_what_is_written_is_not_written_again_and_what_is_lost_is(job_of: Any, later: Examples, tmp_path: Path) -> None:
    job = job_of("none", rows=later, shard_rows=5)
    _, ledger = written(job, tmp_path / "c", first=FIRST)
    before = {path: path.stat().st_ino for path in (tmp_path / "c").rglob("*.json")}
    ledger.record_path("inputs", 6).unlink()
    reported, _ = written(job, tmp_path / "c", first=FIRST)
    assert reported == [5] * 4
    changed = {path for path, inode in before.items() if path.stat().st_ino != inode}
    assert changed <= {ledger.record_path("inputs", 6)}


def test_rows_left_out_are_numbered_as_rows_of_the_cache(
    job_of: Any, later: Examples, tiny_teacher_dir: Path, tmp_path: Path
) -> None:
    """The classifier fails wherever a row is one of the longest of its shard; which those are the layout tells."""
    own = load_teacher(str(tiny_teacher_dir), "cpu")
    job = job_of("none", rows=later, by=own, shard_rows=5, token_budget=1)
    longest = [start + int(job.layout.lengths_N[start : start + 5].argmax()) for start in range(0, 20, 5)]
    batches = 0

    def spoil(_module: Any, _inputs: Any, logits: torch.Tensor) -> torch.Tensor:
        nonlocal batches
        batches += 1
        # Rows come one by one, and those of a shard from the longest on.
        return logits * float("nan") if batches % 5 == 1 else logits

    own.model.classifier.register_forward_hook(spoil)
    _, ledger = written(job, tmp_path / "c", first=FIRST, on_nonfinite="skip")
    records = [ledger.record("logits", shard) for shard in range(4, 8)]
    assert [one.row for record in records for one in record.skipped] == [FIRST[1] + row for row in longest]
    assert [record.num_nonfinite for record in records] == [2] * 4
