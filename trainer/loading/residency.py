"""Residency of the encoded cache while a student trains: on the device, in host memory, or on disk."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from hskcache.cache import Cache
from hskcache.errors import SpecError
from trainer.loading.block import Block, joined
from trainer.loading.memory import free_share
from trainer.loading.plan import Integers, Plan, Window
from trainer.loading.reader import Reader

Residency = Literal["auto", "device", "host", "stream"]

# Shares of free memory that a cache may fill when nobody says where it should live. What goes to the device passes
# through the host.
_DEVICE_SHARE = 0.3
_HOST_SHARE = 0.3
_PASSING_SHARE = 0.8


def choose(residency: Residency, num_bytes: int, device: torch.device, root: Path = Path("/")) -> Residency:
    """Resolve ``auto`` by the size of the encoded cache in memory against free memory.

    Args:
        residency: one of the four.
        num_bytes: of the encoded cache; each of several processes holds all of it.
        device: where batches are decoded.
        root: where the machine says what is free, see :func:`~trainer.loading.memory.free_bytes`.

    Raises:
        SpecError: not one of the four names.
    """
    if residency not in {"auto", "device", "host", "stream"}:
        raise SpecError(f"residency {residency!r} is none of auto, device, host and stream")
    if residency != "auto":
        return residency
    free = free_share(root)
    passes = device.type == "cuda" and num_bytes < _PASSING_SHARE * free
    if passes and num_bytes < _DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]:
        return "device"
    return "host" if num_bytes < _HOST_SHARE * free else "stream"


def streamed_windows(reader: Reader, plan: Plan, epoch: int, skip: int) -> Iterator[tuple[Window, Block]]:
    """The windows of an epoch with their rows, read one window ahead; at most two windows are in memory.

    Of a cache that is far away, shards are fetched one window further ahead.

    Args:
        reader: reads the shards.
        plan: the order.
        epoch: counted from 0.
        skip: global batches that are done already; windows within them are left out.
    """
    planned = plan.windows(epoch, skip)
    following = deque(islice(planned, 2))
    if not following:
        return
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="hskcache-read") as pool:
        reading = [pool.submit(_read, reader, tuple(following), _carried(reader, following[0].carried))]
        while following:
            window = following.popleft()
            following.extend(islice(planned, 1))
            # Popped, as a future that outlives its use would keep a window alive while the next but one is read.
            block = reading.pop().result()
            if following:
                carried = following[0].carried
                leftover = block.take(carried) if len(carried) else None
                reading.append(pool.submit(_read, reader, tuple(following), leftover))
            yield window, block


def _read(reader: Reader, windows: Sequence[Window], carried: Block | None) -> Block:
    """The rows of the first window, behind what it was left; what is far away of the next is fetched meanwhile."""
    for window in windows:
        reader.ahead(window.shards)
    return reader.read(windows[0].shards, carried)


def _carried(reader: Reader, rows: Integers) -> Block | None:
    """Rows that earlier windows, which are skipped, would have left over; one shard is in memory at a time."""
    if not len(rows):
        return None
    home = np.array([reader.cache.shards.shard_of(row) for row in rows.tolist()])
    return joined([reader.read([shard]).take(rows[home == shard]) for shard in np.unique(home).tolist()])


def most_window_bytes(cache: Cache, fields: Sequence[str], plan: Plan) -> int:
    """Bytes on disk of the largest window that any epoch may have.

    Args:
        cache: an open cache.
        fields: that are read.
        plan: the order; every epoch has windows of the same numbers of shards.
    """
    sizes = np.sum([cache.manifest.shards[name].shard_bytes() for name in fields], axis=0)[: len(plan.shards)]
    return int(np.sort(sizes)[-plan.most_shards :].sum())
