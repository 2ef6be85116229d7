"""Several files at a time, by threads that wait for servers and disks; the first error ends them all."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from hskcache.move.selected import Selected

Item = TypeVar("Item")
Result = TypeVar("Result")

# Items that are taken before their turn, by each thread.
_WAITING = 4


def _ignore(_value: object) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Watch:
    """Callbacks that are told what a pull or a push is about to do.

    Attributes:
        on_select: what the place will hold, once it is known.
        on_total: how many bytes of shards there are to look at and to move.
        on_bytes: how many of them were, since the last call; from any thread, one at a time.
    """

    on_select: Callable[[Selected], object] = _ignore
    on_total: Callable[[int], object] = _ignore
    on_bytes: Callable[[int], object] = _ignore

    def counted(self) -> Callable[[int], None]:
        """``on_bytes`` for several threads."""
        mutex = threading.Lock()

        def tell(num_bytes: int) -> None:
            with mutex:
                self.on_bytes(num_bytes)

        return tell


class Budget:
    """Memory that threads share: who wants more than is left waits for others.

    Args:
        most_bytes: in all, except that one thread alone may take more.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._num_bytes = 0
        self._changed = threading.Condition()

    @contextmanager
    def holding(self, num_bytes: int) -> Iterator[None]:
        """Hold so much until the end of the block."""
        with self._changed:
            self._changed.wait_for(lambda: not self._num_bytes or self._num_bytes + num_bytes <= self._most_bytes)
            self._num_bytes += num_bytes
        try:
            yield
        finally:
            with self._changed:
                self._num_bytes -= num_bytes
                self._changed.notify_all()


def in_parallel(
    work: Callable[[Item], Result], items: Iterable[Item], jobs: int, give_up: Callable[[], object]
) -> list[Result]:
    """Do ``work`` for every item.

    Args:
        work: may be called in any thread.
        items: in the order in which they are begun; taken little before.
        jobs: items at a time.
        give_up: called after an error or an interrupt, so that nobody waits for what other threads still try.

    Returns:
        What ``work`` returned, in the order of the items.

    Raises:
        Exception: the first that ``work`` raised; no item is begun after it.
    """
    results: dict[int, Result] = {}
    begun: dict[Future[Result], int] = {}

    def collect(done: Iterable[Future[Result]]) -> None:
        for task in done:
            results[begun.pop(task)] = task.result()

    with ThreadPoolExecutor(jobs, thread_name_prefix="hskcache-share") as threads:
        try:
            for number, item in enumerate(items):
                if len(begun) >= _WAITING * jobs:
                    collect(wait(begun, return_when=FIRST_COMPLETED).done)
                begun[threads.submit(work, item)] = number
            while begun:
                collect(wait(begun, return_when=FIRST_COMPLETED).done)
        except BaseException:
            give_up()
            threads.shutdown(wait=False, cancel_futures=True)
            raise
    return [results[number] for number in range(len(results))]
