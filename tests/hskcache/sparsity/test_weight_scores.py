"""Single weights: their scores against gradients taken directly, exact counts, and weights that come back."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from family import LAYERS, NAMES, NEURONS, WIDTH, linears, logits_of
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hskcache.encoder import weights_digest
from hskcache.errors import MismatchError
from hskcache.sparsity.levels import Scope, kept_weights, num_removed
from hskcache.sparsity.losses import friendly_loss, task_loss
from hskcache.sparsity.scores import score
from hskcache.sparsity.weights import (
    WeightScores,
    matrices,
    random_weights,
    score_weights,
    weight_magnitude,
    without_weights,
)
from hskcache.text.padding import padded

# Query, key, value and output of the attention, and two matrices of the feed-forward network.
NUM_WEIGHTS = 4 * WIDTH * WIDTH + 2 * WIDTH * NEURONS


def logits(model: Any, rows: Any, index: np.ndarray) -> torch.Tensor:
    inputs = {name: torch.from_numpy(array) for name, array in padded(rows, index, 0).items()}
    found: torch.Tensor = model.eval()(**inputs).logits
    return found


def directly(teacher: Any, student: Any, sample: Any) -> tuple[np.ndarray, np.ndarray]:
    """Sums over batches of |w * dL/dw| of both losses, by one backward pass a loss, in float64."""
    sums = []
    for part in range(2):
        total = 0.0
        for index in sample.batches:
            answers = logits(teacher.model, sample.rows, index)
            with torch.no_grad():
                targets = logits(student, sample.rows, index)
            labels = torch.from_numpy(sample.labels[index])
            loss = friendly_loss(answers, targets, sample.temperature) if part else task_loss(answers, labels)
            teacher.model.zero_grad()
            loss.backward()
            total = total + np.stack(
                [
                    np.concatenate([(w * w.grad).abs().detach().double().numpy().ravel() for w in layer])
                    for layer in matrices(teacher.model)
                ]
            )
        sums.append(np.asarray(total))
    teacher.model.zero_grad()
    return sums[0], sums[1]


def test_scores_are_sums_of_weight_times_gradient(teacher_of: Any, student_of: Any, sample: Any) -> None:
    teacher, student = teacher_of("bert"), student_of(num_labels=3)
    found = score_weights(teacher, student, sample)
    for ours, theirs in zip((found.expressive, found.friendly), directly(teacher, student, sample), strict=True):
        assert ours is not None
        assert (ours.shape, ours.dtype) == ((LAYERS, NUM_WEIGHTS), np.float32)
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-7)
        assert ours.any()


@pytest.mark.parametrize("family", NAMES)
def test_a_neurons_weights_together_are_worth_no_less_than_the_neuron(
    family: str, teacher_of: Any, sample: Any
) -> None:
    """In one batch the slope of its mask is the sum of w * dL/dw over its outgoing weights, signs and all."""
    teacher, one = teacher_of(family), replace(sample, index_N=np.arange(4))
    units = score(teacher, None, one).expressive
    weights = score_weights(teacher, None, one).expressive
    assert units is not None
    assert weights is not None
    second_LDF = weights[:, -WIDTH * NEURONS :].reshape(LAYERS, WIDTH, NEURONS)
    assert (second_LDF.sum(1) >= units.neurons_LF * (1 - 1e-4)).all()
    assert [layer[3].data_ptr() for layer in matrices(teacher.model)] == [
        layer["heads"].weight.data_ptr() for layer in linears(teacher.model)
    ]


def test_the_balance_mixes_layers_of_length_1() -> None:
    draw = np.random.default_rng(0)
    one, other = (draw.random((3, 20)).astype(np.float32) for _ in range(2))
    one[1] *= 1e4
    expected = sum(0.5 * part / np.linalg.norm(part.astype(np.float64), axis=1, keepdims=True) for part in (one, other))
    np.testing.assert_allclose(WeightScores(one, other).knowledgeable(0.5), expected, rtol=1e-5)
    assert (np.argsort(WeightScores(one, other).knowledgeable(1), axis=1) == np.argsort(one, axis=1)).all()
    with pytest.raises(MismatchError, match="counts student-friendly scores, and there are none"):
        WeightScores(one, None).knowledgeable(0.5)
    with pytest.raises(MismatchError, match="of all weights are 0"):
        WeightScores(one, np.zeros_like(one)).knowledgeable(0.5)


@given(
    arrays(np.float32, (3, 7), elements=st.sampled_from([0, 0.25, 1, 2])),
    st.integers(0, 99),
    st.sampled_from(["global", "layer"]),
)
def test_so_many_of_the_lowest_go_and_of_equals_the_last(values: np.ndarray, percent: int, scope: Scope) -> None:
    """As sorting them all would have it; a level keeps nothing that a lower one removes."""
    kept = kept_weights(values, percent, scope)
    pools = [slice(0, 21)] if scope == "global" else [slice(start, start + 7) for start in (0, 7, 14)]
    for pool in pools:
        part = values.ravel()[pool]
        order = sorted(range(len(part)), key=lambda place: (part[place], -place))
        lowest = set(order[: num_removed(len(part), percent)])
        assert {place for place in range(len(part)) if not kept.ravel()[pool][place]} == lowest
    assert (kept_weights(values, min(99, percent + 7), scope) <= kept).all()


@pytest.mark.parametrize("family", NAMES)
def test_levels_have_exactly_so_many_zeros_and_the_weights_come_back(family: str, teacher_of: Any) -> None:
    model = teacher_of(family).model
    digest, values = weights_digest(model), weight_magnitude(model)
    assert values.all()
    total = LAYERS * NUM_WEIGHTS
    for percent in (0, 10, 25, 90):
        for scope in ("global", "layer"):
            with without_weights(model, kept_weights(values, percent, scope)):
                zeros = [sum(int((weight == 0).sum()) for weight in layer) for layer in matrices(model)]
                others = [
                    name for name, weight in model.named_parameters() if (weight == 0).all() and "bias" not in name
                ]
            assert sum(zeros) == (num_removed(total, percent) if scope == "global" else sum(zeros))
            if scope == "layer":
                assert zeros == [num_removed(NUM_WEIGHTS, percent)] * LAYERS
            assert others == []
            assert weights_digest(model) == digest
    with pytest.raises(RuntimeError), without_weights(model, kept_weights(values, 50, "global")):
        raise RuntimeError
    assert weights_digest(model) == digest


def test_by_magnitude_none_that_goes_is_larger_than_one_that_stays(teacher_of: Any) -> None:
    model = teacher_of("bert").model
    values = weight_magnitude(model)
    expected = [torch.cat([weight.detach().abs().reshape(-1) for weight in layer]).numpy() for layer in matrices(model)]
    assert (values == np.stack(expected)).all()
    kept = kept_weights(values, 30, "global")
    assert values[~kept].max() <= values[kept].min()


def test_level_0_is_the_dense_teacher_to_the_bit(teacher_of: Any, examples: Any) -> None:
    teacher = teacher_of("bert")
    dense, digest = logits_of(teacher.model, teacher.tokenizer, examples), weights_digest(teacher.model)
    values = weight_magnitude(teacher.model)
    with without_weights(teacher.model, kept_weights(values, 0, "global")):
        assert weights_digest(teacher.model) == digest
        assert torch.equal(logits_of(teacher.model, teacher.tokenizer, examples), dense)
    with without_weights(teacher.model, kept_weights(values, 50, "global")):
        assert not torch.equal(logits_of(teacher.model, teacher.tokenizer, examples), dense)


def test_random_weights_are_their_seeds(teacher_of: Any) -> None:
    model = teacher_of("bert").model
    one = random_weights(model, 1)
    assert (one == random_weights(model, 1)).all()
    assert (one != random_weights(model, 2)).mean() > 0.99
    assert one.min() >= 0
    assert one.max() < 1
    assert abs(one.mean() - 0.5) < 4 * one.size**-0.5
    assert all((one[layer] != one[other]).any() for layer, other in pairwise(range(LAYERS)))
