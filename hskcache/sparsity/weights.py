"""Unstructured sparsity: single weights of a teacher instead of whole heads and neurons.

What may go are the six matrices of every encoder layer: query, key, value and output projection of the attention, and
both matrices of the feed-forward network. Embeddings, LayerNorms, biases, the pooler and the classifier stay.

A weight is scored as a head or neuron is, by a mask of 1 that multiplies it: as the slope of the loss with respect to
the mask of w is w * dL/dw, its expressive score is the sum over batches of |w * d task loss / dw|, its student-friendly
score that of |w * d distillation loss / dw|. This carries the definition of [StarK 3.2], by masks, over to them from
heads and neurons; |dL/dw| alone would rank a weight that is 0 already by what it might become.

In the names of arrays P counts the weights of a layer: its matrices one after the other, each row by row.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from hskcache.sparsity.gradients import EXPRESSIVE, FRIENDLY, require_finite, sum_gradients
from hskcache.sparsity.sample import Sample
from hskcache.sparsity.scores import counted, normalized, silent
from hskcache.teacher.load import Teacher
from hskcache.teacher.places import places

_MODULUS = 1 << 64


@dataclass(frozen=True, eq=False)
class WeightScores:
    """Raw sums over batches, of which any balance can be formed, float32 [L, P] each.

    ``expressive``: of the task loss; None where the rows had no labels. ``friendly``: of the distillation loss; None
    where there was no student.
    """

    expressive: NDArray[np.float32] | None
    friendly: NDArray[np.float32] | None

    def knowledgeable(self, balance: float) -> NDArray[np.float32]:
        """``balance`` * expressive + (1 - ``balance``) * friendly, each of length 1 in every layer: float32 [L, P].

        Raises SpecError if ``balance``, lambda, is not a number from 0 to 1; MismatchError if
        a part that counts was not scored, or has no score but 0.
        """
        parts: list[tuple[NDArray[np.float32], float]] = []
        for name, part_LP, weight in counted(self.expressive, self.friendly, balance):
            if not part_LP.any():
                raise silent(name, balance, "weights")
            parts.append((part_LP, weight))
        mixed_LP = np.zeros_like(parts[0][0])
        for layer, mixed_P in enumerate(mixed_LP):
            # A layer at a time: float64 of all would take twice the memory of the scores.
            each = (weight * normalized(part_LP[layer : layer + 1].astype(np.float64))[0] for part_LP, weight in parts)
            mixed_P[:] = sum(each)
        return mixed_LP


def matrices(model: PreTrainedModel) -> list[list[Tensor]]:
    """The matrices [out, in] that weights may be removed from, by layer.

    Raises TeacherError if the model is not built as BERT, RoBERTa, ELECTRA or DistilBERT are.
    """
    by_layer = []
    for place in places(model):
        names = (*place.names.attended, place.names.heads, place.names.first, place.names.neurons)
        by_layer.append([place.linear(name).weight for name in names])
    return by_layer


def score_weights(
    teacher: Teacher, student: PreTrainedModel | None, sample: Sample, on_rows: Callable[[int], None] | None = None
) -> WeightScores:
    """Score every weight in one pass over some rows; arguments and errors as of :func:`hskcache.sparsity.scores.score`.

    It takes the memory of two gradients and two sums: 16 bytes a weight, and as much as a backward pass beside.
    """
    tally = _WeightTally(teacher.model)
    sum_gradients(teacher, student, sample, tally, on_rows)
    return tally.scores(teacher.info.name)


def weight_magnitude(model: PreTrainedModel) -> NDArray[np.float32]:
    """|w| of every weight, float32 [L, P]."""
    return _stacked([[weight.detach().abs() for weight in layer] for layer in matrices(model)])


def random_weights(model: PreTrainedModel, seed: int) -> NDArray[np.float32]:
    """Uniform draws in [0, 1) for all weights, the same for a seed everywhere: float32 [L, P], multiples of 2**-24."""
    by_layer = matrices(model)
    drawn_LP = np.empty((len(by_layer), sum(weight.numel() for weight in by_layer[0])), np.float32)
    stream = np.random.Philox(key=seed % _MODULUS)
    for drawn_P in drawn_LP:
        drawn_P[:] = stream.random_raw(len(drawn_P)) >> np.uint64(40)
    drawn_LP *= np.float32(2.0**-24)
    return drawn_LP


@contextmanager
def without_weights(model: PreTrainedModel, kept_LP: NDArray[np.bool_]) -> Iterator[None]:
    """A model whose weights that are not kept are 0.0; they come back bit for bit, whatever happens inside."""
    layers = matrices(model)
    # Where in P each matrix ends but the last one.
    ends = np.cumsum([weight.numel() for weight in layers[0]])[:-1]
    removed = [
        (weight, torch.from_numpy(~kept).view(weight.shape).to(weight.device))
        for layer, kept_P in zip(layers, kept_LP, strict=True)
        for weight, kept in zip(layer, np.split(kept_P, ends), strict=True)
    ]
    with torch.no_grad():
        saved = [weight[mask] for weight, mask in removed]
    try:
        with torch.no_grad():
            for weight, mask in removed:
                weight.masked_fill_(mask, 0.0)
        yield
    finally:
        with torch.no_grad():
            for (weight, mask), values in zip(removed, saved, strict=True):
                weight[mask] = values


def _stacked(layers: Sequence[Sequence[Tensor]]) -> NDArray[np.float32]:
    return np.stack([torch.cat([one.reshape(-1).float() for one in layer]).cpu().numpy() for layer in layers])


class _WeightTally:
    """Sums over batches of |w * dL/dw|, float32 where the weights are."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.matrices = matrices(model)
        self.watched = [weight for layer in self.matrices for weight in layer]
        self.sums: dict[str, list[Tensor]] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Gradients for these weights; who calls has turned off all others, and puts all flags back."""
        for weight in self.watched:
            weight.requires_grad_(True)
        yield

    def add(self, part: str, gradients: Sequence[Tensor]) -> None:
        """Take up the gradients of one batch."""
        sums = self.sums.setdefault(part, [torch.zeros_like(weight, dtype=torch.float32) for weight in self.watched])
        with torch.no_grad():
            for total, weight, gradient in zip(sums, self.watched, gradients, strict=True):
                total += (weight * gradient).abs_()

    def scores(self, teacher: str) -> WeightScores:
        """Scores that were summed up. Raises TeacherError if one is not finite."""
        require_finite([total for sums in self.sums.values() for total in sums], teacher, "weights")
        num = len(self.matrices[0])
        parts = {
            part: _stacked([sums[start : start + num] for start in range(0, len(sums), num)])
            for part, sums in self.sums.items()
        }
        return WeightScores(parts.get(EXPRESSIVE), parts.get(FRIENDLY))
