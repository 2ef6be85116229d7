"""The families of teachers, and where in their layers a head's or a neuron's weights are, written down once more."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from hskcache.text.rows import Examples

LAYERS, HEADS, NEURONS, HEAD_SIZE = 2, 4, 6, 3
WIDTH = HEADS * HEAD_SIZE

_BERT: dict[str, Any] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": NEURONS,
    "max_position_embeddings": 64,
    "initializer_range": 0.4,
}
SIZES: dict[str, dict[str, Any]] = {
    "bert": _BERT,
    "roberta": _BERT | {"type_vocab_size": 1},
    # Embeddings of another width pass through a Linear that belongs to no layer.
    "electra": _BERT | {"embedding_size": 8},
    "distilbert": {
        "dim": WIDTH,
        "n_layers": LAYERS,
        "n_heads": HEADS,
        "hidden_dim": NEURONS,
        "max_position_embeddings": 64,
        "initializer_range": 0.4,
    },
}
CONFIGS: dict[str, Any] = {
    "bert": BertConfig,
    "roberta": RobertaConfig,
    "electra": ElectraConfig,
    "distilbert": DistilBertConfig,
}
FAMILIES: dict[str, Any] = {
    "bert": BertForSequenceClassification,
    "roberta": RobertaForSequenceClassification,
    "electra": ElectraForSequenceClassification,
    "distilbert": DistilBertForSequenceClassification,
}
NAMES = tuple(FAMILIES)


def linears(model: PreTrainedModel) -> list[dict[str, nn.Linear]]:
    """Of every layer: ``value``, ``heads`` (output projection), ``first`` and ``neurons`` (feed-forward)."""
    if model.config.model_type == "distilbert":
        return [
            {
                "value": layer.attention.v_lin,
                "heads": layer.attention.out_lin,
                "first": layer.ffn.lin1,
                "neurons": layer.ffn.lin2,
            }
            for layer in model.base_model.transformer.layer
        ]
    return [
        {
            "value": layer.attention.self.value,
            "heads": layer.attention.output.dense,
            "first": layer.intermediate.dense,
            "neurons": layer.output.dense,
        }
        for layer in model.base_model.encoder.layer
    ]


def columns(model: PreTrainedModel, kind: str, layer: int, number: int) -> Tensor:
    """The weights that a head or a neuron contributes through, a view [out, columns]."""
    size = HEAD_SIZE if kind == "heads" else 1
    return linears(model)[layer][kind].weight[:, number * size : (number + 1) * size]


def inputs_of(
    model: PreTrainedModel, tokenizer: Any, examples: Examples, part: slice = slice(None)
) -> dict[str, Tensor]:
    """What transformers makes of some pairs, padded."""
    assert examples.pairs is not None
    batch = dict(tokenizer(examples.texts[part], examples.pairs[part], padding=True, return_tensors="pt"))
    if model.config.model_type in ("roberta", "distilbert"):
        del batch["token_type_ids"]
    assert batch["attention_mask"].min() == 0
    return batch


def logits_of(model: PreTrainedModel, tokenizer: Any, examples: Examples, part: slice = slice(None)) -> Tensor:
    """Logits [B, C] in eval mode, without a gradient."""
    mode = model.training
    with torch.no_grad():
        logits: Tensor = model.eval()(**inputs_of(model, tokenizer, examples, part)).logits
    model.train(mode)
    return logits
