"""Heads of language models are found by families' own settings, proven, and never multiplied with all positions."""

from typing import Any

import pytest
import torch
import transformers
from language_models import FAMILIES, gemma2, language_tokenizer, llama

from hskcache.errors import TeacherError
from hskcache.output_head import exact_dtype, find_head
from hskcache.teacher.capture import Wanted, capture
from hskcache.teacher.load import as_language_model

SIZES: dict[str, Any] = {
    "vocab_size": 264,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
OPT = {key: SIZES[key] for key in SIZES if key not in {"num_key_value_heads", "intermediate_size"}}
OTHERS: dict[str, tuple[dict[str, Any], float, float | None]] = {
    "Cohere": (SIZES | {"logit_scale": 0.0625}, 0.0625, None),
    "Granite": (SIZES | {"logits_scaling": 8.0}, 0.125, None),
    "Gemma2": (SIZES | {"head_dim": 8, "final_logit_softcapping": 30.0}, 1.0, 30.0),
    "GPTNeoX": (SIZES, 1.0, None),
    "OPT": (OPT | {"ffn_dim": 48, "word_embed_proj_dim": 16}, 1.0, None),
    "Phi": (SIZES, 1.0, None),
    "Bloom": ({"vocab_size": 264, "hidden_size": 32, "n_layer": 2, "n_head": 4}, 1.0, None),
}


def model_of(name: str, settings: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(getattr(transformers, f"{name}Config")(**settings)).eval()


@pytest.mark.parametrize("name", OTHERS)
def test_scale_and_soft_cap_are_those_of_the_family(name: str) -> None:
    settings, scale, softcap = OTHERS[name]
    model = model_of(name, settings)
    head = find_head(model)
    assert head is not None
    assert (head.scale, head.softcap) == (scale, softcap)
    assert (head.bias_V is not None) == (name == "Phi")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_head_makes_the_models_own_logits_of_the_final_states(family: str) -> None:
    model = FAMILIES[family]().eval()
    teacher = as_language_model(model, language_tokenizer(), family)
    inputs = {"input_ids": torch.randint(3, 260, (2, 9)), "attention_mask": torch.ones(2, 9, dtype=torch.int64)}
    with torch.inference_mode():
        expected = model(**inputs).logits
    final = capture(model, teacher.taps, inputs, Wanted(final=True)).final
    assert final is not None
    assert teacher.output_head is not None
    with torch.inference_mode():
        found, _ = teacher.output_head.logits(final)
    assert torch.allclose(found, expected, atol=1e-4 * float(expected.abs().max()))


def test_no_forward_pass_multiplies_the_head_with_a_position() -> None:
    model = llama().eval()
    teacher = as_language_model(model, language_tokenizer(), "llama")
    seen: list[tuple[int, ...]] = []
    model.lm_head.register_forward_hook(lambda _module, _given, made: seen.append(tuple(made.shape)))
    inputs = {"input_ids": torch.full((3, 7), 5), "attention_mask": torch.ones(3, 7, dtype=torch.int64)}
    for wanted in (Wanted(final=True), Wanted(hidden=frozenset({2}))):
        captured = capture(model, teacher.taps, inputs, wanted)
        assert captured.logits is None
        assert (captured.final is not None) == wanted.final
    assert seen == [(3, 0, 264)] * 2


def test_a_soft_cap_that_the_configuration_does_not_tell_is_found_out() -> None:
    model = gemma2(initializer_range=0.02).eval()
    assert find_head(model) is not None
    forward = model.forward

    def otherwise(**given: Any) -> Any:
        output = forward(**given)
        output.logits = 40 * torch.tanh(output.logits / 40)
        return output

    model.forward = otherwise
    with pytest.raises(TeacherError, match="its head cannot be kept apart; give another teacher"):
        find_head(model)


def test_a_model_that_reads_both_ways_is_no_teacher_of_next_tokens() -> None:
    model = model_of("Bert", SIZES)
    with pytest.raises(TeacherError, match=r"says of a token depends on later ones; give a causal language model"):
        as_language_model(model, language_tokenizer(), "bert")


def test_a_model_without_output_embeddings_has_no_head() -> None:
    torch.manual_seed(0)
    model = transformers.LlamaModel(transformers.LlamaConfig(**SIZES)).eval()
    assert find_head(model) is None


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_the_smallest_type_that_holds_a_head_exactly(dtype: str) -> None:
    model = llama()
    with torch.no_grad():
        weight = model.lm_head.weight
        # Beyond the range of float16's fraction for bfloat16, beyond bfloat16's fraction for float16.
        weight.copy_(weight.to(getattr(torch, dtype)).float())
    head = find_head(model.eval())
    assert head is not None
    assert exact_dtype(head) == dtype
