"""Prepare pools of encoded batches ahead of the step, in a thread that always ends and never hides an error."""

import queue
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import torch

from trainer.loading.decode import EncodedPool

_LONGEST_ITEM_S = 120.0


@dataclass(frozen=True)
class _Failure:
    error: BaseException


def prefetched(items: Iterator[EncodedPool], device: torch.device, ahead: int) -> Generator[EncodedPool, None, None]:
    """Bring items to the device, ``ahead`` of them before they are asked for.

    On CUDA the copies leave from pinned memory on a stream of their own, and the consumer's stream waits for them,
    not the host. Closing the generator ends the thread.

    Raises:
        Whatever preparing an item raised.
    """
    if ahead == 0:
        for item in items:
            yield item._replace(block=item.block.to(device))
        return
    ready: queue.Queue[tuple[EncodedPool, torch.cuda.Event | None] | _Failure | None] = queue.Queue(maxsize=ahead)
    stop = threading.Event()
    thread = threading.Thread(target=_work, args=(items, device, ready, stop), name="hskcache-prefetch", daemon=True)
    thread.start()
    try:
        while (entry := ready.get()) is not None:
            if isinstance(entry, _Failure):
                raise entry.error
            yield _received(*entry)
    finally:
        stop.set()
        # It ends after the item at hand. The garbage collector may close this while it holds what the thread needs.
        thread.join(_LONGEST_ITEM_S)


def _work(
    items: Iterator[EncodedPool],
    device: torch.device,
    ready: "queue.Queue[tuple[EncodedPool, torch.cuda.Event | None] | _Failure | None]",
    stop: threading.Event,
) -> None:
    def put(entry: tuple[EncodedPool, torch.cuda.Event | None] | _Failure | None) -> None:
        while not stop.is_set():
            try:
                ready.put(entry, timeout=0.1)
            except queue.Full:
                continue
            return

    try:
        stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        for item in items:
            put(_sent(item, device, stream))
            if stop.is_set():
                return
        put(None)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to the consumer
        put(_Failure(error))


def _sent(
    item: EncodedPool, device: torch.device, stream: "torch.cuda.Stream | None"
) -> "tuple[EncodedPool, torch.cuda.Event | None]":
    if stream is None:
        return item._replace(block=item.block.to(device)), None
    with torch.cuda.stream(stream):
        block = item.block.to(device)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(stream)
    return item._replace(block=block), event


def _received(item: EncodedPool, event: "torch.cuda.Event | None") -> EncodedPool:
    if event is not None:
        stream = torch.cuda.current_stream(item.block.device)
        stream.wait_event(event)
        # The copy stream's allocator must not reuse the memory while the step still reads it.
        item.block.buffer.record_stream(stream)
    return item
