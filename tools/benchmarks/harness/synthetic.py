"""Made-up workloads: a vocabulary without text, rows of wanted lengths, and models of known shapes with random weights.

Nothing is downloaded. All of it is drawn from seeds, so a second run meets the same rows and the same weights.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hskcache.spec import ComputeDtype

if TYPE_CHECKING:
    from hskcache.teacher.load import Teacher
    from hskcache.text import Examples

SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
VOCABULARY = 30522
CLASSES = ("0", "1")


class Shape(NamedTuple):
    """Shape of a BERT: T layers, D wide, H heads, and the width between its two feed-forward matrices."""

    num_layers: int
    width: int
    num_heads: int
    intermediate: int


SHAPES = {
    "bert-base": Shape(12, 768, 12, 3072),
    "bert-large": Shape(24, 1024, 16, 4096),
    "small": Shape(6, 192, 6, 768),
    "tiny": Shape(2, 32, 2, 64),
}


def write_tokenizer(folder: Path, vocabulary: int = VOCABULARY) -> Path:
    """A tokenizer of the words w5, w6, ... as transformers loads it; needs only the tokenizers library."""
    if (folder / "tokenizer_config.json").is_file():
        return folder
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = [*SPECIAL.values(), *(f"w{number}" for number in range(len(SPECIAL), vocabulary))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=SPECIAL["unk_token"]))
    tokenizer.add_special_tokens(list(SPECIAL.values()))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return _save_tokenizer(tokenizer, folder)


def train_tokenizer(folder: Path, texts: list[str], vocabulary: int = VOCABULARY) -> Path:
    """A tokenizer of BERT's kind whose word pieces are learned from some texts."""
    if (folder / "tokenizer_config.json").is_file():
        return folder
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token=SPECIAL["unk_token"]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = list(SPECIAL.values())
    trainer = trainers.WordPieceTrainer(vocab_size=vocabulary, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return _save_tokenizer(tokenizer, folder)


def _save_tokenizer(tokenizer: Any, folder: Path) -> Path:
    """Write a tokenizer of the tokenizers library with BERT's special tokens, as transformers loads it."""
    from tokenizers import processors

    ids = [(SPECIAL[name], tokenizer.token_to_id(SPECIAL[name])) for name in ("cls_token", "sep_token")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = ["input_ids", "token_type_ids", "attention_mask"]
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": names, **SPECIAL}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    return folder


def fixed_lengths(num_rows: int, length: int) -> NDArray[np.int64]:
    """Rows of one length, special tokens included."""
    return np.full(num_rows, length, np.int64)


def ragged_lengths(num_tokens: int, longest: int, seed: int = 0) -> NDArray[np.int64]:
    """Lengths as in sentence classification until they sum to ``num_tokens``: most are short, some are cut off.

    Log-normal with a median of 28 tokens and sigma 0.6: a mean of about 33 and 1 % of the rows beyond 110.
    """
    draws = np.random.default_rng(seed).lognormal(np.log(28), 0.6, num_tokens // 4 + 1)
    lengths = np.clip(draws.round(), 4, longest).astype(np.int64)
    return lengths[: max(1, int(np.searchsorted(lengths.cumsum(), num_tokens)))]


def write_rows(path: Path, lengths: Sequence[int] | NDArray[np.int64], seed: int = 0, words: int = VOCABULARY) -> Path:
    """A TSV of random words with random labels; row i has ``lengths[i]`` tokens with [CLS] and [SEP]."""
    rng = np.random.default_rng(seed)
    lines = ["sentence\tlabel"]
    for length in lengths:
        text = " ".join(f"w{number}" for number in rng.integers(len(SPECIAL), words, int(length) - 2))
        lines.append(f"{text}\t{rng.integers(len(CLASSES))}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read_rows(path: Path) -> "Examples":
    """Rows that :func:`write_rows` wrote."""
    from hskcache.text import Columns, LabelSet, read_examples

    return read_examples(path, Columns("sentence", label="label"), LabelSet("classification", CLASSES))


def random_rows(path: Path, lengths: Sequence[int] | NDArray[np.int64]) -> "Examples":
    """Rows of random words, which are left in a file."""
    return read_rows(write_rows(path, lengths))


def config(shape: Shape, longest: int = 512, vocabulary: int = VOCABULARY) -> dict[str, Any]:
    """A BERT's configuration, as ``config.json`` has it."""
    return {
        "model_type": "bert",
        "vocab_size": vocabulary,
        "num_hidden_layers": shape.num_layers,
        "hidden_size": shape.width,
        "num_attention_heads": shape.num_heads,
        "intermediate_size": shape.intermediate,
        "max_position_embeddings": longest,
        "type_vocab_size": 2,
    }


def write_config(folder: Path, shape: Shape, longest: int = 512, vocabulary: int = VOCABULARY) -> Path:
    """Write ``config.json`` with a BERT's configuration; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.json"
    path.write_text(json.dumps(config(shape, longest, vocabulary)), encoding="utf-8")
    return path


def random_teacher(
    shape: str, work: Path, device: str, dtype: ComputeDtype = "float32", tokenizer: Path | None = None
) -> "Teacher":
    """A BERT with random weights of seed 0, made ready as a loaded teacher is.

    Args:
        shape: of ``SHAPES``.
        work: folder of its tokenizer and its configuration.
        device: it computes there.
        dtype: it computes in.
        tokenizer: folder of another one than that of random words.
    """
    import torch

    from hskcache.teacher.load import as_teacher
    from hskcache.text import load_tokenizer
    from trainer.student.create import Interface, create_student

    read = load_tokenizer(tokenizer or write_tokenizer(work / "tokenizer"))
    shaped = Interface(len(read), CLASSES, pad_token_id=read.pad_token_id)
    model = create_student(str(write_config(work / f"config_{shape}", SHAPES[shape])), shaped, seed=0)
    model.to(device=device, dtype=getattr(torch, dtype))
    return as_teacher(model, read, "random weights", len(CLASSES))
