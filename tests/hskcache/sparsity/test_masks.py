"""Masks and zeros take out the same, all of it, and nothing stays behind."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from family import FAMILIES, HEADS, LAYERS, NAMES, NEURONS, columns, linears, logits_of
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    AutoModelForSequenceClassification,
    MobileBertConfig,
    MobileBertForSequenceClassification,
)

from hskcache.encoder import weights_digest
from hskcache.errors import TeacherError
from hskcache.sparsity.levels import KeptUnits, kept_at
from hskcache.sparsity.masks import masked, sparse, zero_, zeroed
from hskcache.sparsity.scores import random_importance
from hskcache.teacher.load import load_teacher
from hskcache.teacher.places import places


def everything() -> KeptUnits:
    return KeptUnits(np.ones((LAYERS, HEADS), np.bool_), np.ones((LAYERS, NEURONS), np.bool_))


def without(*removed: tuple[str, int, int]) -> KeptUnits:
    kept = everything()
    for kind, layer, number in removed:
        getattr(kept, "heads_LH" if kind == "heads" else "neurons_LF")[layer, number] = False
    return kept


def masks_of(kept: KeptUnits) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(kept.heads_LH), torch.from_numpy(kept.neurons_LF)


@pytest.mark.parametrize("family", NAMES)
def test_masks_of_ones_and_level_0_change_no_bit(family: str, teacher_of: Any, examples: Any) -> None:
    teacher = teacher_of(family)
    before = logits_of(teacher.model, teacher.tokenizer, examples)
    with masked(teacher.model, *masks_of(everything())):
        assert torch.equal(logits_of(teacher.model, teacher.tokenizer, examples), before)
    kept = kept_at(random_importance(teacher.model, 0), 0)
    with sparse(teacher, kept, "s0") as level_0:
        assert level_0.info == teacher.info.model_copy(update={"name": "s0"})
        assert torch.equal(logits_of(level_0.model, teacher.tokenizer, examples), before)


@pytest.mark.parametrize("family", NAMES)
def test_masks_reach_what_they_are_called_after(family: str, teacher_of: Any, examples: Any) -> None:
    """A factor on one head or neuron is the same factor on its weights, and on no others."""
    teacher = teacher_of(family)
    heads_LH, neurons_LF = torch.ones(LAYERS, HEADS), torch.ones(LAYERS, NEURONS)
    heads_LH[1, 2], neurons_LF[0, 5] = 3.0, -2.0
    with masked(teacher.model, heads_LH, neurons_LF):
        seen = logits_of(teacher.model, teacher.tokenizer, examples)
    other = FAMILIES[family].from_pretrained(teacher.info.name)
    with torch.no_grad():
        columns(other, "heads", 1, 2).mul_(3.0)
        columns(other, "neurons", 0, 5).mul_(-2.0)
    torch.testing.assert_close(seen, logits_of(other, teacher.tokenizer, examples), rtol=1e-5, atol=1e-6)
    assert (seen - logits_of(teacher.model, teacher.tokenizer, examples)).abs().max() > 1e-2


@pytest.mark.parametrize("family", NAMES)
def test_a_sparse_checkpoint_that_transformers_loads_equals_masking(
    family: str, teacher_of: Any, examples: Any, tmp_path: Path
) -> None:
    teacher = teacher_of(family)
    kept = kept_at(random_importance(teacher.model, 1), 40)
    with masked(teacher.model, *masks_of(kept)):
        expected = logits_of(teacher.model, teacher.tokenizer, examples)
    with sparse(teacher, kept, "s40") as found:
        found.model.save_pretrained(tmp_path)
        assert found.info.name == "s40"
        assert found.tokenizer is teacher.tokenizer
        assert (found.num_labels, found.info.config) == (teacher.num_labels, teacher.info.config)
    reloaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert weights_digest(reloaded) == found.info.weights_sha256 != teacher.info.weights_sha256
    torch.testing.assert_close(logits_of(reloaded, teacher.tokenizer, examples), expected, rtol=1e-5, atol=1e-6)
    assert (expected - logits_of(teacher.model, teacher.tokenizer, examples)).abs().max() > 1e-2


@pytest.mark.parametrize("family", NAMES)
def test_what_is_removed_is_positive_zero_and_all_else_is_as_it_was(family: str, teacher_of: Any) -> None:
    teacher = teacher_of(family)
    model = FAMILIES[family].from_pretrained(teacher.info.name)
    removed = (("heads", 0, 3), ("heads", 1, 0), ("neurons", 1, 4))
    zero_(model, without(*removed))
    for kind, layer, number in removed:
        values = columns(model, kind, layer, number)
        assert values.eq(0).all()
        assert not values.signbit().any()
        with torch.no_grad():
            values.copy_(columns(teacher.model, kind, layer, number))
    assert weights_digest(model) == teacher.info.weights_sha256


@pytest.mark.parametrize("family", NAMES)
def test_a_removed_head_or_neuron_contributes_exactly_nothing(family: str, teacher_of: Any, examples: Any) -> None:
    """Whatever it computes, no bit of the logits changes; of one that stays, they do."""
    teacher = teacher_of(family)
    model = FAMILIES[family].from_pretrained(teacher.info.name)
    zero_(model, without(("heads", 0, 1), ("neurons", 1, 2)))
    before = logits_of(model, teacher.tokenizer, examples)

    def disturb(head: int, neuron: int) -> None:
        value, first = linears(model)[0]["value"], linears(model)[1]["first"]
        with torch.no_grad():
            value.weight[3 * head : 3 * head + 3] += 7.0
            value.bias[3 * head : 3 * head + 3] -= 3.0
            first.weight[neuron] *= -5.0
            first.bias[neuron] += 1.0

    disturb(head=1, neuron=2)
    assert torch.equal(logits_of(model, teacher.tokenizer, examples), before)
    disturb(head=0, neuron=3)
    assert (logits_of(model, teacher.tokenizer, examples) - before).abs().max() > 1e-2


def test_weights_come_back_bit_for_bit_even_after_an_error(folder_of: Any) -> None:
    teacher = load_teacher(str(folder_of("bert")), "cpu")
    weight = linears(teacher.model)[0]["heads"].weight
    with torch.no_grad():
        weight[0, :3] = torch.tensor([-0.0, 1e-45, float("nan")])
    bits = {name: tensor.clone().view(torch.int32) for name, tensor in teacher.model.state_dict().items()}
    everywhere = KeptUnits(np.zeros((LAYERS, HEADS), np.bool_), np.zeros((LAYERS, NEURONS), np.bool_))
    with pytest.raises(KeyError, match="True"), sparse(teacher, everywhere, "s99"):
        raise KeyError(bool(weight.eq(0).all()))
    with zeroed(teacher.model, everywhere):
        assert weight.eq(0).all()
    found = {name: tensor.view(torch.int32) for name, tensor in teacher.model.state_dict().items()}
    assert all(torch.equal(found[name], before) for name, before in bits.items())
    assert all(parameter.requires_grad for parameter in teacher.model.parameters())


def test_no_hook_stays_even_after_an_error(teacher_of: Any, examples: Any) -> None:
    teacher = teacher_of("bert")
    before = logits_of(teacher.model, teacher.tokenizer, examples)
    zeros = torch.zeros(LAYERS, HEADS), torch.zeros(LAYERS, NEURONS)
    with pytest.raises(KeyError), masked(teacher.model, *zeros):
        raise KeyError
    with pytest.raises(ValueError, match="shorter"), masked(teacher.model, zeros[0][:1], zeros[1]):
        pass
    assert torch.equal(logits_of(teacher.model, teacher.tokenizer, examples), before)


def test_other_architectures_are_refused_in_one_line() -> None:
    """ALBERT shares one layer's weights among all, and a MobileBERT layer has several feed-forward networks."""
    sizes = {"vocab_size": 150, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    for kind, config in (
        (AlbertForSequenceClassification, AlbertConfig(embedding_size=8, hidden_size=16, **sizes)),
        (MobileBertForSequenceClassification, MobileBertConfig(hidden_size=16, intra_bottleneck_size=16, **sizes)),
    ):
        with pytest.raises(TeacherError, match=kind.__name__) as error:
            places(kind(config))
        assert "\n" not in str(error.value)


def test_where_contributions_pass(teacher_of: Any) -> None:
    for family in NAMES:
        model = teacher_of(family).model
        found = places(model)
        assert [place.heads for place in found] == [layer["heads"] for layer in linears(model)]
        assert [place.neurons for place in found] == [layer["neurons"] for layer in linears(model)]
        assert {(place.num_heads, place.head_size) for place in found} == {(HEADS, 3)}


def test_importance_is_ranked_for_this_shape(teacher_of: Any) -> None:
    importance = random_importance(teacher_of("bert").model, 0)
    assert (importance.heads_LH.shape, importance.neurons_LF.shape) == ((LAYERS, HEADS), (LAYERS, NEURONS))
