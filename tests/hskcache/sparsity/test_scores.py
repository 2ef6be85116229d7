"""Scores: gradients against finite differences, sums over batches, balances, and models that are left as they were."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from family import HEADS, LAYERS, NAMES, NEURONS, columns, inputs_of, linears, logits_of
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from hskcache.encoder import weights_digest
from hskcache.errors import DataError, MismatchError, SpecError, TeacherError
from hskcache.sparsity.levels import Importance, kept_at
from hskcache.sparsity.sample import draw_rows
from hskcache.sparsity.scores import Sample, UnitScores, magnitude, random_importance, score

BATCHES = (slice(0, 4), slice(4, 8), slice(8, 10))
PLACES = [("heads", HEADS), ("neurons", NEURONS)]


def both(scores: UnitScores) -> tuple[Importance, Importance]:
    assert scores.expressive is not None
    assert scores.friendly is not None
    return scores.expressive, scores.friendly


def same(one: Importance, other: Importance) -> bool:
    return np.array_equal(one.heads_LH, other.heads_LH) and np.array_equal(one.neurons_LF, other.neurons_LF)


def differences(model: PreTrainedModel, losses: Callable[[], list[float]]) -> list[Importance]:
    """|central difference| of each loss to a factor on each head's and neuron's weights, without any mask."""
    step = 1e-4
    found = np.zeros((2, LAYERS, HEADS + NEURONS))
    for offset, (kind, count) in zip((0, HEADS), PLACES, strict=True):
        for layer, number in np.ndindex(LAYERS, count):
            weights = columns(model, kind, layer, number)
            kept, values = weights.detach().clone(), []
            for factor in (1 + step, 1 - step):
                with torch.no_grad():
                    weights.copy_(kept * factor)
                values.append(np.array(losses()))
            with torch.no_grad():
                weights.copy_(kept)
            found[:, layer, offset + number] = np.abs(values[0] - values[1]) / (2 * step)
    return [Importance(part[:, :HEADS], part[:, HEADS:]) for part in found]


@pytest.mark.parametrize("problem", ["classification", "regression"])
@pytest.mark.parametrize("family", NAMES)
def test_scores_are_the_slopes_of_both_losses(
    family: str, problem: str, teacher_of: Any, student_of: Any, rows: Any, request: Any
) -> None:
    outputs = 3 if problem == "classification" else 1
    given = request.getfixturevalue("examples" if outputs == 3 else "scored")
    teacher, student = teacher_of(family, double=True, num_labels=outputs), student_of(double=True, num_labels=outputs)
    expressive, friendly = both(score(teacher, student, Sample(rows, given.labels, batch_size=4, temperature=3.0)))
    sums = [Importance(np.zeros((LAYERS, HEADS)), np.zeros((LAYERS, NEURONS))) for _ in range(2)]
    for part in BATCHES:
        fixed, labels = logits_of(student, teacher.tokenizer, given, part), torch.from_numpy(given.labels[part])

        def losses(part: slice = part, fixed: Tensor = fixed, labels: Tensor = labels) -> list[float]:
            logits = logits_of(teacher.model, teacher.tokenizer, given, part)
            if outputs == 1:
                task, taught = ((logits[:, 0] - labels) ** 2).mean(), ((logits - fixed) ** 2).mean() / 2
            else:
                task = -F.log_softmax(logits, -1)[range(len(labels)), labels].mean()
                taught = -(F.softmax(logits / 3, -1) * F.log_softmax(fixed / 3, -1)).sum(-1).mean() * 9 / 2
            return [task.item(), taught.item()]

        for total, found in zip(sums, differences(teacher.model, losses), strict=True):
            total.heads_LH[:] += found.heads_LH
            total.neurons_LF[:] += found.neurons_LF
    for scored, expected in zip((expressive, friendly), sums, strict=True):
        np.testing.assert_allclose(scored.heads_LH, expected.heads_LH, rtol=1e-5, atol=1e-9)
        np.testing.assert_allclose(scored.neurons_LF, expected.neurons_LF, rtol=1e-5, atol=1e-9)
        assert scored.heads_LH.max() > 1e-3
        assert scored.heads_LH.dtype == scored.neurons_LF.dtype == np.float64


def plain_expressive(folder: str, tokenizer: Any, examples: Any) -> dict[str, list[list[float]]]:
    """Sums of |w . dL/dw| over the weights of a head or neuron, without any mask."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval()
    sums = {kind: [[0.0] * count for _ in range(LAYERS)] for kind, count in PLACES}
    for part in BATCHES:
        model.zero_grad()
        labels = torch.from_numpy(examples.labels[part])
        model(**inputs_of(model, tokenizer, examples, part), labels=labels).loss.backward()
        for kind, count in PLACES:
            for layer, line in enumerate(sums[kind]):
                weight = linears(model)[layer][kind].weight
                slopes = (weight * weight.grad).sum(0).view(count, -1).sum(1)
                line[:] = [before + abs(slope) for before, slope in zip(line, slopes.tolist(), strict=True)]
    return sums


def lowest(values: list[list[float]], count: int) -> set[tuple[int, int]]:
    """Places of the lowest scores over the length of each layer's."""
    scaled = {
        (layer, number): value / sum(other**2 for other in line) ** 0.5
        for layer, line in enumerate(values)
        for number, value in enumerate(line)
    }
    return set(sorted(scaled, key=lambda place: scaled[place])[:count])


@pytest.mark.parametrize("family", NAMES)
def test_balance_1_is_plain_expressive_pruning(
    family: str, teacher_of: Any, student_of: Any, sample: Any, examples: Any
) -> None:
    teacher = teacher_of(family)
    importance = score(teacher, student_of(), sample).knowledgeable(1.0)
    alone = score(teacher, None, sample)
    assert alone.friendly is None
    assert same(alone.knowledgeable(1.0), importance)
    plain = plain_expressive(teacher.info.name, teacher.tokenizer, examples)
    for percent in range(0, 100, 10):
        kept = kept_at(importance, percent)
        for kind, places in (("heads", kept.heads_LH), ("neurons", kept.neurons_LF)):
            removed = {(int(layer), int(number)) for layer, number in np.argwhere(~places)}
            assert removed == lowest(plain[kind], len(removed)), (kind, percent)


def test_batches_add_up(teacher_of: Any, student_of: Any, sample: Any) -> None:
    """Absolute values are summed over batches, not over rows and not of sums."""
    teacher, student, done = teacher_of("bert"), student_of(), []
    whole = both(score(teacher, student, sample, done.append))
    assert done == [4, 4, 2]
    parts = [
        both(score(teacher, student, replace(sample, index_N=np.arange(10)[part], batch_size=4))) for part in BATCHES
    ]
    for number, total in enumerate(whole):
        np.testing.assert_allclose(total.heads_LH, sum(part[number].heads_LH for part in parts), rtol=1e-12)
        np.testing.assert_allclose(total.neurons_LF, sum(part[number].neurons_LF for part in parts), rtol=1e-12)
    one = both(score(teacher, student, replace(sample, batch_size=10)))
    assert not np.allclose(one[0].heads_LH, whole[0].heads_LH, rtol=0.01)


def test_a_friendly_score_depends_on_the_student_alone(teacher_of: Any, student_of: Any, sample: Any) -> None:
    teacher = teacher_of("bert")
    first, second = (both(score(teacher, student_of(hidden_act=act), sample)) for act in ("gelu", "relu"))
    assert same(first[0], second[0])
    assert not np.allclose(first[1].heads_LH, second[1].heads_LH)
    unlabelled = score(teacher, student_of(hidden_act="gelu"), replace(sample, labels=None))
    assert unlabelled.expressive is None
    assert same(unlabelled.knowledgeable(0.0), UnitScores(None, first[1]).knowledgeable(0.0))


def test_scaling_a_loss_leaves_the_ranking(teacher_of: Any, student_of: Any, sample: Any) -> None:
    expressive, friendly = both(score(teacher_of("bert"), student_of(), sample))
    plain = UnitScores(expressive, friendly).knowledgeable(0.5)
    for factor in (1e-2, 1e4):
        louder = Importance(expressive.heads_LH * factor, expressive.neurons_LF * factor)
        scaled = UnitScores(louder, friendly).knowledgeable(0.5)
        np.testing.assert_allclose(scaled.heads_LH, plain.heads_LH, rtol=1e-3)
        for percent in range(0, 100, 10):
            kept, expected = kept_at(scaled, percent), kept_at(plain, percent)
            assert np.array_equal(kept.heads_LH, expected.heads_LH)
            assert np.array_equal(kept.neurons_LF, expected.neurons_LF)


def test_each_layer_counts_the_same_and_a_silent_one_nothing() -> None:
    expressive = Importance(np.array([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]]), np.array([[1.0], [2.0], [0.0]]))
    friendly = Importance(np.array([[1.0, 0.0], [0.0, 5.0], [6.0, 8.0]]), np.array([[0.0], [1.0], [1.0]]))
    found = UnitScores(expressive, friendly).knowledgeable(0.25)
    heads = [[0.25 * 0.6 + 0.75, 0.25 * 0.8], [0.25 * 0.6, 0.25 * 0.8 + 0.75], [0.75 * 0.6, 0.75 * 0.8]]
    np.testing.assert_allclose(found.heads_LH, heads, rtol=1e-6)
    np.testing.assert_allclose(found.neurons_LF, [[0.25], [1.0], [0.75]], rtol=1e-6)


def test_a_balance_that_counts_what_was_not_scored_is_refused(teacher_of: Any, student_of: Any, sample: Any) -> None:
    teacher = teacher_of("bert")
    with pytest.raises(MismatchError, match=r"student-friendly scores, and there are none.*--balance 1"):
        score(teacher, None, sample).knowledgeable(0.99)
    with pytest.raises(MismatchError, match=r"expressive scores, and there are none.*--balance 0"):
        score(teacher, student_of(), replace(sample, labels=None)).knowledgeable(0.01)


@pytest.mark.parametrize("kind", ["heads", "neurons"])
@pytest.mark.parametrize("part", ["expressive", "friendly"])
def test_a_part_without_a_score_above_0_is_refused_where_it_counts(part: str, kind: str) -> None:
    """One number above 0 is enough; more weight than 0 counts."""
    telling = {"heads_LH": np.eye(2, 3), "neurons_LF": np.eye(2, 4)}
    array = "heads_LH" if kind == "heads" else "neurons_LF"
    silent = Importance(**telling | {array: np.zeros_like(telling[array])})
    scores = replace(UnitScores(Importance(**telling), Importance(**telling)), **{part: silent})
    name, without = {"expressive": ("expressive", 0), "friendly": ("student-friendly", 1)}[part]
    for balance in (0.5, 1 - without, abs(without - 1e-9)):
        words = rf"counts {name} scores, and those of all {kind} are 0; [^\n]*give --balance {without}$"
        with pytest.raises(MismatchError, match=words):
            scores.knowledgeable(balance)
    assert same(scores.knowledgeable(without), UnitScores(*[Importance(**telling)] * 2).knowledgeable(without))


def test_a_temperature_at_which_nothing_is_left_to_learn_is_refused(
    teacher_of: Any, student_of: Any, sample: Any
) -> None:
    scores = score(teacher_of("bert"), student_of(), replace(sample, temperature=1e-30))
    with pytest.raises(MismatchError, match=r"student-friendly scores, and those of all heads are 0.*--temperature"):
        scores.knowledgeable(0.5)
    assert scores.knowledgeable(1.0).heads_LH.any()


def test_a_balance_outside_0_to_1_is_refused() -> None:
    one = Importance(np.ones((1, 1)), np.ones((1, 1)))
    for balance in (-0.1, 1.1, float("nan")):
        with pytest.raises(SpecError, match="--balance"):
            UnitScores(one, one).knowledgeable(balance)


def test_models_are_left_as_they_were(teacher_of: Any, student_of: Any, sample: Any) -> None:
    teacher, student = teacher_of("bert"), student_of()
    student.classifier.weight.requires_grad_(False)
    modes = {name: module.training for name, module in student.named_modules()}
    digests = weights_digest(teacher.model), weights_digest(student)
    with torch.no_grad():
        first = both(score(teacher, student, sample))
    again = both(score(teacher, student.eval(), sample))
    # Dropout was off though the student was being trained.
    assert same(first[1], again[1])
    student.train()
    assert {name: module.training for name, module in student.named_modules()} == modes
    assert not teacher.model.training
    assert (weights_digest(teacher.model), weights_digest(student)) == digests
    assert all(parameter.requires_grad for parameter in teacher.model.parameters())
    assert [name for name, p in student.named_parameters() if not p.requires_grad] == ["classifier.weight"]
    assert all(parameter.grad is None for model in (teacher.model, student) for parameter in model.parameters())


def test_what_cannot_be_scored_is_refused(teacher_of: Any, student_of: Any, sample: Any) -> None:
    teacher = teacher_of("bert")
    with pytest.raises(MismatchError, match="no labels and there is no trial student"):
        score(teacher, None, replace(sample, labels=None))
    with pytest.raises(DataError, match="no rows"):
        score(teacher, None, replace(sample, index_N=np.arange(0)))
    with pytest.raises(MismatchError, match=r"2 outputs and .* has 3"):
        score(teacher, student_of(num_labels=2), sample)
    with pytest.raises(MismatchError, match=r"class 3, counted from 0.* 3 classes"):
        score(teacher, None, replace(sample, labels=sample.labels + 1))
    with pytest.raises(TeacherError, match="the trial student reads at most 8"):
        score(teacher, student_of(max_position_embeddings=8), sample)
    broken = student_of()
    with torch.no_grad():
        broken.classifier.bias[0] = float("inf")
    with pytest.raises(TeacherError, match="not finite"):
        score(teacher, broken, sample)
    for changes in ({"temperature": 0.0}, {"temperature": float("nan")}, {"batch_size": 0}):
        with pytest.raises(SpecError):
            replace(sample, **changes)


def test_magnitude_is_the_length_of_what_would_be_zeroed(teacher_of: Any) -> None:
    for family in NAMES:
        model = teacher_of(family).model
        found = magnitude(model)
        for kind, count in PLACES:
            values = found.heads_LH if kind == "heads" else found.neurons_LF
            for layer, number in np.ndindex(LAYERS, count):
                weights = columns(model, kind, layer, number).flatten().tolist()
                assert values[layer, number] == pytest.approx(sum(w * w for w in weights) ** 0.5, rel=1e-12)


def test_random_importance_is_its_seeds(teacher_of: Any) -> None:
    model = teacher_of("bert").model
    first, other = random_importance(model, 0), random_importance(model, -1)
    assert same(first, random_importance(teacher_of("distilbert").model, 0))
    assert not same(first, other)
    values = np.concatenate([array.ravel() for array in (first.heads_LH, first.neurons_LF)])
    assert len(set(values)) == values.size
    assert (values >= 0).all()
    assert (values < 1).all()


def test_drawn_rows_are_some_of_all_in_their_order() -> None:
    drawn = draw_rows(1000, 100, seed=3)
    assert len(set(drawn.tolist())) == 100
    assert drawn.tolist() == sorted(drawn.tolist())
    assert 0 <= drawn[0] < 100 < 900 < drawn[-1] < 1000
    # A larger draw of the same seed adds rows.
    assert set(drawn) < set(draw_rows(1000, 101, seed=3))
    assert drawn.tolist() != draw_rows(1000, 100, seed=4).tolist()
    assert draw_rows(5, 9, seed=0).tolist() == list(range(5))
