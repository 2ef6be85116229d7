"""The Hugging Face Trainer over batches of knowledge: one stage of a recipe."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import TrainerControl, TrainingArguments

from hskcache.errors import TeacherError
from hskcache.model.save import tensors_apart
from hskcache.timeline import span
from trainer.batch import Batch
from trainer.loading.ordered import Ordered
from trainer.recipe import Stage
from trainer.run import processes
from trainer.run.midway import MidwayTrainer
from trainer.run.request import Machine
from trainer.run.resume import seeking
from trainer.run.training import arguments_on
from trainer.source.objective import Objective

Score = Callable[[transformers.PreTrainedModel], dict[str, float]]
"""The task's metrics of a student; empty where there is no task."""


class DistillTrainer(MidwayTrainer):
    """Trainer whose batches come from a :class:`~trainer.loading.ordered.Ordered` loader and know their own losses.

    The loader's slices already divide by the sizes of the global batch, so nothing averages again: neither over
    accumulated passes, nor over processes, whose gradients DDP averages.
    """

    def __init__(self, objective: Objective, loader: Ordered[Any, Batch], score: Score, **kwargs: Any) -> None:
        # The Trainer wants some evaluation data before it evaluates; ours is the business of ``score``.
        super().__init__(model=objective, eval_dataset=[None], **kwargs)
        self.loader = loader
        self.score = score
        self._terms: dict[str, Tensor | float] = {}
        self._num_passes = 0

    def get_train_dataloader(self) -> Ordered[Any, Batch]:
        """The loader as it is: it places, batches and slices by itself."""
        return self.loader

    def num_examples(self, dataloader: Ordered[Any, Batch]) -> int:
        """Rows of an epoch."""
        return dataloader.plan.num_rows

    def compute_loss(
        self, model: torch.nn.Module, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The stage's loss; its terms are summed up for the next log."""
        loss, terms = model(inputs)
        for name, term in terms.items():
            self._terms[name] = self._terms.get(name, 0) + term
        self._num_passes += 1
        # DDP averages gradients over processes; slices are parts of a sum.
        loss = loss * self.args.world_size
        return (loss, None) if return_outputs else loss

    def floating_point_ops(self, inputs: Batch) -> int:
        """Zero: the Trainer's estimate knows neither the losses nor the projections."""
        return 0

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        control = self.control
        if control.should_log or control.should_save or control.should_evaluate:
            # Before a checkpoint is saved that the same command would go on from.
            self._require_finite_targets()
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def _require_finite_targets(self) -> None:
        count = self.loader.num_nonfinite
        # All processes must end alike, whichever of them had the row.
        if count is not None and self.accelerator.reduce(count, "sum") > 0:
            raise TeacherError(
                f"by step {self.state.global_step} the teacher has given values that are not finite, of which nothing "
                "can be learned; mend it, or learn from a cache, from which --on-nonfinite skip leaves such rows out"
            )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the loss terms, averaged over the optimiser steps since the last log."""
        if "loss" in logs and self._num_passes:
            steps = self._num_passes / self.args.gradient_accumulation_steps
            for name, total in self._terms.items():
                logs[f"loss_{name}"] = float(self.accelerator.reduce(total, "sum")) / steps
            self._terms, self._num_passes = {}, 0
        super().log(logs, start_time)

    def sums(self) -> dict[str, Any]:
        """Sums since the last log, the loss terms' among them."""
        terms = {name: float(total) for name, total in self._terms.items()}
        return super().sums() | {"terms": terms, "steps": self._num_passes / self.args.gradient_accumulation_steps}

    def take_up(self, sums: Sequence[Mapping[str, Any]]) -> None:
        """Go on from such sums of all processes."""
        super().take_up(sums)
        own = sums[processes.rank()] if len(sums) == processes.count() else None
        for name in sums[0]["terms"]:
            # The sum of all is logged.
            total = sum(one["terms"][name] for one in sums) / processes.count()
            self._terms[name] = own["terms"][name] if own is not None else total
        self._num_passes = round(sums[0]["steps"] * self.args.gradient_accumulation_steps)

    @span("evaluate")
    def evaluate(self, *_args: Any, metric_key_prefix: str = "eval", **_kwargs: Any) -> dict[str, float]:
        """Score the student with the task's metrics, in one process, so that all agree when to stop."""
        scores = processes.on_first(lambda: self.score(self.model.student))
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in scores.items()}
        self.log(dict(metrics))
        self.control: TrainerControl = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        # Of a student whose head is tied to its embeddings, neither is left out.
        super()._save(output_dir, state_dict=tensors_apart(self.model) if state_dict is None else state_dict)

    def _prepare_inputs(self, inputs: Batch) -> Batch:
        return inputs

    def _run_epoch(self, *args: Any, epoch: int, **kwargs: Any) -> None:
        with seeking(epoch):
            super()._run_epoch(*args, epoch=epoch, **kwargs)


def training_arguments(
    stage: Stage, machine: Machine, folder: Path, metric: str | None, seed: int
) -> TrainingArguments:
    """A stage as the Trainer's arguments.

    ``folder``: of the checkpoints; ``metric``: by which the best epoch is chosen, where the stage chooses; ``seed``: of
    dropout.
    """
    return arguments_on(
        machine.device,
        folder,
        num_train_epochs=stage.epochs,
        per_device_train_batch_size=stage.batch_size // machine.slices,
        gradient_accumulation_steps=machine.accumulation,
        learning_rate=stage.learning_rate,
        # Plain "constant" is without the warm-up of the recipe.
        lr_scheduler_type="constant_with_warmup" if stage.schedule == "constant" else stage.schedule,
        warmup_steps=stage.warmup,
        weight_decay=stage.weight_decay,
        max_grad_norm=stage.max_grad_norm,
        eval_strategy="epoch" if stage.select == "best" else "no",
        metric_for_best_model=metric if stage.select == "best" else None,
        save_strategy="steps" if machine.save_steps else "epoch",
        save_steps=machine.save_steps or 1,
        logging_steps=25,
        # Filtering would wait for the device at every step, and hide a run that diverges.
        logging_nan_inf_filter=False,
        seed=seed,
        bf16=machine.bf16,
        report_to=machine.report_to,
        run_name=f"{folder.parents[2].name}/{stage.name}",
        # Without a loss on the logits the classifier gets no gradient.
        ddp_find_unused_parameters=stage.losses.soft is None and stage.losses.label is None,
    )
