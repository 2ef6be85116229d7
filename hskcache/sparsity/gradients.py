"""One pass over some rows: the gradients of the two losses, batch by batch, with respect to whatever is scored.

The teacher runs once over each batch, and so does the trial student, which stands still; the gradient of the
distillation loss goes through the teacher's logits as soft targets [StarK 3.2].
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from hskcache.classes import require_outputs
from hskcache.counted import counted
from hskcache.errors import DataError, MismatchError, TeacherError
from hskcache.sparsity.losses import friendly_loss, task_loss
from hskcache.sparsity.sample import Sample
from hskcache.teacher.inputs import fit_rows
from hskcache.teacher.load import Teacher
from hskcache.text.padding import padded

EXPRESSIVE, FRIENDLY = "expressive", "friendly"
"""The parts of the scores: of the task loss, of the distillation loss."""


class Tally(Protocol):
    """Sums over batches of what gradients are worth."""

    @property
    def watched(self) -> Sequence[Tensor]:
        """Tensors that gradients are taken with respect to."""

    def watching(self) -> AbstractContextManager[None]:
        """Let the teacher's answers depend on it, while the context lasts."""

    def add(self, part: str, gradients: Sequence[Tensor]) -> None:
        """Take up the gradients of one batch's loss."""


def sum_gradients(
    teacher: Teacher,
    student: PreTrainedModel | None,
    sample: Sample,
    tally: Tally,
    on_rows: Callable[[int], None] | None = None,
) -> None:
    """Hand the gradients of every batch's losses to a tally, on the device of the teacher.

    Raises DataError if there are no rows; MismatchError if there is neither a student nor a label, or one of them does
    not fit the teacher; TeacherError if a model cannot read the rows.

    Args:
        teacher: a classifier, or of one output for a regression; it is left as it was.
        student: the trial student, of as many outputs, which is moved there; None leaves the friendly part out.
        sample: the rows; without labels the expressive part is left out.
        on_rows: called with the number of rows after each batch.
    """
    _check(teacher, student, sample)
    taught = _Reader(teacher.model, teacher, sample, teacher.info.name)
    trial = None if student is None else _Reader(student.to(teacher.device), teacher, sample, "the trial student")
    with ExitStack() as stack:
        # A caller may have turned gradients off.
        stack.enter_context(torch.enable_grad())
        for reader in (taught, trial):
            if reader is not None:
                stack.enter_context(_still(reader.model))
        stack.enter_context(tally.watching())
        for index_B in sample.batches:
            losses, logits_BC = {}, taught.logits(index_B)
            if sample.labels is not None:
                labels_B = torch.from_numpy(sample.labels[index_B]).to(teacher.device)
                losses[EXPRESSIVE] = task_loss(logits_BC, labels_B)
            if trial is not None:
                with torch.no_grad():
                    learned_BC = trial.logits(index_B)
                losses[FRIENDLY] = friendly_loss(logits_BC, learned_BC, sample.temperature)
            for number, (part, loss) in enumerate(losses.items(), start=1):
                tally.add(part, torch.autograd.grad(loss, tally.watched, retain_graph=number < len(losses)))
            if on_rows is not None:
                on_rows(len(index_B))


def require_finite(sums: Sequence[Tensor], teacher: str, what: str = "heads and neurons") -> None:
    """Refuse scores that are not finite; raises TeacherError."""
    if not all(torch.isfinite(total).all() for total in sums):
        raise TeacherError(
            f"the gradients of {teacher} on these rows are not finite, so nothing tells which {what} "
            "matter; give a teacher and a trial student whose losses on these rows are finite"
        )


class _Reader:
    """A model on the device of the teacher whose tokenizer made the rows of a sample, and these as it reads them."""

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


def _check(teacher: Teacher, student: PreTrainedModel | None, sample: Sample) -> None:
    if not len(sample):
        raise DataError(f"{sample.source} has no rows to score on; give some")
    if student is None and sample.labels is None:
        raise MismatchError(
            f"{sample.source} has no labels and there is no trial student, so there is no loss; give one of them"
        )
    classes = teacher.num_labels or 0
    if student is not None:
        remedy = "a student that was distilled from this teacher"
        require_outputs("the trial student", student.config, teacher.info.name, classes, remedy)
    if sample.labels is not None and classes > 1 and int(sample.labels.max()) >= classes:
        raise MismatchError(
            f"{sample.source} has class {int(sample.labels.max())}, counted from 0, and {teacher.info.name} has "
            f"{counted(classes, 'class', 'classes')}; give rows of its task"
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
