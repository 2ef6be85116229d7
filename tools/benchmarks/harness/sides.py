"""Students that take optimiser steps side by side, each with its own loss and source of batches."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from time import perf_counter
from typing import Any

from benchmarks.harness.measure import synchronise
from hskcache import console
from trainer.timing import Times, alternate

MAX_GRAD_NORM = 1.0


class Side:
    """A student with its optimiser and an endless source of batches.

    Args:
        module: its parameters are trained.
        loss: of a batch; a scalar tensor.
        batches: endless.
        autocast: makes the context of a forward pass.
    """

    def __init__(
        self,
        module: Any,
        loss: Callable[[Any], Any],
        batches: Iterator[Any],
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        import torch

        self.module, self.loss, self.batches, self.autocast = module.train(), loss, batches, autocast
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(parameters, lr=5e-5, fused=True)
        self.waited_s: list[float] = []

    def step(self) -> None:
        """One optimiser step, as the Trainer takes it: data, forward, backward, clipping, AdamW."""
        import torch

        start = perf_counter()
        batch = next(self.batches)
        self.waited_s.append(perf_counter() - start)
        with self.autocast():
            loss = self.loss(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), MAX_GRAD_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def endless(loader: Any) -> Iterator[Any]:
    """Epoch after epoch of a loader."""
    while True:
        yield from loader


def time_sides(sides: dict[str, Side], given: dict[str, Any]) -> tuple[Times, dict[str, float]]:
    """Seconds of a block of steps of each side, and the share of each side's time that it waited for data."""
    block = given["block"] or (20 if given["device"].startswith("cuda") else 1)

    def work(side: Side) -> Callable[[], None]:
        def run() -> None:
            for _ in range(block):
                side.step()
            synchronise(given["device"])

        return run

    with console.progress("blocks") as bar:
        task = bar.add_task("step", total=len(sides) * (given["repetitions"] + 1))
        works = {name: work(side) for name, side in sides.items()}
        times = alternate(works, given["repetitions"], on_done=lambda: bar.advance(task))
    steps = {name: [value / block for value in values] for name, values in times.seconds.items()}
    waited = {name: sum(side.waited_s[block:]) for name, side in sides.items()}
    return Times(steps), {name: waited[name] / sum(times.seconds[name]) for name in sides}
