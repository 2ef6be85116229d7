"""What heads and neurons are worth: to the task, to a student that learns from the teacher, or by simpler measures.

Masks of ones stand on every head and neuron. The expressive score of a head or neuron is the sum over batches of
|d task loss / d mask|, the student-friendly score that of |d distillation loss / d mask|, where the gradient goes
through the teacher's logits as soft targets and the trial student stands still [StarK 3.2]. One pass gives both: the
teacher runs once over each batch, and so does the student.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from hskcache.errors import DataError, MismatchError, TeacherError
from hskcache.sparsity.levels import Importance, check_balance
from hskcache.sparsity.losses import friendly_loss, task_loss
from hskcache.sparsity.masks import masked
from hskcache.sparsity.sample import Sample, uniform
from hskcache.teacher.inputs import fit_rows
from hskcache.teacher.load import Teacher
from hskcache.teacher.places import places
from hskcache.text.padding import padded

__all__ = ["Sample", "Scores", "magnitude", "random_importance", "score"]

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
class Scores:
    """Raw sums over batches, of which any balance can be formed.

    Attributes:
        expressive: of the task loss; None where the rows had no labels.
        friendly: of the distillation loss; None where there was no student.
    """

    expressive: Importance | None
    friendly: Importance | None

    def knowledgeable(self, balance: float) -> Importance:
        """``balance`` * expressive + (1 - ``balance``) * friendly, each of length 1 in every layer [StarK 3.2].

        Args:
            balance: lambda, from 0 to 1.

        Raises:
            SpecError: ``balance`` is not a number from 0 to 1.
            MismatchError: a part that counts was not scored, or its heads or its neurons have no score but 0, so that
                the other part alone would rank them.
        """
        check_balance(balance)
        weighed = (("expressive", self.expressive, balance), ("student-friendly", self.friendly, 1 - balance))
        parts = [(_telling(name, part, balance), weight) for name, part, weight in weighed if weight > 0]
        heads_LH = np.sum([weight * _normalized(part.heads_LH) for part, weight in parts], axis=0)
        neurons_LF = np.sum([weight * _normalized(part.neurons_LF) for part, weight in parts], axis=0)
        return Importance(heads_LH, neurons_LF)


def _telling(name: str, part: Importance | None, balance: float) -> Importance:
    """A part of the scores that counts.

    Raises:
        MismatchError: there is none, or it tells nothing apart.
    """
    if part is None:
        raise MismatchError(f"a balance of {balance:g} counts {name} scores, and there are none; {_WITHOUT[name]}")
    for kind, values in (("heads", part.heads_LH), ("neurons", part.neurons_LF)):
        if not values.any():
            raise MismatchError(
                f"a balance of {balance:g} counts {name} scores, and those of all {kind} are 0; {_SILENT[name]}"
            )
    return part


def _normalized(values: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths: NDArray[np.float64] = np.sqrt(np.square(values).sum(axis=1, keepdims=True))
    return values / (lengths + EPSILON)


def score(
    teacher: Teacher,
    student: PreTrainedModel | None,
    sample: Sample,
    on_rows: Callable[[int], None] | None = None,
) -> Scores:
    """Score heads and neurons in one pass over some rows, on the device of the teacher.

    Args:
        teacher: a classifier, or of one output for a regression; it is left as it was.
        student: the trial student, of as many outputs, which is moved there; None leaves the friendly part out.
        sample: the rows; without labels the expressive part is left out.
        on_rows: called with the number of rows after each batch.

    Raises:
        DataError: there are no rows.
        MismatchError: there is neither a student nor a label, or one of them does not fit the teacher.
        TeacherError: masks have no place in the teacher, a model cannot read the rows, or a score is not finite.
    """
    _check(teacher, student, sample)
    taught = _Reader(teacher.model, teacher, sample, teacher.info.name)
    trial = None if student is None else _Reader(student.to(teacher.device), teacher, sample, "the trial student")
    tally = _Tally(teacher.model)
    with ExitStack() as stack:
        # A caller may have turned gradients off.
        stack.enter_context(torch.enable_grad())
        stack.enter_context(masked(teacher.model, *tally.masks))
        for reader in (taught, trial):
            if reader is not None:
                stack.enter_context(_still(reader.model))
        for index_B in sample.batches:
            losses, logits_BC = {}, taught.logits(index_B)
            if sample.labels is not None:
                labels_B = torch.from_numpy(sample.labels[index_B]).to(teacher.device)
                losses["expressive"] = task_loss(logits_BC, labels_B)
            if trial is not None:
                losses["friendly"] = friendly_loss(logits_BC, trial.constant_logits(index_B), sample.temperature)
            tally.add(losses)
            if on_rows is not None:
                on_rows(len(index_B))
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
    found = places(model)
    heads, neurons = (len(found), found[0].num_heads), (len(found), found[0].neurons.in_features)
    drawn = uniform(seed, heads[0] * heads[1] + neurons[0] * neurons[1])
    return Importance(drawn[: heads[0] * heads[1]].reshape(heads), drawn[heads[0] * heads[1] :].reshape(neurons))


class _Reader:
    """A model and the rows of a sample as it reads them.

    Args:
        model: on the device of the teacher.
        teacher: whose tokenizer made the rows.
        sample: the rows.
        name: of the model, for messages.
    """

    def __init__(self, model: PreTrainedModel, teacher: Teacher, sample: Sample, name: str) -> None:
        self.model = model
        self.pad_token_id = teacher.pad_token_id
        self.rows = fit_rows(model, sample.rows, (name, sample.source))

    def logits(self, index_B: NDArray[np.int64]) -> Tensor:
        """Logits [B, C], at least float32."""
        inputs = padded(self.rows, index_B, self.pad_token_id)
        device = self.model.device
        tensors = {name: torch.from_numpy(array).to(device) for name, array in inputs.items()}
        logits_BC: Tensor = self.model(**tensors).logits
        return logits_BC.to(torch.promote_types(logits_BC.dtype, torch.float32))

    def constant_logits(self, index_B: NDArray[np.int64]) -> Tensor:
        """The same without a gradient."""
        with torch.no_grad():
            return self.logits(index_B)


class _Tally:
    """Masks of ones and the sums over batches of what losses' gradients with respect to them are worth."""

    def __init__(self, model: PreTrainedModel) -> None:
        found = places(model)
        shapes = ((len(found), found[0].num_heads), (len(found), found[0].neurons.in_features))
        dtype = torch.promote_types(model.dtype, torch.float32)
        self.masks = [torch.ones(shape, dtype=dtype, device=model.device, requires_grad=True) for shape in shapes]
        self.sums: dict[str, list[Tensor]] = {}

    def add(self, losses: dict[str, Tensor]) -> None:
        """Take up the losses of one batch, by part; their graph goes."""
        for number, (part, loss) in enumerate(losses.items(), start=1):
            gradients = torch.autograd.grad(loss, self.masks, retain_graph=number < len(losses))
            sums = self.sums.setdefault(part, [torch.zeros_like(mask, dtype=torch.float64) for mask in self.masks])
            for total, gradient in zip(sums, gradients, strict=True):
                total += gradient.abs()

    def scores(self, teacher: str) -> Scores:
        """What was summed up.

        Raises:
            TeacherError: it is not finite.
        """
        if not all(torch.isfinite(total).all() for sums in self.sums.values() for total in sums):
            raise TeacherError(
                f"the gradients of {teacher} on these rows are not finite, so nothing tells which heads and neurons "
                "matter; give a teacher and a trial student whose losses on these rows are finite"
            )
        parts = {part: _importance(sums) for part, sums in self.sums.items()}
        return Scores(parts.get("expressive"), parts.get("friendly"))


def _importance(tensors: list[Tensor]) -> Importance:
    heads_LH, neurons_LF = (tensor.detach().cpu().numpy() for tensor in tensors)
    return Importance(heads_LH, neurons_LF)


def _check(teacher: Teacher, student: PreTrainedModel | None, sample: Sample) -> None:
    if not len(sample):
        raise DataError(f"{sample.source} has no rows to score heads and neurons on; give some")
    if student is None and sample.labels is None:
        raise MismatchError(
            f"{sample.source} has no labels and there is no trial student, so there is no loss; give one of them"
        )
    if student is not None and int(student.config.num_labels) != teacher.num_labels:
        raise MismatchError(
            f"the trial student has {student.config.num_labels} outputs and {teacher.info.name} has "
            f"{teacher.num_labels}; give a student that was distilled from this teacher"
        )
    classes = teacher.num_labels or 0
    if sample.labels is not None and classes > 1 and int(sample.labels.max()) >= classes:
        raise MismatchError(
            f"{sample.source} has class {int(sample.labels.max())}, counted from 0, and {teacher.info.name} has "
            f"{classes} classes; give rows of its task"
        )


@contextmanager
def _still(model: PreTrainedModel) -> Iterator[None]:
    """A model in eval mode whose parameters take no gradients; modes and flags come back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    model.eval()
    model.requires_grad_(False)
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
