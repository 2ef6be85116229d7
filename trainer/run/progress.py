"""Progress of a training run, for a person: one bar on stderr, and how long a step took."""

from collections.abc import Mapping
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerState, TrainingArguments

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class StepBar(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """Advance ``bar`` by optimizer steps and show the latest training loss in front of it."""

    def __init__(self, bar: "Progress", name: str) -> None:
        self.bar = bar
        self.name = name
        self.task: TaskID = bar.add_task(name, total=None)

    def on_train_begin(self, _args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Learn the number of steps, and those that an earlier run has done."""
        self.bar.reset(self.task, total=state.max_steps, completed=state.global_step)

    def on_step_end(self, _args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """One optimizer step further."""
        self.bar.update(self.task, completed=state.global_step)

    def on_log(self, *_: Any, logs: Mapping[str, Any], **__: Any) -> None:
        """Show the loss of the last few steps."""
        loss = logs.get("loss")
        if loss is not None:
            self.bar.update(self.task, description=f"{self.name} loss {loss:.4f}")


class Pace(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """Seconds of an optimizer step, waiting for data included, evaluation and saving left out."""

    def __init__(self) -> None:
        self.durations_s: list[float] = []
        self.last_s: float | None = None

    @property
    def median_s(self) -> float | None:
        """The median step; None when fewer than two were taken."""
        return median(self.durations_s) if self.durations_s else None

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """One step is over."""
        now_s = perf_counter()
        if self.last_s is not None:
            self.durations_s.append(now_s - self.last_s)
        self.last_s = now_s

    def on_evaluate(self, *_: Any, **__: Any) -> None:
        """Do not count what comes next, for it includes the evaluation."""
        self.last_s = None

    def on_save(self, *_: Any, **__: Any) -> None:
        """Do not count what comes next, for it includes the saving."""
        self.last_s = None
