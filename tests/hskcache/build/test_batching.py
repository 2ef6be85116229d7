"""Every way of making batches takes each row once within the budget; the newest costs as little as any cut can."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hskcache.build.batching import (
    GROUP_BATCHES,
    NEWEST,
    WAYS,
    AcrossShards,
    AttentionCounted,
    Batching,
    LeastPadding,
    ShardByShard,
    way_of,
)
from hskcache.build.layout import ShardLayout
from hskcache.errors import MismatchError
from hskcache.inference import least_padded_batches, length_batches

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=60)
EVERY = [(way, device) for way in WAYS.values() for device in ("cpu", "cuda")]


def batching(way: type[Batching], lengths: list[int], shard_rows: int, budget: int, device: str = "cpu") -> Batching:
    return way(ShardLayout(np.array(lengths), {}, {}, shard_rows), budget, device)


def tokens(lengths: list[int], batches: list[Any]) -> int:
    return sum(len(batch) * max(lengths[row] for row in batch) for batch in batches)


@pytest.mark.parametrize(("way", "device"), EVERY)
@given(lengths=LENGTHS, shard_rows=st.integers(1, 60), budget=st.integers(1, 300))
def test_every_row_is_in_one_batch_of_its_group_within_the_budget(
    way: type[Batching], device: str, lengths: list[int], shard_rows: int, budget: int
) -> None:
    made = batching(way, lengths, shard_rows, budget, device)
    shards = made.layout.shards
    assert [row for start, stop in shards for row in range(start, stop)] == list(range(len(lengths)))
    assert [shard for group in made.groups for shard in group] == list(range(len(shards)))
    for group in made.groups:
        start, stop = shards[group[0]][0], shards[group[-1]][1]
        batches = [batch.tolist() for batch in made.batches(start, stop)]
        assert sorted(row for batch in batches for row in batch) == list(range(start, stop))
        longest = [max(lengths[row] for row in batch) for batch in batches]
        assert longest == sorted(longest, reverse=True)
        for batch, most in zip(batches, longest, strict=True):
            assert len(batch) == 1 or len(batch) * most <= budget


@pytest.mark.parametrize(("way", "device"), EVERY)
@given(lengths=st.lists(st.integers(1, 60), min_size=9, max_size=30), budget=st.integers(1, 300))
def test_batches_of_a_shard_depend_on_that_shard_alone(
    way: type[Batching], device: str, lengths: list[int], budget: int
) -> None:
    found = [batch.tolist() for batch in batching(way, lengths, 4, budget, device).batches(4, 8)]
    shard = batching(way, lengths[4:8], 4, budget, device)
    assert found == [(batch + 4).tolist() for batch in shard.batches(0, 4)]


@given(lengths=LENGTHS, shard_rows=st.integers(1, 20), budget=st.integers(1, 300))
def test_small_shards_are_grouped_until_their_batches_are_full(
    lengths: list[int], shard_rows: int, budget: int
) -> None:
    made = batching(AcrossShards, lengths, shard_rows, budget)
    shards = made.layout.shards

    def num_batches(first: int, last: int) -> int:
        return len(list(made.batches(shards[first][0], shards[last][1])))

    for group in made.groups:
        assert len(group) == 1 or num_batches(group[0], group[-1]) <= GROUP_BATCHES
        if group.stop < len(shards):
            assert num_batches(group[0], group.stop) > GROUP_BATCHES


@given(lengths=LENGTHS, shard_rows=st.integers(1, 20), budget=st.integers(1, 300))
def test_small_shards_are_grouped_until_they_have_the_tokens_of_full_batches(
    lengths: list[int], shard_rows: int, budget: int
) -> None:
    made = batching(LeastPadding, lengths, shard_rows, budget)
    shards = made.layout.shards

    def num_tokens(first: int, last: int) -> int:
        return sum(min(length, budget) for length in lengths[shards[first][0] : shards[last][1]])

    for group in made.groups:
        assert len(group) == 1 or num_tokens(group[0], group[-1]) <= GROUP_BATCHES * budget
        if group.stop < len(shards):
            assert num_tokens(group[0], group.stop) > GROUP_BATCHES * budget
    assert [len(group) for group in batching(ShardByShard, lengths, shard_rows, budget).groups] == [1] * len(shards)


def cuts(lengths: list[int], budget: int) -> Iterator[list[list[int]]]:
    """All ways to cut rows, longest first, into batches that the budget admits, as the lengths of their rows."""
    if not lengths:
        yield []
    for size in range(1, len(lengths) + 1):
        if size == 1 or size * lengths[0] <= budget:
            for rest in cuts(lengths[size:], budget):
                yield [lengths[:size], *rest]


@pytest.mark.parametrize(("device", "beside"), [("cpu", 64), ("cuda", None)])
@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=9), budget=st.integers(1, 300))
def test_no_cut_of_the_rows_by_length_costs_less(
    device: str, beside: int | None, lengths: list[int], budget: int
) -> None:
    """A batch costs its padded tokens and so many beside: those of a full batch where the device is idle otherwise."""
    each = budget if beside is None else min(beside, budget)
    batches = [batch.tolist() for batch in least_padded_batches(np.array(lengths), budget, device)]
    least = min(
        sum(len(batch) * batch[0] + each for batch in cut) for cut in cuts(sorted(lengths, reverse=True), budget)
    )
    assert tokens(lengths, batches) + each * len(batches) == least


def test_rows_of_many_lengths_are_hardly_padded_on_the_cpu_and_batches_elsewhere_are_no_more_than_before() -> None:
    lengths = np.random.default_rng(0).integers(5, 50, 256)
    text, full = int(lengths.sum()), list(length_batches(lengths, 4096))
    on_cpu, elsewhere = (list(least_padded_batches(lengths, 4096, device)) for device in ("cpu", "cuda"))
    assert tokens(lengths.tolist(), on_cpu) < 1.1 * text < 1.2 * text < tokens(lengths.tolist(), full)
    assert len(elsewhere) == len(full)
    assert tokens(lengths.tolist(), elsewhere) < tokens(lengths.tolist(), full)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@given(lengths=st.lists(st.integers(1, 512), min_size=1, max_size=40), budget=st.integers(1, 5000))
def test_rows_of_512_tokens_are_batched_as_before_they_were_counted_by_attention(
    device: str, lengths: list[int], budget: int
) -> None:
    now, then = (batching(way, lengths, 8, budget, device) for way in (NEWEST, LeastPadding))
    assert now.groups == then.groups
    found, expected = ([batch.tolist() for batch in one.batches(0, len(lengths))] for one in (now, then))
    assert found == expected


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@given(lengths=st.lists(st.integers(1, 9000), min_size=1, max_size=40), budget=st.integers(1, 20000))
def test_attention_of_a_batch_is_no_more_than_that_of_its_budget_in_rows_of_512(
    device: str, lengths: list[int], budget: int
) -> None:
    made = batching(AttentionCounted, lengths, 8, budget, device)
    seen = []
    for batch in made.batches(0, len(lengths)):
        longest = max(lengths[row] for row in batch)
        assert len(batch) == 1 or (len(batch) * longest**2 <= 512 * budget and len(batch) * longest <= budget)
        seen += [lengths[row] for row in batch]
    assert seen == sorted(lengths, reverse=True)


def test_a_way_that_is_not_known_is_told() -> None:
    assert [way_of({} if name is None else {"batches": name}, "c") for name in WAYS] == list(WAYS.values())
    with pytest.raises(MismatchError, match="c in batches of the kind 'by colour'"):
        way_of({"batches": "by colour"}, "c")
