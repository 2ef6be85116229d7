"""Losses on the student's output, against the exact cases of the papers and against plain PyTorch."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from trainer.losses import label_loss, soft_label_loss


@pytest.mark.parametrize(("temperature", "expected"), [(1.0, 0.360688), (2.0, 0.565290)])
def test_soft_labels_have_no_factor_of_the_temperature(temperature: float, expected: float) -> None:
    loss = soft_label_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, -1.0]]), temperature, num_rows=1)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("temperature", "expected"), [(1.0, 0.360688), (2.0, 4 * 0.565290), (0.5, 0.25 * 0.131873)])
def test_soft_labels_are_multiplied_by_the_squared_temperature_where_that_is_asked_for(
    temperature: float, expected: float
) -> None:
    student, teacher = torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, -1.0]])
    loss = soft_label_loss(student, teacher, temperature, num_rows=1, temperature_squared=True)
    soft = 1 / (1 + math.exp(-3 / temperature)), 1 / (1 + math.exp(3 / temperature))
    normaliser = math.log(math.exp(1 / temperature) + 1)
    by_hand = temperature**2 * (normaliser - soft[0] / temperature)
    assert sum(soft) == pytest.approx(1)
    assert loss.item() == pytest.approx(by_hand, rel=1e-6)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_with_the_factor_the_gradient_at_a_high_temperature_is_that_of_the_squared_error_of_logits() -> None:
    """Hinton et al. 2015, eq. 4: of logits with mean 0 it is their difference over the number of classes."""
    student = torch.tensor([[1.0, 0.5, -1.5]], requires_grad=True)
    teacher = torch.tensor([[-2.0, 3.0, -1.0]])
    (gradient,) = torch.autograd.grad(soft_label_loss(student, teacher, 1e3, 1, temperature_squared=True), student)
    torch.testing.assert_close(gradient, (student.detach() - teacher) / 3, rtol=1e-2, atol=0)


def test_soft_labels_are_summed_over_classes_and_averaged_over_rows() -> None:
    student, teacher = torch.randn(7, 3, generator=torch.Generator().manual_seed(0)), torch.randn(7, 3)
    expected = F.cross_entropy(student, F.softmax(teacher, -1))
    assert soft_label_loss(student, teacher, 1.0, num_rows=7).item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_single_output_is_a_score_and_squared() -> None:
    student, teacher = torch.tensor([[1.0], [3.0]]), torch.tensor([[2.0], [1.0]])
    for squared in (False, True):
        loss = soft_label_loss(student, teacher, 2.0, num_rows=2, temperature_squared=squared)
        assert loss.item() == pytest.approx((1 + 4) / 2), "which no temperature changes"
    assert label_loss(student, torch.tensor([2.0, 1.0]), num_rows=2).item() == pytest.approx((1 + 4) / 2)


def test_labels_are_cross_entropy_averaged_over_rows() -> None:
    student, labels = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 3, 1, 1, 2])
    assert label_loss(student, labels, num_rows=5).item() == pytest.approx(F.cross_entropy(student, labels).item())


@pytest.mark.parametrize("classes", [1, 3])
def test_slices_of_a_batch_add_up_to_its_loss(classes: int) -> None:
    student, teacher = torch.randn(6, classes), torch.randn(6, classes)
    labels = torch.randn(6) if classes == 1 else torch.tensor([0, 1, 2, 0, 1, 2])

    def losses(rows: slice) -> Tensor:
        soft = soft_label_loss(student[rows], teacher[rows], 2.0, num_rows=6)
        return torch.stack([soft, label_loss(student[rows], labels[rows], num_rows=6)])

    parts = losses(slice(0, 1)) + losses(slice(1, 6))
    torch.testing.assert_close(parts, losses(slice(0, 6)))


def test_half_precision_logits_give_a_float32_loss() -> None:
    student = torch.randn(4, 2).bfloat16()
    assert soft_label_loss(student, torch.randn(4, 2), 1.0, 4).dtype == torch.float32
    assert label_loss(student, torch.zeros(4, dtype=torch.int64), 4).dtype == torch.float32


@pytest.mark.parametrize(
    ("outputs", "labels", "none"), [(3, [2, 0, 1], -100), (1, [0.5, -1.0, 2.0], float("nan"))], ids=["class", "score"]
)
def test_a_row_without_a_gold_label_adds_nothing(outputs: int, labels: list[float], none: float) -> None:
    """The loss is that of the other rows over all rows, and its gradient there is zero."""
    torch.manual_seed(0)
    student = torch.randn(4, outputs, requires_grad=True)
    known = torch.tensor(labels)
    loss = label_loss(student, torch.cat([known, known.new_tensor([none])]), num_rows=4)
    loss.backward()
    expected = label_loss(student[:3].detach(), known, num_rows=4)
    torch.testing.assert_close(loss.detach(), expected)
    assert student.grad is not None
    assert student.grad[3].tolist() == [0.0] * outputs
    assert student.grad[:3].abs().min() > 0
