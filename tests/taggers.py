"""A tagger of random weights, files of tagged words, and what it answers for them, computed word by word."""

import random
from pathlib import Path
from typing import NamedTuple

import numpy as np
from models import saved
from numpy.typing import NDArray

TAGS = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC")
WORDS = ("the", "film", "charming-tale", "tedious", "Music", "old", "patient,enough", "clumsy", "xyz")
LOST = ("\u200b", "\x00")
"""Words that give no token: BERT's normalizer takes control characters and zero-width marks away."""


class Tagged(NamedTuple):
    """Words of a row and their tags."""

    words: list[str]
    tags: list[str]


def tagger(tokenizer_dir: Path, folder: Path, labels: tuple[str, ...] = TAGS, num_layers: int = 4) -> Path:
    """A BERT of 4 layers and width 32 that answers for each token."""
    from transformers import AutoTokenizer, BertConfig, BertForTokenClassification

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.2,
        id2label=dict(enumerate(labels)),
        label2id={name: index for index, name in enumerate(labels)},
    )
    return saved(lambda: BertForTokenClassification(config), tokenizer, folder)


def tagged(num_rows: int, seed: int = 0) -> list[Tagged]:
    """Rows of 1 to 9 words, some of which give no token and some several."""
    draw, rows = random.Random(seed), []
    for _ in range(num_rows):
        words = [draw.choice((*WORDS, draw.choice(LOST))) for _ in range(draw.randint(1, 9))]
        rows.append(Tagged(["film", *words], [draw.choice(TAGS[:5]) for _ in range(len(words) + 1)]))
    return rows


def written(rows: list[Tagged], path: Path) -> Path:
    """The rows as CoNLL-2003's files are."""
    lines = ["-DOCSTART- -X- -X- O", ""]
    for row in rows:
        lines += [f"{word} NN I-NP {tag}" for word, tag in zip(row.words, row.tags, strict=True)] + [""]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


class Answered(NamedTuple):
    """First pieces of a row: their positions, the words that they are of, and the model's logits there."""

    positions: list[int]
    numbers: list[int]
    logits: NDArray[np.float32]


def by_hand(folder: Path, row: Tagged, max_length: int) -> Answered:
    """Answers of a model for a row by transformers alone, each word tokenized by itself."""
    import torch
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForTokenClassification.from_pretrained(folder)
    ids, positions, numbers = [tokenizer.cls_token_id], list[int](), list[int]()
    for number, word in enumerate(row.words):
        pieces = tokenizer(word, add_special_tokens=False)["input_ids"]
        if pieces and len(ids) < max_length - 1:
            positions.append(len(ids))
            numbers.append(number)
        ids += pieces
    ids = [*ids[: max_length - 1], tokenizer.sep_token_id]
    with torch.inference_mode():
        logits = model.eval()(torch.tensor([ids])).logits[0]
    return Answered(positions, numbers, logits[positions].numpy())
