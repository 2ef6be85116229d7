"""Rows that a field left out are in no epoch; without any the order is what it was."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hskcache.cache import open_cache
from hskcache.errors import MismatchError
from hskcache.store.ledger import Ledger
from hskcache.store.publishing import publish
from hskcache.store.record import Skipped
from trainer.loading import KnowledgeLoader
from trainer.loading.plan import Plan

SHARDS = tuple((start, min(start + 7, 59)) for start in range(0, 59, 7))


def epoch_of(plan: Plan, epoch: int) -> list[list[int]]:
    """Rows of every global batch; each row's length is told by its number."""
    return [
        batch.tolist() for window in plan.windows(epoch) for batch in plan.batches(epoch, window, window.rows * 31 % 17)
    ]


@given(skipped=st.sets(st.integers(0, 58), max_size=58), batch_size=st.integers(1, 20), epoch=st.integers(0, 3))
def test_an_epoch_has_every_other_row_once_in_as_many_batches_as_it_says(
    skipped: set[int], batch_size: int, epoch: int
) -> None:
    plan = Plan(SHARDS, batch_size, window_shards=2, pool_batches=3, skipped=tuple(sorted(skipped)))
    batches = epoch_of(plan, epoch)
    assert sorted(row for batch in batches for row in batch) == sorted(set(range(59)) - skipped)
    assert plan.num_rows == 59 - len(skipped)
    assert len(batches) == plan.num_batches
    assert max(map(len, batches)) <= batch_size


def test_without_any_the_order_is_the_one_it_always_was() -> None:
    """Written down from the order of the version before rows could be left out."""
    plan = Plan(((0, 5), (5, 10), (10, 12)), batch_size=4, seed=3, window_shards=1, version=1)
    assert epoch_of(plan, 0) == [[5, 9, 8, 6], [0, 11, 10, 4], [3, 2, 7, 1]]


def as_skipping(source: Path, target: Path, left_out: dict[str, list[int]]) -> Path:
    """A copy of a cache whose manifest lists rows of some fields as left out."""
    shutil.copytree(source, target)
    manifest = Ledger(target).intact()
    shards = {}
    for field, records in manifest.shards.items():
        shards[field] = [
            record.model_copy(
                update={
                    "skipped": [
                        Skipped(row=row, reason="nonfinite")
                        for row in left_out.get(field, [])
                        if record.start <= row < record.stop
                    ]
                }
            )
            for record in records
        ]
    grown = manifest.with_records(shards).signed()
    publish(target, grown)
    return target


def rows_seen(path: Path, epochs: int = 2, **changes: Any) -> list[tuple[int, ...]]:
    loader = KnowledgeLoader(open_cache(path), **{"batch_size": 5, "window_shards": 2} | changes)
    return [batch.row_ids for _ in range(epochs) for batch in loader]


@pytest.fixture(scope="module")
def skipping(cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return as_skipping(cache_dir, tmp_path_factory.mktemp("skipping") / "c", {"hidden": [3, 17], "logits": [17, 20]})


@pytest.mark.parametrize(
    ("fields", "left_out"), [(None, {3, 17, 20}), (("logits",), {17, 20}), (("hidden",), {3, 17}), ((), set())]
)
def test_rows_are_left_out_that_a_loaded_field_has_not(
    skipping: Path, fields: tuple[str, ...] | None, left_out: set[int]
) -> None:
    total = open_cache(skipping).num_rows
    seen = rows_seen(skipping, epochs=1, fields=fields)
    assert sorted(row for batch in seen for row in batch) == sorted(set(range(total)) - left_out)


def test_of_the_first_rows_those_are_left_out_too(skipping: Path) -> None:
    seen = rows_seen(skipping, epochs=1, num_rows=18)
    assert sorted(row for batch in seen for row in batch) == sorted(set(range(18)) - {3, 17})


def test_every_residency_and_number_of_processes_gives_the_same_batches(skipping: Path) -> None:
    expected = rows_seen(skipping, residency="host", batch_size=6)
    assert rows_seen(skipping, residency="stream", batch_size=6) == expected
    ranks = [rows_seen(skipping, residency="stream", batch_size=3, rank=rank, world_size=2) for rank in range(2)]
    assert [sorted(one + two) for one, two in zip(*ranks, strict=True)] == [sorted(batch) for batch in expected]


def test_an_epoch_resumes_exactly_where_it_stopped(skipping: Path) -> None:
    expected = rows_seen(skipping)
    loader = KnowledgeLoader(open_cache(skipping), batch_size=5, window_shards=2, residency="stream")
    iterator = iter(loader)
    first = [next(iterator).row_ids for _ in range(2)]
    again = KnowledgeLoader(open_cache(skipping), batch_size=5, window_shards=2, residency="stream")
    again.load_state_dict(loader.state_dict())
    assert first + [batch.row_ids for _ in range(2) for batch in again] == expected


def test_a_cache_of_which_every_row_is_left_out_is_refused(cache_dir: Path, tmp_path: Path) -> None:
    total = open_cache(cache_dir).num_rows
    out = as_skipping(cache_dir, tmp_path / "c", {"hidden": list(range(total))})
    with pytest.raises(MismatchError, match=rf"no rows to train on: all {total} were left out of a field"):
        KnowledgeLoader(open_cache(out))
    assert len(KnowledgeLoader(open_cache(out), batch_size=total, fields=("logits",))) == 1


def test_what_was_left_out_is_part_of_the_identity(skipping: Path, cache_dir: Path) -> None:
    assert KnowledgeLoader(open_cache(skipping)).identity != KnowledgeLoader(open_cache(cache_dir)).identity
    state = KnowledgeLoader(open_cache(cache_dir)).state_dict()
    with pytest.raises(MismatchError, match="identity"):
        KnowledgeLoader(open_cache(skipping)).load_state_dict(state)


def test_a_shard_whose_rows_are_all_left_out_is_no_trouble(cache_dir: Path, tmp_path: Path) -> None:
    start, stop = open_cache(cache_dir).shards[1]
    out = as_skipping(cache_dir, tmp_path / "c", {"logits": list(range(start, stop))})
    total = open_cache(out).num_rows
    expected = sorted(set(range(total)) - set(range(start, stop)))
    for residency in ("host", "stream"):
        seen = rows_seen(out, epochs=1, residency=residency, window_shards=1, batch_size=2)
        assert sorted(np.concatenate(seen).tolist()) == expected
