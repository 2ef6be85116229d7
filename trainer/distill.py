"""The Hugging Face Trainer over batches of knowledge: one stage of a recipe."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainerControl, TrainingArguments

from trainer.batch import Batch
from trainer.loading.ordered import Ordered
from trainer.objective import Objective
from trainer.recipe import Stage

Score = Callable[[transformers.PreTrainedModel], dict[str, float]]


@dataclass(frozen=True)
class Machine:
    """How to compute, apart from what: the same run elsewhere may choose differently.

    Attributes:
        device: ``auto``, ``cpu`` or ``cuda``.
        bf16: mixed precision.
        accumulation: forward passes of one optimiser step.
        save_steps: steps between checkpoints; None saves at the end of every epoch.
    """

    device: str = "auto"
    bf16: bool = False
    accumulation: int = 1
    save_steps: int | None = None


class DistillTrainer(Trainer):  # type: ignore[misc]  # transformers is untyped
    """Trainer whose batches come from a :class:`~trainer.loading.ordered.Ordered` loader and know their own losses.

    The loader's slices already divide by the sizes of the global batch, so the Trainer must not average again: neither
    over accumulated passes, nor over processes, whose gradients DDP averages.
    """

    def __init__(self, objective: Objective, loader: Ordered[Any], score: Score, **kwargs: Any) -> None:
        super().__init__(model=objective, eval_dataset=[0], **kwargs)
        self.loader = loader
        self.score = score
        self.loss_is_scaled_for_ga = True
        self._terms: dict[str, Tensor] = {}
        self._terms_steps = 0

    def get_train_dataloader(self) -> Ordered[Any]:
        """The loader as it is: it places, batches and slices by itself."""
        return self.loader

    def num_examples(self, dataloader: Ordered[Any]) -> int:
        """Rows of an epoch."""
        return dataloader.plan.num_rows

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The stage's loss; its terms are summed up for the next log."""
        loss, terms = model(inputs)
        for name, term in terms.items():
            self._terms[name] = self._terms.get(name, 0) + term
        # DDP averages gradients over processes; slices are parts of a sum.
        loss = loss * self.args.world_size
        return (loss, None) if return_outputs else loss

    def floating_point_ops(self, inputs: Batch) -> int:
        """Not counted: the Trainer's estimate knows neither the losses nor the projections."""
        return 0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the loss terms, averaged over the optimiser steps since the last log."""
        steps = self.state.global_step - self._terms_steps
        if "loss" in logs and steps > 0:
            for name, total in self._terms.items():
                value = self._nested_gather(total).sum() if self.args.world_size > 1 else total
                logs[f"loss_{name}"] = round(float(value) / steps, 6)
            self._terms, self._terms_steps = {}, self.state.global_step
        super().log(logs, start_time)

    def evaluate(self, *_args: Any, metric_key_prefix: str = "eval", **_kwargs: Any) -> dict[str, float]:
        """Score the student with the task's metrics."""
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in self.score(self.model.student).items()}
        self.log(metrics)
        self.control: TrainerControl = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _prepare_inputs(self, inputs: Batch) -> Batch:
        return inputs

    def _get_num_items_in_batch(self, batch_samples: list[Batch], device: torch.device) -> None:
        return None

    def _run_epoch(self, *args: Any, epoch: int, **kwargs: Any) -> None:
        with _seeking(epoch):
            super()._run_epoch(*args, epoch=epoch, **kwargs)


@contextmanager
def _seeking(epoch: int) -> Iterator[None]:
    """Let a resumed epoch begin in the middle without reading what lies before.

    The Trainer skips batches with accelerate's ``skip_first_batches``, which takes a DataLoader apart; our loader can
    seek. It is the one place where the Trainer offers no method to override.
    """
    module = transformers.trainer
    original = module.skip_first_batches

    def seek(loader: Ordered[Any], num_batches: int) -> Ordered[Any]:
        loader.seek(epoch, num_batches)
        return loader

    module.skip_first_batches = seek
    try:
        yield
    finally:
        module.skip_first_batches = original


def training_arguments(
    stage: Stage, machine: Machine, folder: Path, metric: str, seed: int, world_size: int
) -> TrainingArguments:
    """A stage as the Trainer's arguments."""
    saves = (
        {"save_strategy": "steps", "save_steps": machine.save_steps}
        if machine.save_steps
        else {"save_strategy": "epoch"}
    )
    if stage.select == "best":
        # The Trainer can only go back to an epoch that it saved.
        saves = {"save_strategy": "epoch", "load_best_model_at_end": True, "metric_for_best_model": metric}
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=stage.epochs,
        per_device_train_batch_size=max(1, stage.batch_size // (world_size * machine.accumulation)),
        gradient_accumulation_steps=machine.accumulation,
        learning_rate=stage.learning_rate,
        lr_scheduler_type=stage.schedule,
        warmup_steps=stage.warmup,
        weight_decay=stage.weight_decay,
        max_grad_norm=stage.max_grad_norm,
        eval_strategy="epoch" if stage.select == "best" else "no",
        save_total_limit=1,
        logging_steps=25,
        restore_callback_states_from_checkpoint=True,
        report_to="none",
        log_level="error",
        seed=seed,
        bf16=machine.bf16,
        use_cpu=machine.device == "cpu",
        disable_tqdm=True,
        # Without a loss on the logits the classifier gets no gradient.
        ddp_find_unused_parameters=stage.losses.soft is None and stage.losses.label is None,
        **saves,
    )


def early_stopping(stage: Stage) -> list[TrainerCallback]:
    """The callback that ends a stage with ``patience``."""
    return [EarlyStoppingCallback(stage.patience)] if stage.patience is not None else []
