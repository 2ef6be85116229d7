"""Losses on the student's output: against the teacher's logits and against the labels."""

import torch
from torch import Tensor
from torch.nn import functional as F

from hskcache.classes import NO_CLASS
from trainer.losses.abc import LossTerm, Seen, present
from trainer.recipe import LabelTerm, SoftTerm


def soft_label_loss(
    student_BC: Tensor, teacher_BC: Tensor, temperature: float, num_rows: int, temperature_squared: bool = False
) -> Tensor:
    """Soft cross entropy -softmax(z_t / T) . log softmax(z_s / T), summed over classes [TinyBERT 3.1, eq. 10].

    Its gradient falls with T as 1 / T^2, so that beside a loss to the labels it is multiplied by T^2 ("Distilling the
    Knowledge in a Neural Network", Hinton et al., 2015, arXiv 1503.02531, section 2). For regression, C = 1, it is the
    squared error to the teacher's score, in which no temperature has a part. ``student_BC``: the student's logits;
    ``teacher_BC``: the teacher's, stored, without gradient; ``temperature``: T, above 0; ``num_rows``: rows of the
    global batch; ``temperature_squared``: whether to multiply by T^2.
    """
    student_BC = student_BC.float()
    if student_BC.shape[1] == 1:
        return F.mse_loss(student_BC, teacher_BC, reduction="sum") / num_rows
    soft = F.softmax(teacher_BC / temperature, dim=-1)
    loss = -(soft * F.log_softmax(student_BC / temperature, dim=-1)).sum() / num_rows
    return loss * temperature**2 if temperature_squared else loss


def label_loss(student_BC: Tensor, labels_B: Tensor, num_rows: int) -> Tensor:
    """Cross entropy to the class index, or the squared error to the gold score where C = 1.

    A row without a gold label, NO_CLASS or NaN, adds nothing: every label has the same weight, whatever batch it is in.
    """
    student_BC = student_BC.float()
    if student_BC.shape[1] == 1:
        scores_B, labels_B = student_BC[:, 0], labels_B.float()
        labels_B = torch.where(labels_B.isnan(), scores_B.detach(), labels_B)
        return F.mse_loss(scores_B, labels_B, reduction="sum") / num_rows
    return F.cross_entropy(student_BC, labels_B, ignore_index=NO_CLASS, reduction="sum") / num_rows


class SoftLoss(LossTerm[SoftTerm]):
    """Against the teacher's logits."""

    def loss(self, settings: SoftTerm, seen: Seen) -> Tensor:
        """Loss over the rows of the global batch, or over their words."""
        teacher_BC = present(seen.batch.logits, "logits")
        how = (settings.temperature, seen.batch.num_answers, settings.temperature_squared)
        return soft_label_loss(_answers(seen), teacher_BC, *how)


class LabelLoss(LossTerm[LabelTerm]):
    """Against the labels."""

    def loss(self, settings: LabelTerm, seen: Seen) -> Tensor:
        """Loss over the rows of the global batch, or over their words."""
        return label_loss(_answers(seen), present(seen.batch.labels, "labels"), seen.batch.num_answers)


def _answers(seen: Seen) -> Tensor:
    """The student's logits [B, C]; of rows of words those at their first pieces, [P, C]."""
    logits: Tensor = seen.output.logits
    first_pieces = seen.batch.first_pieces
    return logits if first_pieces is None else logits.flatten(0, 1).index_select(0, first_pieces)
