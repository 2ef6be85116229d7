"""Where the encoded cache lives while a student trains: on the device, in host memory, or on disk."""

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from hskcache.cache import Cache
from hskcache.errors import SpecError
from trainer.loading.block import Block, concatenate, read_block
from trainer.loading.plan import Plan, Window

Residency = Literal["auto", "device", "host", "stream"]

# Shares of free memory that a cache may fill when nobody says where it should live.
_DEVICE_SHARE = 0.3
_HOST_SHARE = 0.3


def choose(residency: Residency, num_bytes: int, device: torch.device) -> Residency:
    """Resolve ``auto`` by the size of the encoded cache against free memory.

    Raises:
        SpecError: not one of the four names.
    """
    if residency not in {"auto", "device", "host", "stream"}:
        raise SpecError(f"residency {residency!r} is none of auto, device, host and stream")
    if residency != "auto":
        return residency
    if device.type == "cuda" and num_bytes < _DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]:
        return "device"
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return "host" if num_bytes < _HOST_SHARE * free else "stream"


@dataclass(frozen=True)
class Reader:
    """What to read of a cache: the fields, and the hidden layers among them."""

    cache: Cache
    fields: tuple[str, ...]
    layers: frozenset[int]

    def read(self, shards: tuple[int, ...]) -> Block:
        """Encoded rows of some shards, in host memory."""
        return read_block(self.cache, shards, self.fields, self.layers)


def streamed_windows(reader: Reader, plan: Plan, epoch: int, skip: int) -> Iterator[tuple[Window, Block | None]]:
    """Every window of an epoch with its rows, read one window ahead; at most two windows are in memory.

    Args:
        reader: reads the shards.
        plan: the order.
        epoch: counted from 0.
        skip: global batches that are done already; windows they cover come without rows and are not read.
    """
    windows = list(plan.windows(epoch))
    done = np.cumsum([plan.count(window) for window in windows])
    first = int(np.searchsorted(done, skip, side="right"))
    yield from ((window, None) for window in windows[:first])
    if first == len(windows):
        return
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="hskcache-read") as pool:
        ahead: Future[Block] = pool.submit(reader.read, windows[first].shards)
        leftover = _carried(reader, windows, first)
        for place in range(first, len(windows)):
            own = ahead.result()
            if place + 1 < len(windows):
                ahead = pool.submit(reader.read, windows[place + 1].shards)
            block = concatenate([own] if leftover is None else [leftover, own])
            del own
            if place + 1 < len(windows):
                rows = windows[place + 1].carried
                leftover = block.take(rows) if len(rows) else None
            yield windows[place], block


def _carried(reader: Reader, windows: list[Window], first: int) -> Block | None:
    """Rows that earlier windows, which are skipped, would have left over."""
    rows = windows[first].carried
    if not len(rows):
        return None
    starts = np.array([start for start, _ in reader.cache.shards])
    shards = sorted({int(shard) for shard in np.searchsorted(starts, rows, side="right") - 1})
    return reader.read(tuple(shards)).take(rows)
