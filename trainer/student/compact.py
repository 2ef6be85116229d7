"""BERT with fewer heads than its width holds and a factored word embedding: what is left of a pruned teacher.

A plain BERT divides its width by its heads. A student that keeps two of twelve heads keeps their size of 64 too, so
its attention is narrower than its hidden states [MUD 4.1]. Where heads and neurons of all layers were ranked together
[StarK 3.3], layers differ in how many they have, and may have none. All the rest is BERT's own: only the parts whose
shapes differ are made anew here, and they attend through the attention interface of transformers as BERT does.

The classes are registered with AutoConfig, AutoModel and AutoModelForSequenceClassification when ``trainer.student`` is
imported; from then on a saved student loads as any checkpoint does.
"""

import copy
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    BertPreTrainedModel,
)
from transformers.models.bert.modeling_bert import BertEmbeddings, BertEncoder, BertLayer, BertPooler, BertSelfAttention

BY_LAYER = ("heads_by_layer", "neurons_by_layer")
"""Entries of a configuration that hold a number for every layer."""


@strict
class CompactBertConfig(BertConfig):  # type: ignore[misc]  # transformers is untyped
    """BERT's configuration with sizes of its own.

    Attributes:
        head_size: columns of one head; the number of heads times this is the width of the attention.
        embedding_rank: columns of the word embedding, which one matrix expands to ``hidden_size``; None: no factoring.
        heads_by_layer: number of heads of each layer; None: ``num_attention_heads``, else that is the largest of them.
        neurons_by_layer: number of neurons of each layer; None: ``intermediate_size``, else that is the largest of
            them.
    """

    model_type = "compact_bert"

    head_size: int = 64
    embedding_rank: int | None = None
    heads_by_layer: list[int] | None = None
    neurons_by_layer: list[int] | None = None

    def validate_layers(self) -> None:
        """Raise ValueError unless there is a number for every layer, none of them negative."""
        for name in BY_LAYER:
            numbers = getattr(self, name)
            if numbers is not None and (len(numbers) != self.num_hidden_layers or min(numbers, default=0) < 0):
                raise ValueError(f"{name} {numbers} are not {self.num_hidden_layers} numbers, one a layer")

    def to_dict(self) -> dict[str, Any]:
        """As BERT's; where all layers are alike, nothing is said of them, as before they could differ."""
        plain: dict[str, Any] = super().to_dict()
        return {name: value for name, value in plain.items() if name not in BY_LAYER or value is not None}

    def heads_of(self, layer: int) -> int:
        """Number of heads of a layer, counted from 0."""
        return int(self.num_attention_heads if self.heads_by_layer is None else self.heads_by_layer[layer])

    def neurons_of(self, layer: int) -> int:
        """Number of neurons of a layer, counted from 0."""
        return int(self.intermediate_size if self.neurons_by_layer is None else self.neurons_by_layer[layer])


def _changed(config: CompactBertConfig, **changes: Any) -> CompactBertConfig:
    """A copy that shows a part of BERT the sizes from which its own constructor makes what is wanted."""
    shown = copy.copy(config)
    for name, value in changes.items():
        setattr(shown, name, value)
    return shown


class CompactBertEmbeddings(BertEmbeddings):  # type: ignore[misc]
    """BERT's embeddings; with a rank the word table is [V, r] and ``word_expansion`` multiplies it by [r, D].

    As in ELECTRA ``inputs_embeds`` are rows of the table, so with a rank they are [B, L, r].
    """

    def __init__(self, config: CompactBertConfig) -> None:
        super().__init__(config)
        self.word_expansion: nn.Linear | None = None
        if (rank := config.embedding_rank) is not None:
            self.word_embeddings = nn.Embedding(config.vocab_size, rank, padding_idx=config.pad_token_id)
            self.word_expansion = nn.Linear(rank, config.hidden_size, bias=False)

    def forward(self, input_ids: Tensor | None = None, *, inputs_embeds: Tensor | None = None, **places: Any) -> Tensor:
        """States [B, L, D] of ids [B, L], or of rows of the word table in their place; ``places`` as for BERT's."""
        if inputs_embeds is None:
            inputs_embeds = self.word_embeddings(input_ids)
        if self.word_expansion is not None:
            inputs_embeds = self.word_expansion(inputs_embeds)
        embedded: Tensor = super().forward(inputs_embeds=inputs_embeds, **places)
        return embedded


class Bias(nn.Module):
    """A Linear without inputs: states [B, L, 0] become its bias [B, L, D], as if all its columns were zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, states: Tensor) -> Tensor:
        """The bias at every position."""
        return self.bias.expand(*states.shape[:-1], -1)


class NoHeads(nn.Module):
    """The self-attention of a layer without heads: it attends to nothing, and its output is [B, L, 0]."""

    def forward(self, hidden_states: Tensor, *_args: Any, **_kwargs: Any) -> tuple[Tensor, None]:
        """No columns, and no attention."""
        return hidden_states[..., :0], None


class NoNeurons(nn.Module):
    """The first half of a feed-forward network without neurons, whose output is [B, L, 0]."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """No columns."""
        return hidden_states[..., :0]


class CompactBertSelfAttention(BertSelfAttention):  # type: ignore[misc]
    """BERT's self-attention with heads of ``head_size`` columns, however wide the hidden states are."""

    def __init__(self, config: CompactBertConfig, layer_idx: int) -> None:
        num_heads = config.heads_of(layer_idx)
        width = num_heads * config.head_size
        super().__init__(_changed(config, hidden_size=width, num_attention_heads=num_heads), layer_idx=layer_idx)
        # The model's own: its choice of attention kernel may change later.
        self.config = config
        for name in ("query", "key", "value"):
            setattr(self, name, nn.Linear(config.hidden_size, width))


class CompactBertLayer(BertLayer):  # type: ignore[misc]
    """BERT's layer around a narrower attention and feed-forward network; without heads or neurons a bias stays."""

    def __init__(self, config: CompactBertConfig, layer_idx: int) -> None:
        num_heads, num_neurons = config.heads_of(layer_idx), config.neurons_of(layer_idx)
        # One head fits every width; the attention made of it is replaced.
        shown = _changed(config, num_attention_heads=1, intermediate_size=num_neurons or 1)
        super().__init__(shown, layer_idx=layer_idx)
        if num_heads:
            self.attention.self = CompactBertSelfAttention(config, layer_idx)
            self.attention.output.dense = nn.Linear(num_heads * config.head_size, config.hidden_size)
        else:
            self.attention.self, self.attention.output.dense = NoHeads(), Bias(config.hidden_size)
        if not num_neurons:
            self.intermediate, self.output.dense = NoNeurons(), Bias(config.hidden_size)


class CompactBertEncoder(BertEncoder):  # type: ignore[misc]
    """BERT's stack of layers, made of compact ones."""

    def __init__(self, config: CompactBertConfig) -> None:
        super().__init__(_changed(config, num_hidden_layers=0))
        self.config = config
        self.layer = nn.ModuleList(CompactBertLayer(config, index) for index in range(config.num_hidden_layers))


class CompactBertModel(BertModel):  # type: ignore[misc]
    """BERT's encoder and pooler with compact layers and embeddings."""

    config_class = CompactBertConfig

    def __init__(self, config: CompactBertConfig, add_pooling_layer: bool = True) -> None:
        # Not BertModel's constructor, which would make BERT's own layers; its forward pass is used as it is.
        BertPreTrainedModel.__init__(self, config)
        self.gradient_checkpointing = False
        self.embeddings = CompactBertEmbeddings(config)
        self.encoder = CompactBertEncoder(config)
        self.pooler = BertPooler(config) if add_pooling_layer else None
        self.post_init()


class CompactBertForSequenceClassification(BertForSequenceClassification):  # type: ignore[misc]
    """BERT's sequence classifier over a compact encoder."""

    config_class = CompactBertConfig

    def __init__(self, config: CompactBertConfig) -> None:
        BertPreTrainedModel.__init__(self, config)
        self.num_labels = config.num_labels
        self.bert = CompactBertModel(config)
        dropout = config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()


AutoConfig.register(CompactBertConfig.model_type, CompactBertConfig, exist_ok=True)
AutoModel.register(CompactBertConfig, CompactBertModel, exist_ok=True)
AutoModelForSequenceClassification.register(CompactBertConfig, CompactBertForSequenceClassification, exist_ok=True)
