from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel

from hskcache.encoder import weights_digest
from hskcache.errors import DataError, MismatchError, TeacherError
from hskcache.inference import pad_batch
from hskcache.sparsity.masks import masked
from hskcache.text import TokenizedRows
from trainer.student.importance import LabelledBatches, LayerImportance, draw_batches, importance

NUM_ROWS, LAYERS = 11, (1, 3)
SIZES: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 12,
    "max_position_embeddings": 12,
    "initializer_range": 0.3,
}


def bert(num_labels: int = 3) -> PreTrainedModel:
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(**SIZES, num_labels=num_labels))


def sample_of(num_labels: int = 3, batch_size: int = 4) -> LabelledBatches:
    draw = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(draw.integers(2, 10, NUM_ROWS))]).astype(np.int64)
    total = int(offsets[-1])
    types = draw.integers(0, 2, total).astype(np.uint8)
    rows = TokenizedRows(draw.integers(1, 40, total, dtype=np.int32), offsets, types, frozenset())
    classes = draw.integers(0, num_labels, NUM_ROWS)
    labels = draw.normal(size=NUM_ROWS).astype(np.float32) if num_labels == 1 else classes.astype(np.int64)
    return LabelledBatches(rows, labels, draw_batches(NUM_ROWS, batch_size, seed=0))


def defined(teacher: PreTrainedModel, sample: LabelledBatches, layer: int) -> LayerImportance:
    """The definition as it is written: whole matrices, one gradient a batch, in float64."""
    names = ("attention.output.dense", "intermediate.dense", "output.dense")
    matrices = [teacher.bert.encoder.layer[layer - 1].get_submodule(name).weight for name in names]
    sums = [torch.zeros_like(matrix, dtype=torch.float64) for matrix in matrices]
    for indices in sample.batches:
        logits = teacher(**pad_batch(sample.rows, indices, 0)).logits
        labels = torch.from_numpy(sample.labels[indices])
        loss = F.mse_loss(logits[:, 0], labels) if logits.shape[1] == 1 else F.cross_entropy(logits, labels)
        for total, gradient in zip(sums, torch.autograd.grad(loss, matrices), strict=True):
            total += gradient.abs()
    projection, first, second = (m.detach().abs() * total for m, total in zip(matrices, sums, strict=True))
    heads = [projection[:, 4 * head : 4 * head + 4].sum().item() for head in range(4)]
    neurons = [(first[neuron].sum() + second[:, neuron].sum()).item() for neuron in range(12)]
    return LayerImportance(np.array(heads), np.array(neurons))


@pytest.mark.parametrize("num_labels", [3, 1])
def test_by_masks_it_is_the_slope_of_masks_of_ones(num_labels: int) -> None:
    """As hooks on the inputs of the two Linears have it."""
    teacher, sample = bert(num_labels).eval(), sample_of(num_labels)
    found = importance(teacher, sample, (1, 2, 3), by="masks")
    masks = [torch.ones(3, number, requires_grad=True) for number in (4, 12)]
    sums = [np.zeros((3, number)) for number in (4, 12)]
    with masked(teacher, *masks):
        for indices in sample.batches:
            logits = teacher(**pad_batch(sample.rows, indices, 0)).logits
            labels = torch.from_numpy(sample.labels[indices])
            loss = F.mse_loss(logits[:, 0], labels) if num_labels == 1 else F.cross_entropy(logits, labels)
            for total, slope in zip(sums, torch.autograd.grad(loss, masks), strict=True):
                total += slope.abs().numpy()
    for layer, scores in found.items():
        np.testing.assert_allclose(scores.heads, sums[0][layer - 1], rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(scores.neurons, sums[1][layer - 1], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("num_labels", [3, 1])
def test_importance_is_its_definition(num_labels: int) -> None:
    """|w| times the sum over batches of |dL/dw|, dropout off, added up over a head's columns and a neuron's weights."""
    teacher, sample = bert(num_labels), sample_of(num_labels)
    found = importance(teacher.train(), sample, LAYERS)
    assert tuple(found) == LAYERS
    for layer, scores in found.items():
        expected = defined(teacher.eval(), sample, layer)
        np.testing.assert_allclose(scores.heads, expected.heads, rtol=1e-4)
        np.testing.assert_allclose(scores.neurons, expected.neurons, rtol=1e-4)
        assert scores.heads.dtype == scores.neurons.dtype == np.float64


def test_batches_decide_for_absolute_values_do_not_add_up() -> None:
    """One batch of all rows gives another, smaller sum than several: gradients of rows cancel inside a batch."""
    several, one = (importance(bert(), sample_of(batch_size=size), [2])[2] for size in (1, NUM_ROWS))
    assert (several.heads / NUM_ROWS > one.heads).all()


def test_what_does_not_reach_the_output_has_no_importance() -> None:
    teacher = bert()
    layer = teacher.bert.encoder.layer[1]
    with torch.no_grad():
        layer.attention.output.dense.weight[:, 8:12] = 0  # head 2
        layer.output.dense.weight[:, 5] = 0
    scores = importance(teacher, sample_of(), [2])[2]
    assert np.flatnonzero(scores.heads == 0).tolist() == [2]
    assert np.flatnonzero(scores.neurons == 0).tolist() == [5]


def test_the_teacher_is_left_as_it_was() -> None:
    teacher = bert().train()
    teacher.bert.pooler.eval()
    teacher.classifier.bias.requires_grad_(False)
    digest, modes = weights_digest(teacher), [module.training for module in teacher.modules()]
    flags = [parameter.requires_grad for parameter in teacher.parameters()]
    importance(teacher, sample_of(), [1, 2, 3])
    assert weights_digest(teacher) == digest
    assert [module.training for module in teacher.modules()] == modes
    assert [parameter.requires_grad for parameter in teacher.parameters()] == flags
    assert all(parameter.grad is None for parameter in teacher.parameters())
    teacher(torch.tensor([[1, 2]]), labels=torch.tensor([0])).loss.backward()
    assert teacher.bert.encoder.layer[0].output.dense.weight.grad is not None


def test_progress_counts_rows() -> None:
    seen: list[int] = []
    importance(bert(), sample_of(), [1], seen.append)
    assert seen == [4, 4, 3]


def test_a_diverged_teacher_is_refused() -> None:
    teacher = bert()
    teacher.classifier.weight.data.fill_(float("nan"))
    with pytest.raises(TeacherError, match="layer 1 are not finite"):
        importance(teacher, sample_of(), [1])


def test_rows_that_cannot_be_used_are_refused() -> None:
    sample = sample_of()
    with pytest.raises(DataError, match="no rows"):
        importance(bert(), LabelledBatches(sample.rows, sample.labels, []), [1])
    long = TokenizedRows(np.ones(13, np.int32), np.array([0, 13]), None, frozenset())
    with pytest.raises(MismatchError, match="--max-length 12"):
        importance(bert(), LabelledBatches(long, np.array([0]), draw_batches(1, 4, 0)), [1])


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 5), st.integers(1, 80))
def test_batches_hold_different_rows_and_a_larger_limit_adds_to_the_same(
    num_rows: int, batch_size: int, seed: int, limit: int
) -> None:
    whole = draw_batches(num_rows, batch_size, seed)
    flat = np.concatenate(whole)
    assert sorted(flat.tolist()) == list(range(num_rows))
    assert {len(batch) for batch in whole[:-1]} <= {batch_size}
    part = np.concatenate(draw_batches(num_rows, batch_size, seed, limit))
    assert part.tolist() == flat[:limit].tolist()


def test_the_drawn_rows_follow_the_seed() -> None:
    first, again, other = (np.concatenate(draw_batches(50, 8, seed, 20)).tolist() for seed in (1, 1, 2))
    assert first == again != other
