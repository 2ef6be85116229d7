"""A tokenizer as GPT-2 has one, of byte pairs, trained on a few lines, and chat templates for it."""

from typing import Any

LINES = ("the film is charming and short", "this movie is dull", "What is it?\nIt is a film.", "user assistant system")
MARKED = (
    "{% for one in messages %}<|{{ one['role'] }}|>\n{% if one['role'] == 'assistant' %}{% generation %}"
    "{{ one['content'] }}<|end|>{% endgeneration %}{% else %}{{ one['content'] }}<|end|>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
"""Marks what the assistant says."""
UNMARKED = MARKED.replace("{% generation %}", "").replace("{% endgeneration %}", "")


def byte_pairs(template: str | None = None) -> Any:
    """The tokenizer: no token before a text, and <|endoftext|>, which it does not put there, behind it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(LINES, trainer)
    names = {"eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, model_input_names=["input_ids", "attention_mask"], **names
    )
    tokenizer.chat_template = template
    return tokenizer
