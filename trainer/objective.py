"""A student together with the losses of one stage: what the optimiser sees."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainer.batch import Batch
from trainer.evaluation import takes_token_types
from trainer.losses import hidden_loss, label_loss, soft_label_loss
from trainer.recipe import Losses


@dataclass(frozen=True)
class LayerMatch:
    """A student hidden layer and the teacher hidden layer it learns from."""

    student: int
    teacher: int


class Objective(nn.Module):
    """The student, the projections it needs while it trains, and the weighted sum of the stage's losses.

    A projection Linear d -> D with bias stands between a student of width d and states of width D where they differ.
    It is trained with the student and is no part of what is saved as the student.

    Args:
        student: a sequence classifier.
        losses: the terms of the stage.
        matches: which layers learn from which; unused without a hidden term.
        teacher_width: D, or None where the stage has no hidden term.
        seed: of the projections.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        losses: Losses,
        matches: Sequence[LayerMatch] = (),
        teacher_width: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.student = student
        self.losses = losses
        self.matches = tuple(matches)
        width = student.config.hidden_size
        names = (
            ["shared"] if losses.hidden and losses.hidden.shared_projection else [self._own(m) for m in self.matches]
        )
        self.drops_token_types = not takes_token_types(student)
        self.projections = nn.ModuleDict()
        if losses.hidden is not None and teacher_width is not None and teacher_width != width:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                for name in names:
                    self.projections[name] = nn.Linear(width, teacher_width)

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a slice, scaled so that the slices of a global batch add up to its mean.

        Returns:
            The weighted sum with its gradient, and every term unweighted without one.
        """
        inputs = batch.inputs
        if self.drops_token_types:
            inputs = {name: tensor for name, tensor in inputs.items() if name != "token_type_ids"}
        output = self.student(**inputs, output_hidden_states=self.losses.hidden is not None)
        terms: dict[str, Tensor] = {}
        total = torch.zeros((), device=output.logits.device)
        if (hidden := self.losses.hidden) is not None:
            terms["hidden"] = self._hidden(output.hidden_states, batch)
            total = total + hidden.weight * terms["hidden"]
        if (soft := self.losses.soft) is not None:
            assert batch.logits is not None
            terms["soft"] = soft_label_loss(output.logits, batch.logits, soft.temperature, batch.num_rows)
            total = total + soft.weight * terms["soft"]
        if (label := self.losses.label) is not None:
            assert batch.labels is not None
            terms["label"] = label_loss(output.logits, batch.labels, batch.num_rows)
            total = total + label.weight * terms["label"]
        return total, {name: term.detach() for name, term in terms.items()}

    def _hidden(self, states: Sequence[Tensor], batch: Batch) -> Tensor:
        assert self.losses.hidden is not None
        missing = self.losses.hidden.missing
        loss = torch.zeros((), device=states[0].device)
        for match in self.matches:
            target = batch.hidden[match.teacher]
            projection = self._projection(match)
            loss = loss + hidden_loss(states[match.student], target, projection, missing, batch.num_positions)
        return loss

    def _projection(self, match: LayerMatch) -> nn.Linear | None:
        if not self.projections:
            return None
        projection = self.projections["shared" if "shared" in self.projections else self._own(match)]
        assert isinstance(projection, nn.Linear)
        return projection

    @staticmethod
    def _own(match: LayerMatch) -> str:
        return f"layer_{match.student:02d}"
