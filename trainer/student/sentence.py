"""A student that gives embeddings, saved as sentence-transformers reads it.

Beside the encoder's own files stand those of the modules that make a vector of its states: Pooling, a Dense where the
student was led to another width, and Normalize. The names of their classes are those of version 2 and later.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from hskcache.model.save import save_weights
from hskcache.store.kinds.embedding import EmbeddingField

_CLASSES = "sentence_transformers.models."
# As every version reads them.
_FLAGS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "last": "pooling_mode_lasttoken",
}


class Embedder(NamedTuple):
    """Parts by which a student's vectors are made, apart from its encoder.

    Attributes:
        field: of the teacher's embeddings, which it learned to give.
        width: of its own states.
        dense: leads to the width of the field; None where they are equal.
        prompt: text before each row.
        max_length: tokens of a row at most.
    """

    field: EmbeddingField
    width: int
    dense: nn.Linear | None
    prompt: str
    max_length: int


def save_modules(embedder: Embedder, folder: Path) -> None:
    """Put the modules beside an encoder and its tokenizer.

    Raises OSError if the disk is full or the folder cannot be written.
    """
    modules = ["Transformer", "Pooling"]
    modules += ["Dense"] if embedder.dense is not None else []
    modules += ["Normalize"] if embedder.field.is_normalized else []
    paths = [f"{index}_{kind}" if index else "" for index, kind in enumerate(modules)]
    for path in paths:
        (folder / path).mkdir(exist_ok=True)
    listed = [
        {"idx": index, "name": str(index), "path": path, "type": f"{_CLASSES}{kind}"}
        for index, (kind, path) in enumerate(zip(modules, paths, strict=True))
    ]
    _write(folder / "modules.json", listed)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": embedder.max_length, "do_lower_case": False})
    _write(
        folder / "config_sentence_transformers.json",
        {
            "prompts": {"default": embedder.prompt} if embedder.prompt else {},
            "default_prompt_name": "default" if embedder.prompt else None,
        },
    )
    flags = {flag: pooling == embedder.field.pooling for pooling, flag in _FLAGS.items()}
    _write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": embedder.width} | flags)
    if embedder.dense is not None:
        _save_dense(embedder.dense, folder / paths[2])


def _save_dense(dense: nn.Linear, folder: Path) -> None:
    config = {
        "in_features": dense.in_features,
        "out_features": dense.out_features,
        "bias": True,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    _write(folder / "config.json", config)
    save_weights(nn.ModuleDict({"linear": dense}), folder / "model.safetensors")


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
