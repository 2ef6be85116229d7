"""Likelihood of the tokens of some rows by a causal language model: perplexity, bits a byte, and its likeliest tokens.

Dimension letters: B rows of a batch, L positions, D width, V vocabulary, T tokens to be predicted of all rows.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from hskcache.errors import TeacherError
from hskcache.inference import check_fit, evaluating, length_batches, pad_batch, row_costs
from hskcache.metrics import BITS_PER_BYTE, PERPLEXITY
from hskcache.output_head import OutputHead, find_head, without_logits
from hskcache.ragged import ragged_places
from hskcache.text import TokenizedRows
from hskcache.text.padding import places_before_targets

_TOKEN_BUDGET = 8192
# Logits that exist at a time: 64 MiB of float32.
_NUM_LOGITS = 1 << 24


class TokenLikelihoods(NamedTuple):
    """Answers of a model for every token to be predicted, in the order of the rows.

    Attributes:
        logp_T: log probability of the token, float32.
        best_T: the likeliest token, int64; of equals the first.
    """

    logp_T: NDArray[np.float32]
    best_T: NDArray[np.int64]


def answers_of(
    model: PreTrainedModel,
    rows: TokenizedRows,
    *,
    bf16: bool = False,
    on_rows: Callable[[int], None] = lambda _count: None,
) -> TokenLikelihoods:
    """Answers for the targets of rows; logits are of some positions at a time.

    Raises MismatchError if a row is longer than the model's positions, or holds an id outside its vocabulary;
    TeacherError if the model says no next tokens, or it cannot be told how.

    Args:
        model: a causal language model, on the device where to compute.
        rows: without token types.
        bf16: compute under bfloat16 autocast.
        on_rows: called with the number of rows done since the last call.
    """
    check_fit(model, rows)
    device, num_N = model.device, rows.num_targets
    logp_T, best_T = torch.empty(num_N.sum(), device=device), torch.empty(num_N.sum(), device=device).long()
    begin_N = np.cumsum(num_N) - num_N
    autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16)
    with evaluating(model), torch.inference_mode():
        head = _head(model)
        for indices in length_batches(row_costs(rows.lengths), _TOKEN_BUDGET):
            batch = pad_batch(rows, indices, model.config.pad_token_id or 0)
            inputs = {name: batch[name].to(device, non_blocking=True) for name in ("input_ids", "attention_mask")}
            before = places_before_targets(rows, indices, inputs["input_ids"].shape[1])
            before_T = torch.from_numpy(before).to(device, non_blocking=True)
            with autocast, without_logits(model, head) as states:
                model(**inputs, use_cache=False)
                states_TD = states[-1].flatten(0, 1).index_select(0, before_T)
                gold_T = inputs["input_ids"].flatten().index_select(0, before_T + 1)
                found = _in_chunks(head, states_TD, gold_T)
            number_T = torch.from_numpy(ragged_places(begin_N[indices], num_N[indices])).to(device)
            logp_T[number_T], best_T[number_T] = found
            on_rows(len(indices))
    return TokenLikelihoods(logp_T.cpu().numpy(), best_T.cpu().numpy())


def _head(model: PreTrainedModel) -> OutputHead:
    head = find_head(model)
    if head is None:
        raise TeacherError(f"{type(model).__name__} says no next tokens; give a causal language model")
    return head


def _in_chunks(head: OutputHead, states_TD: Tensor, gold_T: Tensor) -> tuple[Tensor, Tensor]:
    """Log probabilities of tokens, float32, and the likeliest tokens, int64, both [T]."""
    logp_T, best_T = torch.empty(len(gold_T), device=gold_T.device), torch.empty_like(gold_T)
    size = max(1, _NUM_LOGITS // len(head.weight_VD))
    for first in range(0, len(gold_T), size):
        part = slice(first, first + size)
        logits_CV, _ = head.logits(states_TD[part])
        logp_T[part] = (logits_CV.gather(1, gold_T[part, None])[:, 0] - logits_CV.logsumexp(1)).float()
        best_T[part] = logits_CV.argmax(1)
    return logp_T, best_T


def likeliest(head: OutputHead, states_TD: Tensor) -> Tensor:
    """The likeliest token after each state, int64 [T]."""
    return _in_chunks(head, states_TD, torch.zeros(len(states_TD), dtype=torch.int64, device=states_TD.device))[1]


def scores_of(logp_T: NDArray[np.float32], num_bytes: int | None) -> dict[str, float]:
    """Bits a byte, where bytes are known, and perplexity, exp of the mean of -log p; lower is better.

    ``num_bytes``: of the text in UTF-8. Not a number where there is nothing to predict.
    """
    if not len(logp_T):
        return {PERPLEXITY: math.nan}
    # In float64: a corpus has millions of tokens.
    nll = -float(logp_T.sum(dtype=np.float64))
    mean = nll / len(logp_T)
    perplexity = math.exp(mean) if mean < 700 else math.inf
    bits = {BITS_PER_BYTE: nll / math.log(2) / num_bytes} if num_bytes else {}
    return {**bits, PERPLEXITY: perplexity}
