"""Tiny causal language models of random weights, of several families, and a tokenizer of bytes with a chat template."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from models import saved

MARKS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
NUM_IDS = 3 + 256
TEMPLATE = "{% for one in messages %}{{ bos_token }}{{ one['role'] }}: {{ one['content'] }}{{ eos_token }}{% endfor %}"
# Biases and embeddings of a size at which layers differ visibly.
_DRAWN = {"initializer_range": 0.2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_SIZES: dict[str, Any] = {
    "vocab_size": 264,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    **_DRAWN,
}


def language_tokenizer(frame: str = "<s> $A") -> Any:
    """Bytes as tokens, 259 ids; ``frame``: special tokens around a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    ids = {token: number for number, token in enumerate(["<pad>", "<s>", "</s>", *alphabet])}
    made = Tokenizer(models.BPE(vocab=ids, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.TemplateProcessing(single=frame, special_tokens=[("<s>", 1), ("</s>", 2)])
    inputs = ["input_ids", "attention_mask"]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, model_input_names=inputs, **MARKS)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def llama(**changes: Any) -> Any:
    """A Llama of 4 layers and width 32, its head tied to its embeddings."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**_SIZES | {"tie_word_embeddings": True} | changes))


def gpt2(**changes: Any) -> Any:
    """A GPT-2 of the same size, with a table of 64 positions."""
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"vocab_size": 264, "n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 64}
    return GPT2LMHeadModel(GPT2Config(**sizes | _DRAWN | changes))


def qwen2(**changes: Any) -> Any:
    """A Qwen2 whose last two layers attend to 4 tokens, its head its own."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    window = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2}
    return Qwen2ForCausalLM(Qwen2Config(**_SIZES | window | {"tie_word_embeddings": False} | changes))


def gemma2(**changes: Any) -> Any:
    """A Gemma 2: every second layer attends to 4 tokens, and its logits have a soft cap."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    return Gemma2ForCausalLM(Gemma2Config(**_SIZES | {"head_dim": 8, "sliding_window": 4} | changes))


FAMILIES: dict[str, Callable[..., Any]] = {"llama": llama, "gpt2": gpt2, "qwen2": qwen2, "gemma2": gemma2}


def language_model(folder: Path, family: str = "llama", **changes: Any) -> Path:
    """One of these in a folder, with its tokenizer."""
    return saved(lambda: FAMILIES[family](**changes), language_tokenizer(), folder)
