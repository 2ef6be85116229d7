"""Importance of each attention head and each feed-forward neuron of a teacher: one pass over labelled rows.

The importance of a weight is |w| * sum over batches of |dL/dw|, L the task loss of a batch; nothing is updated
[MUD 4.1]. A head's score is the sum over its columns of the attention output projection, a neuron's the sum over its
row of the first feed-forward matrix and its column of the second. As w stays the same, these sums can be taken batch by
batch: one number is kept for a column or a neuron, and each gradient goes as soon as it is there.

Where all layers are ranked together, the importance is that of masks of ones on heads and neurons instead: sum over
batches of |dL/d mask| [StarK 3.2]. The slope of a mask is the sum of w * dL/dw over the weights behind it, signs
and all, so that it comes of the same gradients.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from hskcache.classes import problem_of
from hskcache.encoder import takes_token_types
from hskcache.errors import DataError, TeacherError
from hskcache.inference import check_fit, evaluating, pad_batch
from hskcache.permutation import permutation
from hskcache.text import TokenizedRows

By: TypeAlias = Literal["weights", "masks"]
"""Carrier of the gradients that importance is taken of: single weights, or masks on whole heads and neurons."""


@dataclass(frozen=True, eq=False)
class LabelledBatches:
    """Labelled rows, and the batches in which their loss is taken.

    ``rows``: the tokenized data set, N rows; ``labels``: class index int64 [N], or score float32 [N]; ``batches``: row
    numbers of each batch. Labels of a value for each class are float32 [N, C].
    """

    rows: TokenizedRows
    labels: NDArray[Any]
    batches: Sequence[NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class LayerImportance:
    """Scores of one layer, float64, none negative. ``heads``: [H]; ``neurons``: [F]."""

    heads: NDArray[np.float64]
    neurons: NDArray[np.float64]


def draw_batches(num_rows: int, batch_size: int, seed: int, limit: int | None = None) -> list[NDArray[np.int64]]:
    """Row numbers in batches, in an order drawn from ``seed``, the last batch perhaps smaller.

    With a limit the first ``limit`` rows of that order are taken, so that a larger limit adds rows to the same ones. A
    file may be sorted by label; its first rows would be a poor sample.
    """
    order = permutation(num_rows, seed)[:limit]
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def importance(
    teacher: PreTrainedModel,
    sample: LabelledBatches,
    layers: Sequence[int],
    on_batch: Callable[[int], None] | None = None,
    by: By = "weights",
) -> dict[int, LayerImportance]:
    """Scores of the heads and neurons of some layers, in eval mode on the device where the teacher is.

    A batch's loss is its mean cross entropy, or its mean squared error where the teacher has one output. Returns layer
    -> its scores. Raises DataError if there are no rows; MismatchError if a row is longer than the teacher's positions,
    or holds an id outside its vocabulary; TeacherError if a gradient is not finite.

    Args:
        teacher: a BERT sequence classifier; its weights stay as they are, and it is left without gradients.
        layers: 1-based numbers.
        on_batch: called with the number of rows after each batch.
        by: weights [MUD 4.1] or masks [StarK 3.2].
    """
    if not len(sample.batches):
        raise DataError("there are no rows to learn from which heads and neurons matter; give some with --data")
    check_fit(teacher, sample.rows)
    num_heads = int(teacher.config.num_attention_heads)
    kind = _LayerTally if by == "weights" else _LayerMasks
    tallies = {layer: kind(teacher.base_model.encoder.layer[layer - 1], num_heads) for layer in layers}
    wanted = [tally for layer in tallies.values() for tally in layer.matrices]
    with evaluating(teacher), _gradients_for(teacher, wanted):
        for indices in sample.batches:
            torch.autograd.backward(_loss(teacher, sample, indices))
            if on_batch is not None:
                on_batch(len(indices))
    by_layer = {layer: tally.importance() for layer, tally in tallies.items()}
    for layer, scores in by_layer.items():
        if not (np.isfinite(scores.heads).all() and np.isfinite(scores.neurons).all()):
            raise TeacherError(
                f"the gradients of the teacher's layer {layer} are not finite, so nothing tells which heads and "
                "neurons matter; give a teacher whose loss on these rows is finite"
            )
    return by_layer


class _MatrixTally:
    """Sums |w dL/dw| of one matrix over one of its dimensions, batch by batch, and lets each gradient go at once."""

    def __init__(self, weight: nn.Parameter, dim: int) -> None:
        self.weight, self.dim = weight, dim
        self.total = torch.zeros(weight.shape[1 - dim], dtype=torch.float64, device=weight.device)

    def add(self, weight: Tensor) -> None:
        """Take up the gradient that has just been computed."""
        assert weight.grad is not None
        self.total += (weight.detach() * weight.grad).abs_().sum(self.dim, dtype=torch.float64)
        weight.grad = None


class _MaskTally:
    """Sums |dL/d mask| of the masks on the inputs of one matrix, each on as many neighbouring columns."""

    def __init__(self, weight: nn.Parameter, num_masks: int) -> None:
        self.weight = weight
        self.total = torch.zeros(num_masks, dtype=torch.float64, device=weight.device)

    def add(self, weight: Tensor) -> None:
        """Take up the gradient that has just been computed."""
        assert weight.grad is not None
        slopes_D = (weight.detach() * weight.grad).sum(0, dtype=torch.float64)
        self.total += slopes_D.view(len(self.total), -1).sum(1).abs()
        weight.grad = None


class _LayerMasks:
    """The two matrices of a layer that its heads and its neurons contribute through."""

    def __init__(self, layer: nn.Module, num_heads: int) -> None:
        self.heads = _MaskTally(layer.get_parameter("attention.output.dense.weight"), num_heads)
        second = layer.get_parameter("output.dense.weight")
        self.neurons = _MaskTally(second, second.shape[1])
        self.matrices = (self.heads, self.neurons)

    def importance(self) -> LayerImportance:
        """Importance that was summed up."""
        return LayerImportance(self.heads.total.cpu().numpy(), self.neurons.total.cpu().numpy())


class _LayerTally:
    """The three matrices of a layer that tell what its heads and neurons are worth."""

    def __init__(self, layer: nn.Module, num_heads: int) -> None:
        self.num_heads = num_heads
        self.projection = _MatrixTally(layer.get_parameter("attention.output.dense.weight"), dim=0)
        self.first = _MatrixTally(layer.get_parameter("intermediate.dense.weight"), dim=1)
        self.second = _MatrixTally(layer.get_parameter("output.dense.weight"), dim=0)
        self.matrices = (self.projection, self.first, self.second)

    def importance(self) -> LayerImportance:
        """Importance that was summed up; the columns of a head are neighbours."""
        heads = self.projection.total.view(self.num_heads, -1).sum(dim=1)
        neurons = self.first.total + self.second.total
        return LayerImportance(heads.cpu().numpy(), neurons.cpu().numpy())


@contextmanager
def _gradients_for(teacher: PreTrainedModel, tallies: Sequence[_MatrixTally | _MaskTally]) -> Iterator[None]:
    """Let a backward pass compute the gradients of these matrices and of nothing else."""
    flags = [(parameter, parameter.requires_grad) for parameter in teacher.parameters()]
    with ExitStack() as stack:
        for parameter, flag in flags:
            stack.callback(parameter.requires_grad_, flag)
            parameter.requires_grad_(False)
        for tally in tallies:
            weight: Any = tally.weight  # torch leaves its hooks untyped
            weight.requires_grad_(True)
            weight.grad = None
            stack.callback(weight.register_post_accumulate_grad_hook(tally.add).remove)
        yield


def _loss(teacher: PreTrainedModel, sample: LabelledBatches, indices: NDArray[np.int64]) -> Tensor:
    device = teacher.device
    inputs = pad_batch(sample.rows, indices, teacher.config.pad_token_id or 0)
    if not takes_token_types(teacher):
        inputs.pop("token_type_ids", None)
    logits_BC = teacher(**{name: tensor.to(device) for name, tensor in inputs.items()}).logits.float()
    labels_B = torch.from_numpy(sample.labels[indices]).to(device)
    if problem_of(teacher.config) == "multilabel":
        return F.binary_cross_entropy_with_logits(logits_BC, labels_B)
    if logits_BC.shape[1] == 1:
        return F.mse_loss(logits_BC[:, 0], labels_B.float())
    return F.cross_entropy(logits_BC, labels_B)
