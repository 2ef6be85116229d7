"""Losses where a row has any number of classes, and of labels that are distributions, beside torch and by hand."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import BertConfig, BertForSequenceClassification

from trainer.losses import label_loss
from trainer.losses.logits import multilabel_loss, soft_multilabel_loss


def logits(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_soft_loss_is_the_divergence_of_each_class_and_the_teachers_entropy() -> None:
    student, teacher, temperature = logits(4, 3), logits(4, 3, seed=1), 2.0
    expected = 0.0
    for s, t in zip(student.flatten().tolist(), teacher.flatten().tolist(), strict=True):
        p, q = (1 / (1 + math.exp(-z / temperature)) for z in (t, s))
        divergence = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
        expected += divergence - p * math.log(p) - (1 - p) * math.log(1 - p)
    found = soft_multilabel_loss(student, teacher, temperature, num_rows=4)
    assert found.item() == pytest.approx(expected / 12, rel=1e-5)
    squared = soft_multilabel_loss(student, teacher, temperature, num_rows=4, temperature_squared=True)
    assert squared.item() == pytest.approx(4 * expected / 12, rel=1e-5)


def test_the_gradient_is_that_of_its_definition_and_vanishes_at_the_teacher() -> None:
    student, teacher = logits(3, 2).requires_grad_(), logits(3, 2, seed=1)
    (found,) = torch.autograd.grad(soft_multilabel_loss(student, teacher, 2.0, 3), student)
    expected = ((student / 2).sigmoid() - (teacher / 2).sigmoid()) / 2 / 2 / 3
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-5)
    (none,) = torch.autograd.grad(soft_multilabel_loss(student, student.detach(), 3.0, 3), student)
    torch.testing.assert_close(none, torch.zeros_like(none), atol=1e-8, rtol=0)


def test_the_gold_loss_is_that_of_transformers() -> None:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, num_labels=3
    )
    config.problem_type = "multi_label_classification"
    model = BertForSequenceClassification(config).eval()
    labels = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    output = model(torch.tensor([[1, 2, 3], [4, 5, 6]]), labels=labels)
    torch.testing.assert_close(multilabel_loss(output.logits, labels, 2), output.loss)


def test_slices_add_up_and_rows_without_a_label_add_nothing() -> None:
    student = logits(5, 3).float().requires_grad_()
    labels = torch.tensor([[1.0, 0, 1], [0, 0, 0], [float("nan")] * 3, [0.5, 0.5, 0.0], [0, 1, 0]])
    gold = torch.tensor([0, 1, 3, 4])
    shares = labels / labels.sum(1, keepdim=True).clamp(min=1)
    for loss, wanted in ((multilabel_loss, labels), (label_loss, shares)):
        whole = loss(student, wanted, 5)
        torch.testing.assert_close(loss(student[:2], wanted[:2], 5) + loss(student[2:], wanted[2:], 5), whole)
        torch.testing.assert_close(loss(student[gold], wanted[gold], 5), whole)
        (gradient,) = torch.autograd.grad(whole, student)
        assert torch.isfinite(gradient).all()
        assert not gradient[2].any()


def test_a_distribution_costs_its_cross_entropy_and_a_certain_one_that_of_its_class() -> None:
    student, shares = logits(2, 3).float(), torch.tensor([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0]])
    expected = -(shares * student.log_softmax(-1)).sum() / 2
    torch.testing.assert_close(label_loss(student, shares, 2), expected)
    one = torch.tensor([1])
    torch.testing.assert_close(label_loss(student[1:], shares[1:], 1), F.cross_entropy(student[1:], one))
