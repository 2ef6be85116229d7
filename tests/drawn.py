"""Rows of random ids and classifiers of random weights, for tests of what is computed from them."""

import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel

from hskcache.text import TokenizedRows

SHAPE = {"vocab_size": 40, "pad_token_id": 0}
BERT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}


def rows_of(lengths: list[int], seed: int = 0) -> TokenizedRows:
    draw = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    total = int(offsets[-1])
    ids, types = draw.integers(1, 40, total, dtype=np.int32), draw.integers(0, 2, total).astype(np.uint8)
    return TokenizedRows(ids, offsets, types, frozenset())


def bert(**changes: object) -> PreTrainedModel:
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(**SHAPE | BERT | {"initializer_range": 0.5} | changes))
