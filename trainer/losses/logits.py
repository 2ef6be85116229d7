"""Losses on the student's output: against the teacher's logits and against the labels."""

from collections.abc import Callable

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
    """Cross entropy to the class index [B] or the distribution [B, C], or squared error to the gold score where C = 1.

    To a distribution p it is -p . log softmax(z_s), summed over classes, as torch's. A row without a gold label,
    NO_CLASS or NaN, adds nothing: every label has the same weight, whatever batch it is in.
    """
    student_BC = student_BC.float()
    if labels_B.dim() == 2:
        return _sum_of_gold(lambda gold_BC: F.cross_entropy(student_BC, gold_BC, reduction="none"), labels_B) / num_rows
    if student_BC.shape[1] == 1:
        scores_B, labels_B = student_BC[:, 0], labels_B.float()
        labels_B = torch.where(labels_B.isnan(), scores_B.detach(), labels_B)
        return F.mse_loss(scores_B, labels_B, reduction="sum") / num_rows
    return F.cross_entropy(student_BC, labels_B, ignore_index=NO_CLASS, reduction="sum") / num_rows


def soft_multilabel_loss(
    student_BC: Tensor, teacher_BC: Tensor, temperature: float, num_rows: int, temperature_squared: bool = False
) -> Tensor:
    """Binary cross entropy of sigmoid(z_s / T) to sigmoid(z_t / T), the mean over classes of a row.

    Each class is a problem of its own, answered yes or no: up to the entropy of the teacher it is the divergence
    KL(Bernoulli(sigmoid(z_t / T)) || Bernoulli(sigmoid(z_s / T))) that "Multi-Label Knowledge Distillation" (Yang et
    al., 2023, arXiv 2308.06453, section 3) sums over the classes at T = 1; the mean is what transformers takes of the
    loss to the labels. Arguments are those of :func:`soft_label_loss`.
    """
    soft_BC = torch.sigmoid(teacher_BC.float() / temperature)
    loss_BC = F.binary_cross_entropy_with_logits(student_BC.float() / temperature, soft_BC, reduction="none")
    loss = loss_BC.mean(1).sum() / num_rows
    return loss * temperature**2 if temperature_squared else loss


def multilabel_loss(student_BC: Tensor, labels_BC: Tensor, num_rows: int) -> Tensor:
    """Binary cross entropy of sigmoid(z_s) to labels in [0, 1], the mean over classes, as transformers has it.

    A row without a gold label, NaN, adds nothing.
    """

    def of_rows(gold_BC: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(student_BC.float(), gold_BC, reduction="none").mean(1)

    return _sum_of_gold(of_rows, labels_BC) / num_rows


def _sum_of_gold(of_rows: Callable[[Tensor], Tensor], labels_BC: Tensor) -> Tensor:
    """The sum of the losses [B] of rows that have a gold label."""
    is_gold_B = ~labels_BC.isnan().any(1)
    return (of_rows(labels_BC.float().nan_to_num()) * is_gold_B).sum()


class SoftLoss(LossTerm[SoftTerm]):
    """Against the teacher's logits."""

    def loss(self, settings: SoftTerm, seen: Seen) -> Tensor:
        """Loss over the rows of the global batch, or over their words."""
        teacher_BC = present(seen.batch.logits, "logits")
        how = (settings.temperature, seen.batch.num_answers, settings.temperature_squared)
        taken = soft_multilabel_loss if seen.is_multilabel else soft_label_loss
        return taken(_answers(seen), teacher_BC, *how)


class LabelLoss(LossTerm[LabelTerm]):
    """Against the labels."""

    def loss(self, settings: LabelTerm, seen: Seen) -> Tensor:
        """Loss over the rows of the global batch, or over their words."""
        taken = multilabel_loss if seen.is_multilabel else label_loss
        return taken(_answers(seen), present(seen.batch.labels, "labels"), seen.batch.num_answers)


def _answers(seen: Seen) -> Tensor:
    """The student's logits [B, C]; of rows of words those at their first pieces, [P, C]."""
    logits: Tensor = seen.output.logits
    answered = seen.batch.answered
    return logits if answered is None else logits.flatten(0, 1).index_select(0, answered)
