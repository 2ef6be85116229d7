"""Students that take optimiser steps side by side, each with its own loss and source of batches."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from time import perf_counter
from typing import TYPE_CHECKING, Any

from benchmarks.harness.measure import synchronise, take_turns
from trainer.timing import Times

if TYPE_CHECKING:
    from hskcache.build.job import Job
    from trainer.recipe import Losses
    from trainer.source.objective import Objective

MAX_GRAD_NORM = 1.0


class Side:
    """A student with its optimiser and an endless source of batches.

    Args:
        module: its parameters are trained.
        loss: of a batch; a scalar tensor.
        batches: endless.
        given: ``device``, and ``bf16`` where passes may be under autocast.
    """

    def __init__(self, module: Any, loss: Callable[[Any], Any], batches: Iterator[Any], given: dict[str, Any]) -> None:
        import torch

        self.module, self.loss, self.batches, self.given = module.train(), loss, batches, given
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(parameters, lr=5e-5, fused=True)
        self.waited_s: list[float] = []

    def _autocast(self) -> AbstractContextManager[Any]:
        import torch

        place, enabled = torch.device(self.given["device"]).type, self.given.get("bf16", False)
        return torch.autocast(place, dtype=torch.bfloat16, enabled=enabled)

    def step(self) -> Any:
        """Take one optimiser step, as the Trainer does: data, forward, backward, clipping, AdamW; returns the loss."""
        import torch

        start = perf_counter()
        batch = next(self.batches)
        self.waited_s.append(perf_counter() - start)
        with self._autocast():
            loss = self.loss(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), MAX_GRAD_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()


def endless(loader: Iterable[Any]) -> Iterator[Any]:
    """Epoch after epoch of a loader."""
    while True:
        yield from loader


def student_of(job: "Job", given: dict[str, Any]) -> Any:
    """The ``student`` of the options with the weights of seed 0, for the teacher of a job."""
    from trainer.source.live import live_knowledge
    from trainer.student.create import create_student

    return create_student(given["student"], live_knowledge(job).interface(), seed=0).to(given["device"])


def objective_of(job: "Job", losses: "Losses", given: dict[str, Any]) -> "Objective":
    """Objective of that student over a job's knowledge."""
    from trainer.source.live import live_knowledge
    from trainer.source.objective import Objective

    return Objective(student_of(job, given), losses, live_knowledge(job).matches).to(given["device"])


def learning(job: "Job", losses: "Losses", loader: Iterable[Any], given: dict[str, Any]) -> Side:
    """A side that learns from a loader's batches."""
    objective = objective_of(job, losses, given)
    return Side(objective, lambda batch: objective(batch)[0], endless(loader), given)


def time_sides(sides: dict[str, Side], given: dict[str, Any]) -> tuple[Times, dict[str, float]]:
    """Seconds of a block of steps of each side, and the share of each side's time that it waited for data."""
    block = given["block"] or (20 if given["device"].startswith("cuda") else 1)

    def work(side: Side) -> Callable[[], None]:
        def run() -> None:
            for _ in range(block):
                side.step()
            synchronise(given["device"])

        return run

    turns = {name: work(side) for name, side in sides.items()}
    times = take_turns("step", turns, given["repetitions"], clock=given.get("clock", "wall"))
    steps = {name: [value / block for value in values] for name, values in times.seconds.items()}
    waited = {name: sum(side.waited_s[block:]) for name, side in sides.items()}
    return Times(steps), {name: waited[name] / sum(times.seconds[name]) for name in sides}
