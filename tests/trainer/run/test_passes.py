"""A step of several passes has the sum of their losses, whatever the Trainer's flags and the model's signature say."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import TrainingArguments

from trainer.run.passes import PassTrainer


class Scale(nn.Module):
    """One weight by which rows are multiplied; takes keywords as transformers' models do."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor, labels: torch.Tensor, **_: Any) -> torch.Tensor:
        """The sum of the rows, times the weight."""
        return self.weight * (x * labels).sum()


class Sums(PassTrainer):
    """Losses that are parts of a sum."""

    def compute_loss(self, model: nn.Module, inputs: dict[str, torch.Tensor], **_: Any) -> torch.Tensor:
        loss: torch.Tensor = model(**inputs)
        return loss


@pytest.mark.parametrize("scaled", [None, True, False])
@pytest.mark.parametrize("accepts", [True, False])
@pytest.mark.parametrize("passes", [1, 2, 4])
def test_a_step_is_the_sum_of_its_passes(passes: int, accepts: bool, scaled: bool | None, tmp_path: Path) -> None:
    rows = [{"x": torch.tensor(float(number)), "labels": torch.tensor(1.0)} for number in range(1, 5)]
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=4 // passes,
        gradient_accumulation_steps=passes,
        learning_rate=1.0,
        lr_scheduler_type="constant",
        max_steps=1,
        max_grad_norm=0,
        optim="sgd",
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    model = Scale()
    trainer = Sums(model, arguments, train_dataset=rows)
    # Releases of transformers read the one or the other.
    trainer.model_accepts_loss_kwargs, trainer.loss_is_scaled_for_ga = accepts, scaled
    trainer.train()
    assert model.weight.item() == -(1 + 2 + 3 + 4)
