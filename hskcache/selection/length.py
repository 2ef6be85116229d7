"""Length: score every position of a row and keep the best [MUD 3.2].

A score ranks the positions; eligibility says which of them may be kept at all; :func:`top_positions` puts the two
together. All of it runs on the device of its inputs and never waits for it.
"""

import torch
from torch import Tensor

from hskcache.selection.order import LAST, descending_keys
from hskcache.selection.splitmix import mix, seed_state, stream

_NOTHING = -80.0
_CACHED = 1 << 18
"""Logits of 1 MiB in float32."""


def eligible_BL(valid_BL: Tensor, special_BL: Tensor | None) -> Tensor:
    """Positions that may be kept: never padding, and no special token but the one at position 0.

    ``valid_BL``: True where a token is real, bool [B, L]. ``special_BL``: True where a token is special, bool [B, L];
    None lets special tokens be kept.
    """
    if special_BL is None:
        return valid_BL
    first_L = torch.arange(valid_BL.shape[1], device=valid_BL.device) == 0
    return valid_BL & (first_L | ~special_BL)


def cls_eligible(valid_BL: Tensor) -> Tensor:
    """Position 0 alone may be kept, bool [B, L] -> bool [B, L]."""
    return valid_BL & (torch.arange(valid_BL.shape[1], device=valid_BL.device) == 0)


def attention_score(probabilities_BHL: Tensor) -> Tensor:
    """The [CLS] query's attention to each position, mean over heads [MUD 3.2].

    ``probabilities_BHL``: row 0 of the attention after the softmax, float [B, H, L]. Returns float32 [B, L].
    """
    return probabilities_BHL.mean(1, dtype=torch.float32)


def attention_logit_score(scores_BHL: Tensor) -> Tensor:
    """The [CLS] query's scores before the softmax, mean over heads: what the public code of [MUD] ranks by.

    ``scores_BHL``: row 0 of QK^T / sqrt(d), float [B, H, L]. Returns float32 [B, L].
    """
    return scores_BHL.mean(1, dtype=torch.float32)


def received_score(probabilities_BHQL: Tensor, valid_BL: Tensor, first: int = 0) -> Tensor:
    """The attention a position receives, mean over heads and over the queries that are real tokens.

    ``probabilities_BHQL``: attention after the softmax, queries before keys, float [B, H, Q, L]; ``valid_BL``: True
    where a token is real, bool [B, L]; ``first``: of Q neighbouring queries, whose part of the mean over all this is.
    Returns float32 [B, L]; 0 for a row without real tokens.
    """
    real_BQ = valid_BL[:, first : first + probabilities_BHQL.shape[2]]
    by_query = probabilities_BHQL.mean(1, dtype=torch.float32).masked_fill(~real_BQ.unsqueeze(-1), 0.0)
    num_queries = valid_BL.sum(-1, keepdim=True).clamp(min=1)
    return by_query.sum(1) / num_queries


def left_score(batch: int, length: int, device: torch.device | str) -> Tensor:
    """A score that falls from left to right, float32 [B, L]."""
    return -torch.arange(length, dtype=torch.float32, device=device).expand(batch, length)


def right_score(batch: int, length: int, device: torch.device | str) -> Tensor:
    """A score that rises from left to right, float32 [B, L]; the public code of [MUD] has it, the paper does not."""
    return -left_score(batch, length, device)


def random_score(row_ids_B: Tensor, length: int, seed: int) -> Tensor:
    """A score in [0, 1) drawn for each (seed, row, position) alone, whatever the batch, its padding or the device.

    ``row_ids_B``: rows of the data set, int64 [B]; ``length``: L; ``seed``: any integer. Returns float32 [B, L],
    multiples of 2**-24.
    """
    seed_bits = int(mix(seed_state(seed)))
    bits = stream(mix(row_ids_B + seed_bits), length)
    return ((bits >> 40) & 0xFFFFFF).to(torch.float32) * 2.0**-24


def entropy_score(logits_CV: Tensor) -> Tensor:
    """The entropy of softmax(logits) in nats [arXiv 2602.01395], float32 [C].

    With d the logits less the greatest, it is log sum e^d - (sum d e^d) / (sum e^d): small where one token has nearly
    all, without a difference of large numbers.

    Args:
        logits_CV: float32; minus infinity has no part in it.
    """
    # A few positions at a time stay in the cache of a processor, which takes a quarter of the time.
    is_on_cpu = logits_CV.device.type == "cpu"
    num_at_once = max(1, _CACHED // logits_CV.shape[1] if is_on_cpu else len(logits_CV))
    return torch.cat([_entropies(part) for part in torch.split(logits_CV, num_at_once)])


def _entropies(logits_CV: Tensor) -> Tensor:
    # Beyond that e^d is nothing, and slow on a CPU.
    below_CV = (logits_CV - logits_CV.amax(-1, keepdim=True)).clamp_(min=_NOTHING)
    weights_CV = below_CV.exp()
    total_C = weights_CV.sum(-1)
    mean_C: Tensor = torch.linalg.vecdot(weights_CV, below_CV) / total_C
    return total_C.log() - mean_C


def top_positions(scores_BL: Tensor, eligible_BL: Tensor, tokens: int | None) -> tuple[Tensor, Tensor]:
    """The best eligible positions of each row, best first, ties to the lowest position [MUD 3.2].

    The first K' of them are therefore the selection for any K' < K. A NaN ranks with minus infinity. ``scores_BL``:
    float [B, L]. ``eligible_BL``: positions that may be kept, bool [B, L]. ``tokens``: K; None keeps every eligible
    position, in the order of the row. Returns positions int64 [B, min(K, L)], 0 beyond a row's count; and the counts
    int64 [B].
    """
    length = scores_BL.shape[1]
    kept = length if tokens is None else min(tokens, length)
    if tokens is None:
        scores_BL = left_score(len(scores_BL), length, scores_BL.device)
    # The sign of a NaN depends on the processor, and with it whether its bits rank first or last.
    scores_BL = scores_BL.to(torch.float32).nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    keys_BL = descending_keys(scores_BL).masked_fill_(~eligible_BL, LAST)
    order_BK = keys_BL.topk(kept, dim=-1).indices
    counts_B = eligible_BL.sum(-1).clamp(max=kept)
    within = torch.arange(kept, device=scores_BL.device) < counts_B.unsqueeze(-1)
    return order_BK * within, counts_B
