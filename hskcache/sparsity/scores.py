"""Worth of heads and neurons: to the task, to a student that learns from the teacher, or by simpler measures.

Masks of ones stand on every head and neuron. The expressive score of a head or neuron is the sum over batches of
|d task loss / d mask|, the student-friendly score that of |d distillation loss / d mask| [StarK 3.2]. One pass gives
both.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from hskcache.errors import MismatchError
from hskcache.sparsity.gradients import EXPRESSIVE, FRIENDLY, require_finite, sum_gradients
from hskcache.sparsity.levels import Importance, check_balance
from hskcache.sparsity.masks import masked
from hskcache.sparsity.sample import Sample, uniform
from hskcache.teacher.load import Teacher
from hskcache.teacher.places import places

Part = TypeVar("Part")

__all__ = ["Sample", "UnitScores", "magnitude", "random_importance", "score"]

EPSILON = 1e-7
"""Added to the norm of a layer's scores, which may all be 0."""

# What to do where a part of the scores counts and was not taken, or says nothing.
_WITHOUT = {
    "expressive": "score labelled rows, or give --balance 0",
    "student-friendly": "score with --trial-student, or give --balance 1",
}
_SILENT = {
    "expressive": "score other rows into another --out, or give --balance 0",
    "student-friendly": "score with another --temperature or trial student into another --out, or give --balance 1",
}


@dataclass(frozen=True, eq=False)
class UnitScores:
    """Raw sums over batches, of which any balance can be formed.

    ``expressive``: of the task loss; None where the rows had no labels. ``friendly``: of the distillation loss; None
    where there was no student.
    """

    expressive: Importance | None
    friendly: Importance | None

    def knowledgeable(self, balance: float) -> Importance:
        """``balance`` * expressive + (1 - ``balance``) * friendly, each of length 1 in every layer [StarK 3.2].

        Raises SpecError if ``balance``, lambda, is not a number from 0 to 1; MismatchError if
        a part that counts was not scored, or its heads or its neurons have no score but 0, so that the other part alone
        would rank them.
        """
        parts = [
            (_telling(name, part, balance), weight)
            for name, part, weight in counted(self.expressive, self.friendly, balance)
        ]
        heads_LH = np.sum([weight * normalized(part.heads_LH) for part, weight in parts], axis=0)
        neurons_LF = np.sum([weight * normalized(part.neurons_LF) for part, weight in parts], axis=0)
        return Importance(heads_LH, neurons_LF)


def _telling(name: str, part: Importance, balance: float) -> Importance:
    """A part of the scores that counts. Raises MismatchError if it tells nothing apart."""
    for kind, values in (("heads", part.heads_LH), ("neurons", part.neurons_LF)):
        if not values.any():
            raise silent(name, balance, kind)
    return part


def counted(expressive: Part | None, friendly: Part | None, balance: float) -> Iterator[tuple[str, Part, float]]:
    """The parts of scores that count at a balance: name, part and weight.

    Raises SpecError if the balance is not a number from 0 to 1, MismatchError if a part that counts was not scored.
    """
    check_balance(balance)
    for name, part, weight in (("expressive", expressive, balance), ("student-friendly", friendly, 1 - balance)):
        if weight <= 0:
            continue
        if part is None:
            raise MismatchError(f"a balance of {balance:g} counts {name} scores, and there are none; {_WITHOUT[name]}")
        yield name, part, weight


def silent(name: str, balance: float, kind: str) -> MismatchError:
    """The error of a part that counts and tells nothing apart."""
    return MismatchError(
        f"a balance of {balance:g} counts {name} scores, and those of all {kind} are 0; {_SILENT[name]}"
    )


def normalized(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rows of [L, X] at length 1; one of zeros stays so."""
    lengths: NDArray[np.float64] = np.sqrt(np.square(values).sum(axis=1, keepdims=True))
    return values / (lengths + EPSILON)


def score(
    teacher: Teacher, student: PreTrainedModel | None, sample: Sample, on_rows: Callable[[int], None] | None = None
) -> UnitScores:
    """Score heads and neurons in one pass over some rows, on the device of the teacher.

    Arguments and errors are those of :func:`~hskcache.sparsity.gradients.sum_gradients`, and TeacherError if masks have
    no place in the teacher or a score is not finite.
    """
    tally = _UnitTally(teacher.model)
    sum_gradients(teacher, student, sample, tally, on_rows)
    return tally.scores(teacher.info.name)


def magnitude(model: PreTrainedModel) -> Importance:
    """The L2 norm of the weights that would be zeroed: a head's columns of one Linear, a neuron's column of another."""
    heads, neurons = [], []
    for place in places(model):
        squares_D = place.heads.weight.detach().double().square().sum(0)
        heads.append(squares_D.view(place.num_heads, -1).sum(1).sqrt())
        neurons.append(torch.linalg.vector_norm(place.neurons.weight.detach().double(), dim=0))
    return _importance([torch.stack(heads), torch.stack(neurons)])


def random_importance(model: PreTrainedModel, seed: int) -> Importance:
    """Uniform draws in [0, 1) for heads and neurons, the same for a seed everywhere."""
    layers = places(model)
    heads, neurons = (len(layers), layers[0].num_heads), (len(layers), layers[0].neurons.in_features)
    drawn = uniform(seed, heads[0] * heads[1] + neurons[0] * neurons[1])
    return Importance(drawn[: heads[0] * heads[1]].reshape(heads), drawn[heads[0] * heads[1] :].reshape(neurons))


class _UnitTally:
    """Masks of ones and the sums over batches of what losses' gradients with respect to them are worth."""

    def __init__(self, model: PreTrainedModel) -> None:
        layers = places(model)
        shapes = ((len(layers), layers[0].num_heads), (len(layers), layers[0].neurons.in_features))
        dtype = torch.promote_types(model.dtype, torch.float32)
        self.model = model
        self.watched = [torch.ones(shape, dtype=dtype, device=model.device, requires_grad=True) for shape in shapes]
        self.sums: dict[str, list[Tensor]] = {}

    def watching(self) -> AbstractContextManager[None]:
        """The masks on their places."""
        return masked(self.model, *self.watched)

    def add(self, part: str, gradients: Sequence[Tensor]) -> None:
        """Take up the gradients of one batch."""
        sums = self.sums.setdefault(part, [torch.zeros_like(mask, dtype=torch.float64) for mask in self.watched])
        for total, gradient in zip(sums, gradients, strict=True):
            total += gradient.abs()

    def scores(self, teacher: str) -> UnitScores:
        """Scores that were summed up. Raises TeacherError if one is not finite."""
        require_finite([total for sums in self.sums.values() for total in sums], teacher)
        parts = {part: _importance(sums) for part, sums in self.sums.items()}
        return UnitScores(parts.get(EXPRESSIVE), parts.get(FRIENDLY))


def _importance(tensors: list[Tensor]) -> Importance:
    heads_LH, neurons_LF = (tensor.detach().cpu().numpy() for tensor in tensors)
    return Importance(heads_LH, neurons_LF)
