"""What a person sees of a training run: one bar on stderr."""

from collections.abc import Mapping
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
