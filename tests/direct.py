"""What a cache must hold, computed without any of the capture: the eager model, one padded row at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from hskcache.selection.length import random_score

# Eager attention and the fused kernel add up in another order; states here are of magnitude 1.
CLOSE = 2e-5


@dataclass(frozen=True)
class Direct:
    """One row through the eager model, padding cut off again.

    Attributes:
        logits: [C].
        hidden: by layer 0 to T, [L, D].
        probabilities: by attention layer, [H, L, L].
        scores: by attention layer, QK^T / sqrt(d), [H, L, L].
    """

    logits: Tensor
    hidden: list[Tensor]
    probabilities: list[Tensor]
    scores: list[Tensor]

    def ranking(self, score: str, layer: int, row: int, seed: int) -> Tensor:
        """The score [L] of every position by an attention layer, from the definitions."""
        length = len(self.hidden[0])
        if score == "attention":
            return self.probabilities[layer][:, 0].mean(0)
        if score == "attention-logit":
            return self.scores[layer][:, 0].mean(0)
        if score == "received":
            return self.probabilities[layer].mean((0, 1))
        if score == "random":
            return random_score(torch.tensor([row]), length, seed)[0]
        return (1 if score == "right" else -1) * torch.arange(length, dtype=torch.float32)


def raw_scores(model: PreTrainedModel, inputs: dict[str, Tensor]) -> list[Tensor]:
    """Scores before the softmax and the mask, float32 [B, H, L, L] by layer, from the outputs of the projections."""
    found: dict[str, list[Tensor]] = {"query": [], "key": []}
    handles = []

    def keep(kind: str, _module: Any, _args: Any, output: Tensor) -> None:
        heads = model.config.num_attention_heads
        found[kind].append(output.float().unflatten(-1, (heads, -1)).transpose(1, 2))

    for name, module in model.named_modules():
        kind = {"query": "query", "q_lin": "query", "key": "key", "k_lin": "key"}.get(name.rpartition(".")[2])
        if kind:
            handles.append(module.register_forward_hook(partial(keep, kind)))
    with torch.no_grad():
        model(**inputs)
    for handle in handles:
        handle.remove()
    return [q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 for q, k in zip(found["query"], found["key"], strict=True)]


def direct(model: PreTrainedModel, ids: Sequence[int], types: Sequence[int] | None, pad_to: int) -> Direct:
    """Run an eager model on one row padded to ``pad_to`` tokens."""
    length, pad = len(ids), model.config.pad_token_id or 0
    inputs = {
        "input_ids": torch.tensor([[*ids, *[pad] * (pad_to - length)]]),
        "attention_mask": torch.tensor([[1] * length + [0] * (pad_to - length)]),
    }
    if types is not None:
        inputs["token_type_ids"] = torch.tensor([[*types, *[0] * (pad_to - length)]])
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True, output_attentions=True)
    return Direct(
        logits=output.logits[0],
        hidden=[states[0, :length] for states in output.hidden_states],
        probabilities=[attention[0, :, :length, :length] for attention in output.attentions],
        scores=[scores[0, :, :length, :length] for scores in raw_scores(model, inputs)],
    )


def assert_best(positions: Sequence[int], ranking: Tensor, eligible: Sequence[int], tokens: int | None) -> None:
    """The positions are the best eligible ones, best first; scores closer than rounding may stand in any order."""
    if tokens is None:
        assert list(positions) == list(eligible)
        return
    assert len(positions) == min(tokens, len(eligible))
    assert len(set(positions)) == len(positions)
    assert set(positions) <= set(eligible)
    values = ranking[list(positions)]
    assert bool((values[1:] <= values[:-1] + CLOSE).all()), (positions, values)
    rest = [position for position in eligible if position not in set(positions)]
    if rest and len(positions):
        assert float(ranking[rest].max()) <= float(values.min()) + CLOSE, (positions, ranking)
