"""Selection of a run's best weights: when they are evaluated, what is kept, and when to stop looking."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hskcache.metrics import is_better
from hskcache.model.save import load_weights, save_weights
from trainer.run.checkpoints import checkpoint_of


class EvaluateOften(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """Evaluate every so many optimizer steps from the start on, beside the end of every epoch."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step_end(self, _args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Ask for an evaluation where it is due; the last step of an epoch is left to the epoch."""
        is_last = control.should_training_stop or float(state.epoch).is_integer()
        if state.global_step % self.steps == 0 and not is_last:
            control.should_evaluate = True

    def on_epoch_end(self, _args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Leave out what was done just now, where patience ended the training within an epoch."""
        last = next((entry["step"] for entry in reversed(state.log_history) if _is_evaluation(entry)), None)
        if last == state.global_step:
            control.should_evaluate = False


class Patience(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """End the training once so many epochs have passed without a better evaluation, however many those were.

    ``metric``: that is to get better.
    """

    def __init__(self, epochs: int, metric: str) -> None:
        self.epochs = epochs
        self.name = metric
        self.metric = f"eval_{metric}"

    def on_evaluate(
        self,
        _args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float],
        **_: object,
    ) -> None:
        """Called before the Trainer compares, when its state tells of the evaluations before."""
        if state.best_metric is None or is_better(self.name, metrics[self.metric], state.best_metric):
            return
        best = next(
            entry["epoch"]
            for entry in state.log_history
            if self.metric in entry and entry["step"] == state.best_global_step
        )
        # Epochs within are sums of fractions.
        if state.epoch - best > self.epochs - 1e-6:
            control.should_training_stop = True


class Best(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """Keep the weights of the best evaluation, apart from the checkpoints, which may be taken at any step.

    ``metric``: that tells; the first of equals is kept. ``beside``: what else to keep, by the end of its file's
    name, such as projections that train with the student.
    """

    def __init__(
        self, student: nn.Module, folder: Path, metric: str, beside: Mapping[str, nn.Module] | None = None
    ) -> None:
        self.student = student
        self.folder = folder
        self.name = metric
        self.metric = f"eval_{metric}"
        self.beside = beside or {}
        self.saved: int | None = None

    def on_train_begin(self, _args: TrainingArguments, state: TrainerState, *_: object, **__: object) -> None:
        """Note what the checkpoint goes back to that the training goes on from."""
        self.saved = state.best_global_step

    def on_evaluate(
        self,
        _args: TrainingArguments,
        state: TrainerState,
        _control: TrainerControl,
        metrics: dict[str, float],
        **_: object,
    ) -> None:
        """Called before the Trainer compares; it compares as we do, and writes the step into its state."""
        is_best = state.best_metric is None or is_better(self.name, metrics[self.metric], state.best_metric)
        if is_best and state.is_world_process_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            for part, path in self._paths(state.global_step):
                save_weights(part, path)
            self._drop_but(self.saved, state.global_step)

    def on_save(self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_: object) -> None:
        """Drop what no checkpoint can go back to."""
        self.saved = state.best_global_step
        if state.is_world_process_zero:
            self._drop_but(self.saved)

    def restore(self, state: TrainerState) -> None:
        """Give the student its best weights back, and those that what is kept beside them had then."""
        (_, path), *beside = self._paths(state.best_global_step)
        if not path.is_file():
            # A run of before they were kept apart: its best evaluation has a checkpoint.
            path = checkpoint_of(self.folder, state.best_global_step) / "model.safetensors"
        load_weights(self.student, path)
        for part, path in beside:
            # Of a run of before they were kept there are none.
            if path.is_file():
                load_weights(part, path)

    def _drop_but(self, *steps: int | None) -> None:
        needed = {path for step in steps for _, path in self._paths(step)}
        for path in set(self.folder.glob("best-*.*")) - needed:
            path.unlink()

    def _paths(self, step: int | None) -> list[tuple[nn.Module, Path]]:
        """The parts and their files, the student first."""
        beside = [(part, self.folder / f"best-{step}-{name}") for name, part in self.beside.items()]
        return [(self.student, self.folder / f"best-{step}.safetensors"), *beside]


def _is_evaluation(entry: dict[str, float]) -> bool:
    return any(name.startswith("eval_") for name in entry)


def best_of(stage: Mapping[str, Any], metric: str | None) -> dict[str, Any]:
    """The evaluation that the last stage kept the weights of, the first of equals; nothing where it kept its last."""
    if not stage["evaluations"] or metric is None:
        return {}
    best, *others = stage["evaluations"]
    for one in others:
        best = one if is_better(metric, one[metric], best[metric]) else best
    return {"best": {"stage": stage["name"], "epoch": best["epoch"], "step": best["step"]}}
