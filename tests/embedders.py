"""Sentence embedders of random weights in folders, written as sentence-transformers 5 and 6 write them."""

import json
from pathlib import Path
from typing import Any

from models import saved

FLAGS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "last": "pooling_mode_lasttoken",
}
WIDTH, DENSE_WIDTH = 32, 12


def embedder(
    tokenizer_dir: Path, folder: Path, pooling: str = "mean", modules: tuple[str, ...] = ("Normalize",), **settings: Any
) -> Path:
    """A BERT of two layers with a pooling and further modules; ``settings``: of config_sentence_transformers.json."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=64,
    )
    saved(lambda: BertModel(config), tokenizer, folder)
    kinds = ["Transformer", "Pooling", *modules]
    listed = [
        {"idx": place, "name": str(place), "path": f"{place}_{kind}" if place else "", "type": f"st.models.{kind}"}
        for place, kind in enumerate(kinds)
    ]
    put(folder / "modules.json", listed)
    put(folder / "sentence_bert_config.json", {"max_seq_length": 20, "do_lower_case": False})
    put(folder / "config_sentence_transformers.json", settings)
    flags = {flag: name == pooling for name, flag in FLAGS.items()}
    put(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": WIDTH, **flags})
    if "Dense" in modules:
        dense(folder / f"{2 + modules.index('Dense')}_Dense")
    return folder


def dense(folder: Path) -> None:
    """A Dense with a Tanh."""
    import torch
    from safetensors.torch import save_file

    draw = torch.Generator().manual_seed(1)
    config = {"in_features": WIDTH, "out_features": DENSE_WIDTH, "bias": True}
    put(folder / "config.json", config | {"activation_function": "torch.nn.modules.activation.Tanh"})
    weights = {
        "linear.weight": torch.randn(DENSE_WIDTH, WIDTH, generator=draw),
        "linear.bias": torch.randn(DENSE_WIDTH, generator=draw),
    }
    save_file(weights, folder / "model.safetensors")


def put(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
