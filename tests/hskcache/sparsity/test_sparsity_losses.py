"""The friendly loss is a function of the teacher's logits, with the gradient that was derived by hand."""

import math

import pytest
import torch
from torch.nn import functional as F

from hskcache.sparsity.losses import friendly_loss, task_loss


def by_hand(teacher_BC: torch.Tensor, student_BC: torch.Tensor, temperature: float) -> torch.Tensor:
    """(T / 2B) p_k (c_k - sum_j p_j c_j), row by row and class by class."""
    found = torch.zeros_like(teacher_BC)
    for row, (teacher, student) in enumerate(zip(teacher_BC.tolist(), student_BC.tolist(), strict=True)):
        total = sum(math.exp(z / temperature) for z in teacher)
        p = [math.exp(z / temperature) / total for z in teacher]
        log_total = math.log(sum(math.exp(z / temperature) for z in student))
        c = [log_total - z / temperature for z in student]
        mean = sum(pj * cj for pj, cj in zip(p, c, strict=True))
        for k in range(len(p)):
            found[row, k] = temperature / (2 * len(teacher_BC)) * p[k] * (c[k] - mean)
    return found


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_the_gradient_at_the_teachers_logits(temperature: float) -> None:
    draw = torch.Generator().manual_seed(0)
    student = torch.randn(3, 4, generator=draw, dtype=torch.float64)
    for teacher in (torch.randn(3, 4, generator=draw, dtype=torch.float64), student.clone()):
        teacher.requires_grad_()
        (gradient,) = torch.autograd.grad(friendly_loss(teacher, student, temperature), teacher)
        torch.testing.assert_close(gradient, by_hand(teacher.detach(), student, temperature), rtol=1e-12, atol=1e-14)
        # Not even where student and teacher agree.
        assert gradient.abs().max() > 1e-3


def test_its_value() -> None:
    """Half of T^2 times the soft cross entropies 0.360688 (T=1) and 0.565290 (T=2) of one row."""
    teacher, student = torch.tensor([[2.0, -1.0]]), torch.tensor([[1.0, 0.0]])
    assert friendly_loss(teacher, student, 1.0).item() == pytest.approx(0.360688 / 2, abs=1e-6)
    assert friendly_loss(teacher, student, 2.0).item() == pytest.approx(4 * 0.565290 / 2, abs=3e-6)
    twice = friendly_loss(teacher.repeat(2, 1), student.repeat(2, 1), 2.0)
    assert twice.item() == pytest.approx(4 * 0.565290 / 2, abs=3e-6)


def test_of_a_regression_it_is_half_the_squared_error() -> None:
    teacher, student = torch.tensor([[2.0], [0.0]]), torch.tensor([[1.0], [3.0]])
    assert friendly_loss(teacher, student, 7.0).item() == pytest.approx((1 + 9) / 2 / 2)


def test_the_task_loss() -> None:
    logits = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    expected = -(F.log_softmax(logits, -1)[0, 1] + F.log_softmax(logits, -1)[1, 1]) / 2
    assert task_loss(logits, torch.tensor([1, 1])).item() == pytest.approx(expected.item())
    assert task_loss(torch.tensor([[1.0], [3.0]]), torch.tensor([2.0, 0.5])).item() == pytest.approx((1 + 6.25) / 2)
