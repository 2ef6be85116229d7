"""Students that keep a share of all heads and neurons: layers of different sizes, some of them empty."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_prune import ALL, FFN, HEAD_SIZE, HEADS, IDS, MASK, bert, logits, silenced
from transformers import AutoModelForSequenceClassification, BertForSequenceClassification

from hskcache.encoder import identifying_config, weights_digest
from hskcache.errors import SpecError
from trainer.student import CompactBertConfig, CompactBertForSequenceClassification
from trainer.student.importance import LayerImportance
from trainer.student.layers import from_teacher_layers
from trainer.student.prune import Pruned, Pruning, prune


def scores_of(seed: int) -> dict[int, LayerImportance]:
    """Layers whose scores are of different lengths, which must not count."""
    draw = np.random.default_rng(seed)
    return {
        layer: LayerImportance(10.0**layer * draw.random(HEADS) ** 4, 0.1**layer * draw.random(FFN) ** 4)
        for layer in ALL
    }


def ranked(scores: dict[int, np.ndarray], share: float) -> dict[int, tuple[int, ...]]:
    """What stays, by sorting (score over length, lower layer, lower number)."""
    pool = [
        # What the norm of zeros is kept from being moves near ties.
        (-value / (np.linalg.norm(values) + 1e-7), layer, number)
        for layer, values in scores.items()
        for number, value in enumerate(values)
    ]
    best = sorted(pool)[: round(share * len(pool))]
    return {layer: tuple(sorted(number for _, of, number in best if of == layer)) for layer in scores}


def check(student: Pruned, scores: dict[int, LayerImportance], share: float) -> None:
    """The student answers as the teacher without what it lacks, and lacks exactly that."""
    teacher = bert()
    heads = ranked({layer: one.heads for layer, one in scores.items()}, share)
    neurons = ranked({layer: one.neurons for layer, one in scores.items()}, share)
    assert (student.heads, student.neurons) == (heads, neurons)
    assert sum(map(len, heads.values())) == round(share * 4 * HEADS)
    assert sum(map(len, neurons.values())) == round(share * 4 * FFN)
    for layer in ALL:
        silenced(teacher, layer, set(range(HEADS)) - set(heads[layer]), set(range(FFN)) - set(neurons[layer]))
    torch.testing.assert_close(logits(student.model), logits(teacher), rtol=0, atol=1e-5)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 99), st.sampled_from([0.1, 0.3, 0.5, 0.9]))
@example(22, 0.3)
def test_the_student_is_the_teacher_with_the_others_masked(seed: int, share: float) -> None:
    scores = scores_of(seed)
    check(prune(bert(), Pruning(ALL, share=share), scores), scores, share)


def test_a_layer_may_lose_all_heads_or_all_neurons(tmp_path: Path) -> None:
    """Also saved, loaded, trained and cut once more."""
    heads, neurons = {1: 1.0, 2: 0.0, 3: 1.0, 4: 0.0}, {1: 1.0, 2: 1.0, 3: 0.0, 4: 0.0}
    scores = {layer: LayerImportance(np.full(HEADS, heads[layer]), np.full(FFN, neurons[layer])) for layer in ALL}
    student = prune(bert(), Pruning(ALL, share=0.5), scores)
    teacher = bert()
    for layer in ALL:
        silent = set(range(HEADS)) if not heads[layer] else set(), set(range(FFN)) if not neurons[layer] else set()
        silenced(teacher, layer, *silent)
    torch.testing.assert_close(logits(student.model), logits(teacher), rtol=0, atol=1e-5)
    config = student.model.config
    assert (config.heads_by_layer, config.neurons_by_layer) == ([4, 0, 4, 0], [24, 24, 0, 0])
    student.model.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert type(again) is CompactBertForSequenceClassification
    assert torch.equal(logits(again), logits(student.model))
    assert weights_digest(again) == weights_digest(student.model)
    fewer = from_teacher_layers(again, (4, 1))
    assert (fewer.config.heads_by_layer, fewer.config.neurons_by_layer) == ([0, 4], [0, 24])
    again.train()(IDS, attention_mask=MASK, token_type_ids=MASK, labels=torch.tensor([0, 1])).loss.backward()
    untouched = [name for name, weight in again.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert [name for name in untouched if not name.endswith("key.bias")] == []


def test_drawn_weights_have_the_shapes_of_each_layer() -> None:
    sizes: dict[str, Any] = {"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 3, "max_position_embeddings": 16}
    config = CompactBertConfig(**sizes, head_size=8, heads_by_layer=[1, 0, 3], neurons_by_layer=[0, 5, 7])
    with warnings.catch_warnings(action="error"):
        model = AutoModelForSequenceClassification.from_config(config).eval()
    layers = [dict(layer.named_parameters()) for layer in model.bert.encoder.layer]
    assert [tuple(layers[number]["attention.self.query.weight"].shape) for number in (0, 2)] == [(8, 32), (24, 32)]
    assert not layers[1]["attention.output.dense.bias"].any()
    assert "attention.output.dense.weight" not in layers[1]
    assert "intermediate.dense.weight" not in layers[0]
    assert tuple(layers[2]["output.dense.weight"].shape) == (32, 7)
    assert torch.isfinite(logits(model)).all()


def test_a_share_of_even_layers_has_one_number() -> None:
    """So that its configuration is the one that a cut by layer has, and a whole teacher a plain BERT."""
    even = {layer: LayerImportance(np.arange(HEADS)[::-1] + 1.0, np.arange(FFN)[::-1] + 1.0) for layer in ALL}
    by_share = prune(bert(), Pruning(ALL, share=0.5), even).model
    by_layer = prune(bert(), Pruning(ALL, HEADS // 2, FFN // 2), even).model
    assert weights_digest(by_share) == weights_digest(by_layer)
    assert identifying_config(by_share.config) == identifying_config(by_layer.config)
    assert type(prune(bert(), Pruning(ALL, share=1.0)).model) is BertForSequenceClassification


def test_configurations_of_one_number_are_read_and_written_as_before(tmp_path: Path) -> None:
    model = prune(bert(), Pruning(ALL, 2, 5), scores_of(0)).model
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert not {"heads_by_layer", "neurons_by_layer"} & saved.keys()
    assert (saved["num_attention_heads"], saved["head_size"], saved["intermediate_size"]) == (2, HEAD_SIZE, 5)
    assert torch.equal(logits(AutoModelForSequenceClassification.from_pretrained(tmp_path)), logits(model))


@pytest.mark.parametrize("numbers", [[1, 2], [1, 2, -1]])
def test_numbers_that_are_not_one_a_layer_are_refused(numbers: list[int]) -> None:
    with pytest.raises(Exception, match="one a layer"):
        CompactBertConfig(num_hidden_layers=3, heads_by_layer=numbers)


@pytest.mark.parametrize(
    ("cut", "complaint"),
    [
        (Pruning(ALL, heads=1, share=0.5), "leave out --heads and --ffn"),
        (Pruning(ALL, share=0.01), "--global 0.01 keeps none of 16 heads"),
    ],
)
def test_shares_that_cannot_be_kept_are_refused(cut: Pruning, complaint: str) -> None:
    with pytest.raises(SpecError, match=complaint):
        prune(bert(), cut, scores_of(0))
