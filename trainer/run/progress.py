"""Progress of a training run, for a person: a bar and a line an evaluation on stderr, and how long a step took."""

from collections.abc import Mapping
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hskcache import console
from hskcache.metrics import is_better
from hskcache.units import human_time
from trainer.run.baselines import Baselines

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class StepBar(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """Advance ``bar`` by optimizer steps and show the latest training loss in front of it, and the time left behind.

    ``later_steps``: as many steps of this stage as all later ones of the run will take, by their rows.
    """

    def __init__(self, bar: "Progress", name: str, later_steps: float = 0.0) -> None:
        self.bar = bar
        self.name = name
        self.later_steps = later_steps
        self.task: TaskID = bar.add_task(name, total=None, left="")
        self.first, self.begun_s = 0, perf_counter()

    def on_train_begin(self, _args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Learn the number of steps, and those that an earlier run has done."""
        self.first, self.begun_s = state.global_step, perf_counter()
        self.bar.reset(self.task, total=state.max_steps, completed=state.global_step)

    def on_step_end(self, _args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """One optimizer step further; what it took includes evaluations and checkpoints."""
        step_s = (perf_counter() - self.begun_s) / max(1, state.global_step - self.first)
        own_s = (state.max_steps - state.global_step) * step_s
        left = f"{human_time(own_s)} left"
        if self.later_steps:
            left += f", {human_time(own_s + self.later_steps * step_s)} of all stages"
        self.bar.update(self.task, completed=state.global_step, left=left)

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Tell the time taken."""
        self.bar.update(self.task, left=f"in {human_time(perf_counter() - self.begun_s)}")

    def on_log(self, *_: Any, logs: Mapping[str, Any], **__: Any) -> None:
        """Show the loss of the last few steps."""
        loss = logs.get("loss")
        if loss is not None:
            self.bar.update(self.task, description=f"{self.name} loss {loss:.4f}")


class EvaluationLines(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """Say what every evaluation gave, and the best so far, beside what others reach on the same rows.

    ``where``: before the epoch, such as "prediction "; may be empty. ``metric``: picks the best evaluation.
    """

    def __init__(self, where: str, metric: str | None, baselines: Baselines) -> None:
        self.where = where
        self.metric = metric
        self.baselines = baselines

    def on_evaluate(
        self,
        _args: TrainingArguments,
        state: TrainerState,
        _control: TrainerControl,
        metrics: Mapping[str, float],
        **_: Any,
    ) -> None:
        """Called before the Trainer compares, when its state tells of the evaluations before."""
        scores = {name.removeprefix("eval_"): value for name, value in metrics.items()}
        if self.metric not in scores:
            return
        told = [", ".join(f"{name} {value:.4f}" for name, value in scores.items())]
        if state.best_metric is None or is_better(self.metric, scores[self.metric], state.best_metric):
            told.append("the best so far")
        else:
            epoch = epoch_of(state, state.best_global_step)
            told.append(f"best {self.metric} {state.best_metric:.4f} in epoch {epoch:.4g}")
        told += self.baselines.beside(self.metric)
        console.say(f"{self.where}epoch {state.epoch or 0:.4g}: {'; '.join(told)}")


def epoch_of(state: TrainerState, step: int) -> float:
    """Epochs that were done at an optimizer step that something was logged of."""
    return float(next(entry["epoch"] for entry in state.log_history if entry["step"] == step))


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
