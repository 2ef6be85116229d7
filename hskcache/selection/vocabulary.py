"""Selection among the tokens of a vocabulary at some positions, of their logits in chunks; and how it is stored.

Dimension key, beside that of :mod:`hskcache.spec`: C positions of a chunk, P positions of a batch, K ids kept, n ids
drawn.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from hskcache.selection.splitmix import mix, seed_state

_NUM_LOGITS, _LEAST = 1 << 24, 64
_LOW_BITS = 16
_STEPS = 255
"""Steps of the log probabilities of kept tokens, from the first to the last."""
_SMALLEST, _LARGEST = -65504.0, -(2.0**-24)
"""Smallest and largest finite float16 below 0."""


class LikeliestTokens(NamedTuple):
    """Likeliest tokens of some positions.

    Attributes:
        ids_PK: likeliest first, int64.
        logp_PK: their log p, float32.
        log_tail_P: log of the probability of all others, float32.
    """

    ids_PK: Tensor
    logp_PK: Tensor
    log_tail_P: Tensor


class StoredTop(NamedTuple):
    """Log probabilities of the likeliest tokens as they are stored.

    Attributes:
        steps: uint8 [P, K - 1].
        ranges: float16 [P].
        log_tail: float16 [P].
    """

    steps: Tensor
    ranges: Tensor
    log_tail: Tensor


def chunks(num_positions: int, vocab_size: int) -> Iterator[slice]:
    """Neighbouring positions of which the logits exist at once: 64 MiB of float32, but 64 positions at least."""
    num_at_once = max(_LEAST, _NUM_LOGITS // vocab_size)
    for first in range(0, num_positions, num_at_once):
        yield slice(first, min(first + num_at_once, num_positions))


def top_tokens(logits_CV: Tensor, log_z_C: Tensor, count: int) -> LikeliestTokens:
    """The ``count`` likeliest tokens of each position, and what is left; the logits are overwritten.

    Args:
        logits_CV: float32.
        log_z_C: log of the sum of their exp, float32.
        count: K, below V.
    """
    logits_CK, ids_CK = logits_CV.topk(count, dim=-1)
    # Summed up from the others alone: 1 less what is kept would be rounding where that is almost all.
    log_tail_C = logits_CV.scatter_(1, ids_CK, -torch.inf).logsumexp(-1) - log_z_C
    return LikeliestTokens(ids_CK, logits_CK - log_z_C.unsqueeze(-1), log_tail_C)


def stored_top(top: LikeliestTokens) -> StoredTop:
    """Log probabilities, quantised evenly between that of the first token and that of the last.

    A log p is off by 1/510 of the range, as the mean over the kept tokens is, which are made to add up again; so the
    two together are 1/255 of it at most, and what float16 rounds of range and tail.
    """
    falls_PK = top.logp_PK[:, :1] - top.logp_PK
    ranges = falls_PK[:, -1].half()
    scale_P = torch.where(ranges > 0, _STEPS / ranges.float(), 0.0)
    codes_PK = (falls_PK * scale_P.unsqueeze(-1)).round().clamp(0, _STEPS)
    # What is not finite is counted by the ranges.
    steps = codes_PK.nan_to_num().diff(dim=-1).to(torch.uint8)
    return StoredTop(steps, ranges, top.log_tail_P.clamp(_SMALLEST, _LARGEST).half())


def restored_top(stored: StoredTop) -> Tensor:
    """Log probabilities float32 [P, K] out of what :func:`stored_top` gave; with the tail their exp add up to 1."""
    codes_PK = torch.nn.functional.pad(stored.steps.float().cumsum(-1), (1, 0))
    falls_PK = codes_PK * (stored.ranges.float() / _STEPS).unsqueeze(-1)
    kept_P = torch.log(-torch.expm1(stored.log_tail.float()))
    return (-falls_PK).log_softmax(-1) + kept_P.unsqueeze(-1)


def uniforms(row_ids_P: Tensor, positions_P: Tensor, seed: int) -> Tensor:
    """A number in [0, 1) for each (seed, row, position) alone, float64 [P], multiples of 2**-53.

    Args:
        row_ids_P: rows of the data set, int64.
        positions_P: places in the row, int64.
        seed: any integer.
    """
    seed_bits = int(mix(seed_state(seed)))
    bits = mix(mix(row_ids_P + seed_bits) + positions_P)
    return ((bits >> 11) & ((1 << 53) - 1)).double() * 2.0**-53


def drawn_tokens(logits_CV: Tensor, uniforms_C: Tensor, count: int) -> Tensor:
    """Tokens drawn from softmax(logits) by systematic sampling, ascending, int64 [C, n].

    Draw i is the token at which the cumulative distribution passes (i + u) / n, with one u for all n ["Sampling
    Techniques", Cochran, 1977, chapter 8]: each token is drawn n p times on average, and never a whole time more or
    less often than that. The logits are overwritten.

    Args:
        logits_CV: float32.
        uniforms_C: u of each position, float64 in [0, 1).
        count: n.
    """
    weights_CV = logits_CV.sub_(logits_CV.amax(-1, keepdim=True)).exp_()
    below_CV = weights_CV.cumsum(-1, dtype=torch.float64)
    total_C1 = below_CV[:, -1:]
    places_Cn = (torch.arange(count, device=logits_CV.device) + uniforms_C.unsqueeze(-1)) / count
    # A place must lie below the last weight that is not 0.
    points_Cn = torch.minimum(places_Cn * total_C1, total_C1 * (1 - 2.0**-52))
    return torch.searchsorted(below_CV, points_Cn, right=True).clamp_(max=logits_CV.shape[-1] - 1)


def packed_ids(ids_PK: Tensor, high_bits: int) -> tuple[Tensor, Tensor | None]:
    """Lowest 16 bits of ids, as int16 [P, K], and those above, packed lowest first, uint8 [P, bytes]; None without any.

    Args:
        ids_PK: int64, not negative.
        high_bits: b, bits above the lowest 16 that the largest id has.
    """
    low = (ids_PK & 0xFFFF).to(torch.int16)
    if not high_bits:
        return low, None
    bits_PKb = (ids_PK.unsqueeze(-1) >> torch.arange(_LOW_BITS, _LOW_BITS + high_bits, device=ids_PK.device)) & 1
    num_bits = ids_PK.shape[1] * high_bits
    flat = torch.nn.functional.pad(bits_PKb.flatten(1), (0, -num_bits % 8))
    bytes_Pb8 = flat.reshape(len(flat), -(-num_bits // 8), 8)
    return low, (bytes_Pb8 << torch.arange(8, device=flat.device)).sum(-1).to(torch.uint8)


def gaps_of(ids_Pn: Tensor) -> Tensor:
    """Differences of ascending ids from the one before, the first from 0, int64 [P, n]."""
    return torch.diff(ids_Pn, dim=-1, prepend=torch.zeros_like(ids_Pn[:, :1]))
