"""The Hugging Face Trainer with losses that are taken as they are.

An optimiser step may be cut into several passes, whose gradients add up. Which part of the step's loss a pass is, the
Trainer works out from the signature of the model's ``forward`` and from flags that differ from release to release:
before transformers 5.19 no flag kept it from dividing a loss that was scaled already.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import Trainer, TrainerCallback

from hskcache.timeline import span


class _OptimizerSpan(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """A phase from before an optimiser step to the zeroing of gradients behind it."""

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        self.span = span("optimizer")
        self.span.__enter__()

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        self.span.__exit__(None, None, None)


class PassTrainer(Trainer):  # type: ignore[misc]  # transformers is untyped
    """Trainer whose ``compute_loss`` gives the part of the step's loss that a pass is, which nothing divides again."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.accelerator.clip_grad_norm_ = span("clip")(self.accelerator.clip_grad_norm_)
        self.add_callback(_OptimizerSpan())

    def training_step(self, model: torch.nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """One pass, forwards and back.

        ``num_items_in_batch``: not used; the loss is scaled by whoever computes it. Returns the loss, a scalar without
        its graph; the Trainer logs the sum over the passes of a step.
        """
        model.train()
        with span("forward"):
            loss: Tensor = self.compute_loss(model, self._prepare_inputs(inputs))
        with span("backward"):
            self.accelerator.backward(loss)
        return loss.detach()

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """The batches of the next step, which may have to be waited for."""
        with span("data"):
            return super().get_batch_samples(*args, **kwargs)

    def _get_num_items_in_batch(self, *_: Any, **__: Any) -> None:
        # Nobody asks for it, and to count would make the processes wait for each other at every step.
        return None
