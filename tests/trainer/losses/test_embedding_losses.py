"""Losses on embeddings of whole rows: values, gradients, and slices that add up, against plain loops."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from hskcache.pooling import pooled
from hskcache.store.kinds.embedding import EmbeddingField
from trainer.batch import Batch
from trainer.losses import sentence_loss, similarity_loss
from trainer.losses.matches import Matches
from trainer.recipe import Losses, SentenceTerm, SimilarityTerm
from trainer.source.objective import Objective
from trainer.source.projections import OF_ROWS, Widths, load, save, widths_of


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_squared_error_is_averaged_over_rows_and_values() -> None:
    student, teacher = drawn(6, 5).requires_grad_(), drawn(6, 5, seed=1)
    loss = sentence_loss(student, teacher, num_rows=6)
    torch.testing.assert_close(loss, nn.MSELoss()(student, teacher))
    (gradient,) = torch.autograd.grad(loss, student)
    torch.testing.assert_close(gradient, 2 * (student.detach() - teacher) / 30)


def test_the_cosine_loss_and_its_gradient_are_those_of_the_definition() -> None:
    student, teacher = drawn(4, 5).requires_grad_(), drawn(4, 5, seed=1)
    loss = sentence_loss(student, teacher, num_rows=4, distance="cosine")
    (gradient,) = torch.autograd.grad(loss, student)
    for row in range(4):
        ours, theirs = student[row].detach(), teacher[row]
        cosine = ours @ theirs / (ours.norm() * theirs.norm())
        by_hand = -(theirs / theirs.norm() - cosine * ours / ours.norm()) / ours.norm() / 4
        torch.testing.assert_close(gradient[row], by_hand)
    same = sentence_loss(3 * teacher, teacher, num_rows=4, distance="cosine")
    assert same.item() == pytest.approx(0, abs=1e-6), "lengths do not count"


def by_pairs(student: Tensor, teacher: Tensor) -> Tensor:
    """The mean over rows of the mean squared difference of cosines to the other rows, pair by pair."""
    rows = []
    for one in range(len(student)):
        others = [other for other in range(len(student)) if other != one]
        errors = [
            torch.cosine_similarity(student[one], student[other], dim=0)
            - torch.cosine_similarity(teacher[one], teacher[other], dim=0)
            for other in others
        ]
        rows.append(torch.stack(errors).square().mean())
    return torch.stack(rows).mean()


def test_similarities_are_compared_pair_by_pair_whatever_the_widths() -> None:
    student, teacher = drawn(5, 3).requires_grad_(), drawn(5, 7, seed=1)
    loss, expected = similarity_loss(student, teacher, num_rows=5), by_pairs(student, teacher)
    torch.testing.assert_close(loss, expected)
    ours, theirs = (torch.autograd.grad(one, student)[0] for one in (loss, expected))
    torch.testing.assert_close(ours, theirs)


def test_slices_of_a_global_batch_add_up() -> None:
    student, teacher = drawn(6, 4), drawn(6, 4, seed=1)
    parts = [slice(0, 2), slice(2, 6)]
    for distance in ("mse", "cosine"):
        whole = sentence_loss(student, teacher, 6, distance)
        cut = sum(sentence_loss(student[part], teacher[part], 6, distance) for part in parts)
        torch.testing.assert_close(cut, whole)
    cut = sum(similarity_loss(student[part], teacher[part], 6) for part in parts)
    within = [by_pairs(student[part], teacher[part]) * (part.stop - part.start) for part in parts]
    torch.testing.assert_close(cut, sum(within) / 6), "the mean over all rows, each among those of its slice"


def test_a_row_alone_has_no_similarities_and_no_gradient() -> None:
    student = drawn(1, 4).requires_grad_()
    loss = similarity_loss(student, drawn(1, 4, seed=1), num_rows=8)
    (gradient,) = torch.autograd.grad(loss, student)
    assert loss.item() == 0
    assert not gradient.any()


def objective(width: int, is_normalized: bool, dims: int = 8) -> tuple[Objective, BertModel]:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=20, hidden_size=width, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    student = BertModel(config).eval()
    field = EmbeddingField(width=dims, num_dims=dims, pooling="mean", is_normalized=is_normalized, encoding="float32")
    losses = Losses.model_validate({"sentence": SentenceTerm(), "similarity": SimilarityTerm(weight=0.5)})
    return Objective(student, losses, Matches(fields={"embedding": field})), student


@pytest.mark.parametrize(("width", "is_normalized"), [(8, True), (8, False), (6, True)])
def test_the_students_vector_is_made_as_the_teachers_was(width: int, is_normalized: bool) -> None:
    """Padding has no part in it, a projection leads to another width, and its length is 1 where the teacher's is."""
    made, student = objective(width, is_normalized)
    ids, mask = torch.tensor([[2, 5, 6, 3], [2, 7, 3, 0]]), torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    teacher = torch.nn.functional.normalize(drawn(2, 8), dim=-1)
    batch = Batch({"input_ids": ids, "attention_mask": mask}, None, {"embedding": teacher}, 2, (0, 1))
    total, terms = made(batch)
    rows = [student(input_ids=row[row > 0][None]).last_hidden_state[0].mean(0) for row in ids]
    ours = torch.stack(rows)
    assert (OF_ROWS in made.projections) == (width != 8)
    if width != 8:
        ours = made.projections[OF_ROWS](ours)
    ours = torch.nn.functional.normalize(ours, dim=-1) if is_normalized else ours
    torch.testing.assert_close(terms["sentence"], sentence_loss(ours, teacher, 2).detach(), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(terms["similarity"], by_pairs(ours, teacher).detach(), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(total, terms["sentence"] + 0.5 * terms["similarity"])
    total.backward()
    assert all(parameter.grad is not None for parameter in made.projections.parameters())


def test_a_projection_of_rows_comes_back_from_its_file(tmp_path: Path) -> None:
    made, _ = objective(6, True)
    projection = made.projections[OF_ROWS]
    assert isinstance(projection, nn.Linear)
    save({OF_ROWS: projection}, tmp_path)
    found = load(tmp_path / "projection.safetensors")[OF_ROWS]
    assert widths_of(found) == Widths(6, 8)
    assert torch.equal(found.weight, projection.weight)


def test_every_pooling_leaves_padding_out() -> None:
    states, valid = drawn(2, 4, 3), torch.tensor([[True] * 4, [True, True, False, False]])
    states[1, 2:] = torch.tensor([float("nan"), float("inf"), 1e9])
    short = states[1, :2]
    assert torch.equal(pooled(states, valid, "cls")[1], short[0])
    assert torch.equal(pooled(states, valid, "last")[1], short[1])
    assert torch.equal(pooled(states, valid, "max")[1], short.amax(0))
    torch.testing.assert_close(pooled(states, valid, "mean")[1], short.mean(0))
