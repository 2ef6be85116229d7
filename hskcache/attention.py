"""Attention made visible: the query and key of every self-attention of a model, without the slow eager path.

A function registered with transformers' AttentionInterface calls the ordinary sdpa kernel for the model and hands query
and key to whoever listens; products of the two are then made for the positions that matter, and no [L, L] matrix
unless all positions do. Teachers and students are seen through the same function.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

IMPLEMENTATION = "hskcache_sdpa"
"""Name under which transformers knows the function; for ``model.set_attn_implementation``."""

Listener = Callable[[Tensor, Tensor, Tensor | None, float], None]
"""Takes query [B, H, L, d], key [B, H, L, d], the attention mask (bool, additive or None) and the scaling of QK^T."""

_listener: ContextVar[Listener | None] = ContextVar("hskcache_attention_listener", default=None)


@contextmanager
def listening(listener: Listener | None) -> Iterator[None]:
    """Hand every self-attention of the forward passes inside to ``listener``, in the order in which they run."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def scores_between(query_BHLd: Tensor, key_BHLd: Tensor, positions_BK: Tensor | None, scaling: float) -> Tensor:
    """Attention scores QK^T * scaling between some positions, before mask and softmax [TinyBERT 3.1, eq. 7].

    ``positions_BK``: positions of each row, int64; None takes all L. ``scaling``: what the model multiplies QK^T by, 1
    / sqrt(d) as a rule. Returns [B, H, K, K], queries before keys, in the type of the query.
    """
    if positions_BK is not None:
        index = positions_BK[:, None, :, None].expand(-1, query_BHLd.shape[1], -1, query_BHLd.shape[3])
        query_BHLd, key_BHLd = query_BHLd.gather(2, index), key_BHLd.gather(2, index)
    return torch.matmul(query_BHLd, key_BHLd.transpose(2, 3)) * scaling


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    listener = _listener.get()
    if listener is not None:
        scaling = kwargs.get("scaling")
        heads = query.shape[1] // key.shape[1]
        seen = key if heads == 1 else key.repeat_interleave(heads, dim=1)
        listener(query, seen, attention_mask, query.shape[-1] ** -0.5 if scaling is None else scaling)
    output: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    return output


AttentionInterface.register(IMPLEMENTATION, _attention)
AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)
