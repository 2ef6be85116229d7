"""A pool costs a device few launches and one copy, however many arrays it has.

The meta device stands for one: tensors there go every way that those of a GPU go, and each operation that would launch
a kernel is seen. Views and memory that is only allocated launch none.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hskcache.cache import Cache
from trainer.loading import KnowledgeLoader
from trainer.loading.block import Block
from trainer.loading.decode import EncodedPool, Sizes

META = torch.device("meta")
MOST = 15


class Launches(TorchDispatchMode):
    """Names of the operations that launch something."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view and not func.name().startswith(("aten::empty", "aten::is_pinned")):
            self.names.append(func.name())
        return func(*args, **(kwargs or {}))


def pool_of(loader: KnowledgeLoader, block: Block, batches: int) -> EncodedPool:
    rows = block.rows[: 8 * batches][::-1].copy()
    return loader._decoder.pool(block, rows, [Sizes(8, 8, {"hidden": 80, "attention": 800})] * batches)


def decoder_on_meta(cache: Cache, **settings: Any) -> tuple[KnowledgeLoader, Block]:
    loader = KnowledgeLoader(cache, residency="stream", **settings)
    loader.device = META
    return loader, loader.reader.read(range(len(cache.shards)))


@pytest.mark.parametrize("width", ["uniform", "indices", "bitmask", "pca", "all"])
def test_a_pool_of_all_layers_takes_at_most_fifteen_launches_one_of_them_the_copy(
    width: str, caches: Callable[[str], Cache]
) -> None:
    loader, block = decoder_on_meta(caches(width))
    list(loader._decoder.decode(pool_of(loader, block.to(META), 1)))
    for batches in (1, 5):
        pool = pool_of(loader, block, batches)
        with Launches() as launches:
            decoded = list(loader._decoder.decode(pool._replace(block=pool.block.to(META))))
        assert len(decoded) == batches
        assert len(decoded[0].hidden) == 2
        assert launches.names[0] == "aten::_to_copy"
        assert 2 <= len(launches.names) <= MOST, launches.names


@pytest.mark.parametrize("encoding", ["float32", "float16", "bfloat16", "int8"])
def test_attention_takes_no_more_where_rows_keep_equally_many_positions(
    encoding: str, written: Callable[..., Cache]
) -> None:
    loader, block = decoder_on_meta(written(encoding=encoding, tokens=4), fields=("logits", "attention"))
    pool = pool_of(loader, block, 2)
    with Launches() as launches:
        assert len(list(loader._decoder.decode(pool._replace(block=pool.block.to(META))))) == 2
    assert 2 <= len(launches.names) <= MOST, launches.names


def test_rows_that_live_on_the_device_are_selected_there(caches: Callable[[str], Cache]) -> None:
    """Nothing but indices and tables goes to the device, with one copy; beyond that there is a selection an axis."""
    loader, block = decoder_on_meta(caches("bitmask"))
    block = block.to(META)
    with Launches() as launches:
        pool = pool_of(loader, block, 1)
    assert launches.names.count("aten::_to_copy") == 1
    assert launches.names.count("aten::index_select.out") == len(block.layout.widths) == 3
    assert len(launches.names) == 4, launches.names
    assert pool.block.device == META


def test_everything_that_goes_to_a_device_stands_in_one_buffer(caches: Callable[[str], Cache]) -> None:
    loader, block = decoder_on_meta(caches("bitmask"))
    pool = pool_of(loader, block, 3)
    start, stop = pool.block.buffer.data_ptr(), pool.block.buffer.data_ptr() + pool.block.buffer.nbytes
    assert len(pool.block.parts) > len(pool.block.layout.widths) == 3
    for part in pool.block.parts.values():
        assert part.is_contiguous()
        assert start <= part.data_ptr() <= part.data_ptr() + part.nbytes <= stop
    assert pool.block.buffer.is_contiguous()
    encoded = sum(np.prod(part.shape) * part.dtype.itemsize for part in pool.block.parts.values())
    assert encoded <= pool.block.buffer.nbytes < encoded + 64 * len(pool.block.parts)
