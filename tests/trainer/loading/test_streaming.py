"""What reading ahead must not do: hide damage, leave threads behind, or fill the memory."""

import gc
import shutil
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stored import shard_file

from hskcache.cache import Cache, open_cache
from hskcache.errors import DamageError
from trainer.loading import KnowledgeLoader
from trainer.loading.block import Block
from trainer.loading.reader import Reader
from trainer.loading.residency import streamed_windows

RESIDENCIES = ("device", "host", "stream")


@pytest.fixture
def damaged(caches: Callable[[str], Cache], tmp_path: Path) -> Cache:
    """A copy in which one byte of a shard of the hidden states is another; opening it does not show it."""
    folder = tmp_path / "damaged.hsk"
    shutil.copytree(caches("bitmask").root, folder)
    path = shard_file(folder, "hidden", 7)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return open_cache(folder)


@pytest.mark.parametrize("residency", RESIDENCIES)
@pytest.mark.parametrize("prefetch", [0, 2])
def test_damage_reaches_the_consumer_and_no_batch_has_a_damaged_row(
    residency: Any, prefetch: int, damaged: Cache
) -> None:
    loader = KnowledgeLoader(damaged, residency=residency, prefetch=prefetch, batch_size=8)
    seen: list[int] = []

    def consume() -> None:
        for batch in loader:
            seen.extend(batch.row_ids)

    with pytest.raises(DamageError, match=r"hidden shard 7: .*000007-\w+\.zarr\.zip"):
        consume()
    assert not set(seen) & set(range(56, 64))
    assert threads() == []


def test_damage_of_what_all_rows_share_reaches_the_consumer(caches: Callable[[str], Cache], tmp_path: Path) -> None:
    folder = tmp_path / "damaged.hsk"
    shutil.copytree(caches("pca").root, folder)
    shard_file(folder, "hidden", -1).write_bytes(b"")
    with pytest.raises(DamageError, match="constants"):
        next(iter(KnowledgeLoader(open_cache(folder))))
    assert threads() == []


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("hskcache")]


@pytest.mark.parametrize("residency", RESIDENCIES)
@pytest.mark.parametrize("prefetch", [0, 1, 4])
def test_an_abandoned_epoch_leaves_no_thread_and_goes_on(
    residency: Any, prefetch: int, caches: Callable[[str], Cache]
) -> None:
    loader = KnowledgeLoader(caches("bitmask"), residency=residency, prefetch=prefetch, batch_size=8)
    seen: list[int] = []
    for batch in loader:
        seen += batch.row_ids
        if len(seen) >= 16:
            break
    # The loop variable of a for loop is gone, and with it the generator.
    gc.collect()
    assert threads() == []
    for batch in loader:
        seen += batch.row_ids
    assert sorted(seen) == list(range(96))
    assert threads() == []


class Watched(Reader):
    """Counts the rows of all blocks that are alive whenever a shard has been read."""

    blocks: list[weakref.ref[Block]]
    most: int

    def watch(self) -> None:
        object.__setattr__(self, "blocks", [])
        object.__setattr__(self, "most", 0)

    def read(self, shards: Any, before: Block | None = None) -> Block:
        block = super().read(shards, before)
        self.blocks.append(weakref.ref(block))
        alive = [other for ref in self.blocks if (other := ref()) is not None]
        object.__setattr__(self, "most", max(self.most, sum(len(other.rows) for other in alive)))
        return block


@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("skip", [0, 5])
def test_a_stream_holds_at_most_two_windows(prefetch: int, skip: int, caches: Callable[[str], Cache]) -> None:
    """Six windows of two shards: 16 rows each, of which at most 32 may be in memory with what is carried."""
    loader = KnowledgeLoader(caches("bitmask"), residency="stream", prefetch=prefetch, batch_size=8, window_shards=2)
    reader = Watched(loader.cache, loader.reader.fields, loader.reader.layers, loader.reader.num_shards)
    reader.watch()
    loader.reader = reader
    loader.seek(0, skip)
    num_rows = 0
    for batch in loader:
        # Long enough for the next window to be read while this one is in use.
        time.sleep(0.01)
        num_rows += len(batch)
    assert num_rows == 96 - 8 * skip
    assert len(reader.blocks) == 6 - skip // 2
    assert reader.most == 32


def test_windows_that_are_done_are_not_read(caches: Callable[[str], Cache]) -> None:
    loader = KnowledgeLoader(caches("bitmask"), residency="stream", batch_size=10, window_shards=2)
    plan = loader.plan
    windows = list(plan.windows(0))
    skip = plan.count(windows[0]) + plan.count(windows[1])
    found = list(streamed_windows(loader.reader, plan, 0, skip))
    assert len(windows) == 6
    for window, (planned, block) in zip(windows[2:], found, strict=True):
        needed = set(window.rows.tolist())
        assert set(planned.rows.tolist()) == needed
        assert needed <= set(block.rows.tolist())


def test_token_ids_that_the_student_has_no_place_for_are_refused_before_they_are_looked_up(
    written: Callable[..., Cache],
) -> None:
    """A stranger may sign a cache whose teacher is said to know more tokens than its tokenizer makes."""
    cache = written(num_rows=40)
    largest = max(int(cache.read("inputs", shard)["input_ids"].max()) for shard in range(len(cache.shards)))
    for residency in ("stream", "host"):
        loader = KnowledgeLoader(cache, residency=residency, num_tokens=largest)
        with pytest.raises(DamageError, match=f"token id {largest} is none of the {largest} that the student knows"):
            list(loader)
    assert sum(len(batch.row_ids) for batch in KnowledgeLoader(cache, num_tokens=largest + 1)) == 40
