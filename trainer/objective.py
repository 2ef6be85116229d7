"""A student together with the losses of one stage: what the optimiser sees."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hskcache.encoder import takes_token_types
from hskcache.errors import MismatchError
from trainer.batch import Batch
from trainer.losses import hidden_loss, label_loss, soft_label_loss
from trainer.recipe import Losses
from trainer.student.create import seeded

Target = TypeVar("Target")


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
        teacher_width: D; unused without a hidden term.
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
        self.drops_token_types = not takes_token_types(student)
        self.projections = nn.ModuleDict()
        width = student.config.hidden_size
        if losses.hidden is not None and teacher_width is not None and teacher_width != width:
            with seeded(seed):
                for match in self.matches:
                    name = self._projection_name(match)
                    if name not in self.projections:
                        self.projections[name] = nn.Linear(width, teacher_width)

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a slice, scaled so that the slices of a global batch add up to its mean.

        Returns:
            The weighted sum with its gradient, and every term unweighted without one.

        Raises:
            MismatchError: the batch lacks what a term learns from.
        """
        inputs = batch.inputs
        if self.drops_token_types:
            inputs = {name: tensor for name, tensor in inputs.items() if name != "token_type_ids"}
        output = self.student(**inputs, output_hidden_states=self.losses.hidden is not None)
        terms: list[tuple[str, float, Tensor]] = []
        if (hidden := self.losses.hidden) is not None:
            terms.append(("hidden", hidden.weight, self._hidden(output.hidden_states, batch)))
        if (soft := self.losses.soft) is not None:
            teacher_BC = _present(batch.logits, "logits")
            loss = soft_label_loss(output.logits, teacher_BC, soft.temperature, batch.num_rows)
            terms.append(("soft", soft.weight, loss))
        if (label := self.losses.label) is not None:
            loss = label_loss(output.logits, _present(batch.labels, "labels"), batch.num_rows)
            terms.append(("label", label.weight, loss))
        total = torch.stack([weight * term for _, weight, term in terms]).sum()
        return batch.weight * total, {name: batch.weight * term.detach() for name, _, term in terms}

    def _hidden(self, states: Sequence[Tensor], batch: Batch) -> Tensor:
        assert self.losses.hidden is not None
        missing = self.losses.hidden.missing
        terms = []
        for match in self.matches:
            target = _present(batch.hidden.get(match.teacher), f"hidden states of layer {match.teacher}")
            projection = self._projection(match)
            terms.append(hidden_loss(states[match.student], target, projection, missing, batch.num_positions))
        return torch.stack(terms).sum()

    def _projection(self, match: LayerMatch) -> nn.Linear | None:
        if not self.projections:
            return None
        projection = self.projections[self._projection_name(match)]
        assert isinstance(projection, nn.Linear)
        return projection

    def _projection_name(self, match: LayerMatch) -> str:
        assert self.losses.hidden is not None
        return "shared" if self.losses.hidden.shared_projection else f"layer_{match.student:02d}"


def _present(target: Target | None, what: str) -> Target:
    if target is None:
        raise MismatchError(f"a loss learns from {what} and the batch has none; load them, or leave the loss out")
    return target
