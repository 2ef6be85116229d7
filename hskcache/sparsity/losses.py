"""The two losses whose gradients say what heads and neurons are worth [StarK 3]."""

from torch import Tensor
from torch.nn import functional as F


def task_loss(logits_BC: Tensor, labels_B: Tensor) -> Tensor:
    """Mean cross entropy to the class index int64, or mean squared error to the score where C = 1; a scalar."""
    if logits_BC.shape[1] == 1:
        return F.mse_loss(logits_BC[:, 0], labels_B.to(logits_BC.dtype))
    return F.cross_entropy(logits_BC, labels_B)


def friendly_loss(teacher_BC: Tensor, student_BC: Tensor, temperature: float) -> Tensor:
    """The teacher's half of the distillation loss, as a function of the teacher's logits [StarK 3.2]; a scalar.

    It is T^2 / 2 times the mean over rows of -softmax(z_t / T) . log softmax(z_s / T), and half the mean squared error
    of the two scores where C = 1. With c = -log softmax(z_s / T) and p = softmax(z_t / T) its gradient at z_t[k] is (T
    / 2B) p_k (c_k - sum_j p_j c_j), which is not zero where student and teacher agree. ``teacher_BC``: soft targets,
    through which the gradient goes; ``student_BC``: the trial student's logits, a constant; ``temperature``: T, above
    0.
    """
    if teacher_BC.shape[1] == 1:
        return F.mse_loss(teacher_BC, student_BC) / 2
    soft_BC = F.softmax(teacher_BC / temperature, dim=-1)
    costs_BC = -F.log_softmax(student_BC / temperature, dim=-1)
    return temperature**2 / 2 * (soft_BC * costs_BC).sum(-1).mean()
