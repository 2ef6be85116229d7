"""A stream decompresses a shard once, as far as a file without a name has room, and its batches are the same."""

import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hskcache.cache import Cache, open_cache
from hskcache.errors import DamageError
from trainer.batch import Batch
from trainer.loading import KnowledgeLoader
from trainer.loading.spool import RecordSpool


def content(batch: Batch) -> list[object]:
    (layer, *_) = batch.hidden.values()
    return [batch.row_ids, batch.inputs["input_ids"].tolist(), layer.values_PW.tolist(), layer.index_P.tolist()]


def copied(cache: Cache, folder: Path) -> Path:
    shutil.copytree(cache.root, folder)
    return folder


def without_shards(folder: Path) -> None:
    for path in folder.rglob("*.zarr.zip"):
        path.unlink()


def test_later_epochs_need_no_shard(caches: Callable[[str], Cache], tmp_path: Path) -> None:
    folder = copied(caches("bitmask"), tmp_path / "cache.hsk")
    expected = KnowledgeLoader(caches("bitmask"), residency="host", batch_size=10, window_shards=3)
    loader = KnowledgeLoader(open_cache(folder), residency="stream", batch_size=10, window_shards=3)
    assert [content(batch) for batch in loader] == [content(batch) for batch in expected]
    without_shards(folder)
    for _ in range(2):
        assert [content(batch) for batch in loader] == [content(batch) for batch in expected]


@contextmanager
def files_of_at_most(num_bytes: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("num_shards", [0, 4])
def test_shards_without_room_are_read_again(num_shards: int, caches: Callable[[str], Cache], tmp_path: Path) -> None:
    folder = copied(caches("all"), tmp_path / "cache.hsk")
    expected = KnowledgeLoader(caches("all"), residency="host", batch_size=10)
    loader = KnowledgeLoader(open_cache(folder), residency="stream", batch_size=10)
    most = max(loader.reader.read([shard]).buffer.nbytes for shard in range(12))
    loader.reader = replace(loader.reader, spool_bytes=num_shards * most)
    for _ in range(2):
        assert [content(batch) for batch in loader] == [content(batch) for batch in expected]
    assert num_shards <= len(loader.reader._kept) < 12
    without_shards(folder)
    with pytest.raises(DamageError, match="is missing"):
        list(loader)


def test_a_disk_that_becomes_full_ends_the_spool_and_nothing_else(caches: Callable[[str], Cache]) -> None:
    block = KnowledgeLoader(caches("all"), residency="stream").reader.read([0])
    size = block.buffer.nbytes
    own = RecordSpool(10 * size)
    with files_of_at_most(2 * size + size // 2):
        kept = [own.keep(block) for _ in range(4)]
    assert [one is not None for one in kept] == [True, True, False, False]
    assert own.is_full
    del own
    for one in kept[:2]:
        assert one is not None
        assert all(torch.equal(part, block.parts[axis]) for axis, part in one.parts.items())
