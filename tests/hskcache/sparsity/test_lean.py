"""A teacher that is run without what contributes nothing answers as with it, and is put back as it was."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from family import HEADS, LAYERS, NAMES, NEURONS, linears, logits_of
from transformers import AlbertConfig, AlbertForSequenceClassification

from hskcache.build.addition import add_field, prepare_addition
from hskcache.build.build import build
from hskcache.build.job import prepare_job
from hskcache.cache import open_cache
from hskcache.encoder import weights_digest
from hskcache.sparsity.levels import KeptUnits, kept_at
from hskcache.sparsity.masks import sparse, zeroed
from hskcache.sparsity.scores import random_importance
from hskcache.spec import Attention, Depth, Spec
from hskcache.teacher.lean import lean
from hskcache.text import tokenize


def everything() -> KeptUnits:
    return KeptUnits(np.ones((LAYERS, HEADS), np.bool_), np.ones((LAYERS, NEURONS), np.bool_))


def sizes(model: Any) -> list[dict[str, tuple[int, int]]]:
    return [{name: tuple(linear.weight.shape) for name, linear in layer.items()} for layer in linears(model)]


@pytest.mark.parametrize("percent", [0, 30, 60, 90])
@pytest.mark.parametrize("family", NAMES)
def test_the_answers_are_those_of_the_zeros(family: str, percent: int, teacher_of: Any, examples: Any) -> None:
    teacher = teacher_of(family)
    kept = kept_at(random_importance(teacher.model, 1), percent)
    with zeroed(teacher.model, kept):
        expected, before = logits_of(teacher.model, teacher.tokenizer, examples), sizes(teacher.model)
        digest, modules = weights_digest(teacher.model), list(teacher.model.modules())
        with lean(teacher.model):
            found, slim = logits_of(teacher.model, teacher.tokenizer, examples), sizes(teacher.model)
        assert sizes(teacher.model) == before
        assert weights_digest(teacher.model) == digest
        assert list(teacher.model.modules()) == modules
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    for layer, heads_H, neurons_F in zip(slim, kept.heads_LH, kept.neurons_LF, strict=True):
        width = max(1, heads_H.sum()) * teacher.model.config.hidden_size // HEADS
        assert layer["value"][0] == layer["heads"][1] == width
        assert layer["first"][0] == layer["neurons"][1] == neurons_F.sum()
    if percent == 0:
        assert torch.equal(found, expected)


@pytest.mark.parametrize("family", NAMES)
def test_a_layer_may_have_lost_all_of_it(family: str, teacher_of: Any, examples: Any) -> None:
    teacher, kept = teacher_of(family), everything()
    kept.heads_LH[0] = kept.neurons_LF[1] = False
    with zeroed(teacher.model, kept):
        expected = logits_of(teacher.model, teacher.tokenizer, examples)
        with lean(teacher.model):
            torch.testing.assert_close(
                logits_of(teacher.model, teacher.tokenizer, examples), expected, rtol=1e-4, atol=1e-5
            )


def test_the_model_is_whole_again_after_an_error(teacher_of: Any) -> None:
    teacher, kept = teacher_of("bert"), everything()
    kept.neurons_LF[1, 3] = False
    with zeroed(teacher.model, kept):
        before = list(teacher.model.modules())
        with pytest.raises(ZeroDivisionError):
            _fail_within(teacher.model, before)
        assert list(teacher.model.modules()) == before


def _fail_within(model: Any, before: list[Any]) -> None:
    with lean(model):
        assert list(model.modules()) != before
        raise ZeroDivisionError


def test_other_models_run_as_they_are() -> None:
    config = AlbertConfig(
        vocab_size=20, embedding_size=4, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8
    )
    model = AlbertForSequenceClassification(config).eval()
    before = list(model.modules())
    with lean(model):
        assert list(model.modules()) == before


def test_a_field_of_logits_is_computed_lean_and_attention_is_not(
    teacher_of: Any, examples: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heads that contribute nothing still attend, and their scores are kept where scores are asked for."""
    teacher = teacher_of("bert")
    spec = Spec(hidden=None, max_length=24)
    rows = tokenize(examples, teacher.tokenizer, 24)
    build(prepare_job(teacher, examples, rows, spec), tmp_path / "c")
    widths: list[int] = []
    forward = torch.nn.functional.linear

    def watch(states: torch.Tensor, weight: torch.Tensor, bias: Any = None) -> torch.Tensor:
        widths.append(weight.shape[1])
        return forward(states, weight, bias)

    attention = spec.model_copy(update={"attention": Attention(depth=Depth(student_layers=2), encoding="float32")})
    with sparse(teacher, kept_at(random_importance(teacher.model, 1), 60), "s60") as one:
        expected = logits_of(one.model, one.tokenizer, examples)
        monkeypatch.setattr(torch.nn.functional, "linear", watch)
        add_field(prepare_addition(one, open_cache(tmp_path / "c"), "logits", "s60"))
        lean_widths = list(widths)
        widths.clear()
        add_field(prepare_addition(one, open_cache(tmp_path / "c"), "attention", "maps", attention))
        monkeypatch.undo()
    assert len(lean_widths) == len(widths)
    assert sum(lean_widths) < sum(widths)
    grown = open_cache(tmp_path / "c")
    stored = np.concatenate([grown.read("s60", shard)["logits"] for shard in range(len(grown.shards))])
    np.testing.assert_allclose(stored, expected.numpy(), rtol=1e-4, atol=1e-5)
    assert grown.fields["maps"].num_heads == HEADS
