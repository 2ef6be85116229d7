"""The order of training: what it promises for any sizes of shards, batches and windows."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from trainer.loading.plan import VERSIONS, Plan

SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=12)


def plan_of(sizes: list[int], batch_size: int, window_shards: int = 4, seed: int = 0, pool_batches: int = 50) -> Plan:
    stops = np.cumsum(sizes).tolist()
    shards = tuple(zip([0, *stops[:-1]], stops, strict=True))
    return Plan(shards, batch_size, seed, window_shards, pool_batches)


def lengths_of(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Any function of the row will do for a length."""
    return rows * 7919 % 23 + 1


def epoch_of(plan: Plan, epoch: int = 0) -> list[list[int]]:
    return [
        batch.tolist()
        for window in plan.windows(epoch)
        for batch in plan.batches(epoch, window, lengths_of(window.rows))
    ]


@given(SIZES, st.integers(1, 20), st.integers(1, 6), st.integers(1, 4), st.integers(0, 3))
def test_an_epoch_has_every_row_once_in_batches_of_at_most_the_size(
    sizes: list[int], batch_size: int, window_shards: int, pool_batches: int, epoch: int
) -> None:
    plan = plan_of(sizes, batch_size, window_shards, pool_batches=pool_batches)
    batches = epoch_of(plan, epoch)
    assert sorted(row for batch in batches for row in batch) == list(range(sum(sizes)))
    assert len(batches) == plan.num_batches
    assert all(1 <= len(batch) <= batch_size for batch in batches)


@given(SIZES, st.integers(1, 20), st.integers(1, 6))
def test_a_window_gives_its_shards_and_what_was_carried_but_what_it_carries_on(
    sizes: list[int], batch_size: int, window_shards: int
) -> None:
    plan = plan_of(sizes, batch_size, window_shards)
    windows = list(plan.windows(0))
    assert sorted(shard for window in windows for shard in window.shards) == list(range(len(sizes)))
    for window, following in zip(windows, [*windows[1:], None], strict=True):
        assert min(window_shards, len(sizes)) <= len(window.shards) < 2 * max(window_shards, len(sizes) % window_shards)
        rows = {row for shard in window.shards for row in range(*plan.shards[shard])} | set(window.carried.tolist())
        carried = set() if following is None else set(following.carried.tolist())
        assert rows == set(window.rows.tolist()) | carried
        assert len(carried) < batch_size


@given(SIZES, st.integers(1, 20), st.integers(1, 6), st.integers(0, 3))
def test_only_the_last_window_has_batches_that_are_not_full(
    sizes: list[int], batch_size: int, window_shards: int, epoch: int
) -> None:
    plan = plan_of(sizes, batch_size, window_shards)
    *early, last = plan.windows(epoch)
    for window in early:
        assert {len(batch) for batch in plan.batches(epoch, window, lengths_of(window.rows))} <= {batch_size}
    lengths = [len(batch) for batch in plan.batches(epoch, last, lengths_of(last.rows))]
    assert max(lengths) - min(lengths) <= 1, "no batch of one row beside full ones"


@given(SIZES, st.integers(1, 40), st.integers(1, 6), st.sampled_from(VERSIONS), st.sets(st.integers(0, 20)), st.data())
def test_an_epoch_that_begins_later_goes_on_as_the_whole_one(
    sizes: list[int], batch_size: int, window_shards: int, version: int, skipped: set[int], data: st.DataObject
) -> None:
    plan = replace(plan_of(sizes, batch_size, window_shards), version=version, skipped=tuple(sorted(skipped)))
    plan = replace(plan, skipped=tuple(row for row in plan.skipped if row < sum(sizes)))
    whole = list(plan.windows(1))
    skip = data.draw(st.integers(0, plan.num_batches))
    done = np.cumsum([plan.count(window) for window in whole]).tolist()
    expected = [(window, end) for window, end in zip(whole, done, strict=True) if end > skip or not skip]
    for window, (other, end) in zip(plan.windows(1, skip), expected, strict=True):
        assert (window.index, window.shards) == (other.index, other.shards)
        assert window.first_batch == end - plan.count(other)
        assert window.carried.tolist() == other.carried.tolist()
        assert window.rows.tolist() == other.rows.tolist()


def test_seeds_and_epochs_have_orders_of_their_own_and_each_has_one() -> None:
    orders = [epoch_of(plan_of([8] * 6, 8, 2, seed), epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert orders == [epoch_of(plan_of([8] * 6, 8, 2, seed), epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert len({str(order) for order in orders}) == 4


def test_the_order_of_a_seed_never_changes() -> None:
    """A run that was cut off before an upgrade goes on after it."""
    plan = plan_of([3, 4, 5, 2], 4, window_shards=2, seed=5)
    orders = {
        1: [[0, 10, 7, 1], [11, 8, 2, 9], [6, 3, 13], [4, 5, 12]],
        2: [[4, 12, 6, 3], [5, 2, 9, 13], [1, 11, 8], [0, 10, 7]],
    }
    assert {version: epoch_of(replace(plan, version=version), epoch=1) for version in VERSIONS} == orders
    assert plan.version == 2


def test_rows_of_a_batch_are_of_similar_length() -> None:
    plan = plan_of([50] * 8, 16)
    padded = sum(len(batch) * lengths_of(np.array(batch)).max() for batch in epoch_of(plan))
    real = lengths_of(np.arange(400)).sum()
    assert padded < 1.1 * real
    shuffled = np.random.default_rng(0).permutation(400).reshape(-1, 16)
    assert sum(16 * lengths_of(rows).max() for rows in shuffled) > 1.6 * real, "or the test shows nothing"
