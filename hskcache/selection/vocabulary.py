"""Selection among the tokens of a vocabulary at some positions, of their logits in chunks; and how it is stored.

Dimension key, beside that of :mod:`hskcache.spec`: C positions of a chunk, P positions of a batch, K ids kept, n ids
drawn, M blocks of a vocabulary, B ids of one.
"""

from collections.abc import Iterator
from math import isqrt
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


def top_tokens(logits_CV: Tensor, count: int) -> tuple[LikeliestTokens, Tensor]:
    """The ``count`` likeliest tokens of each position and what is left, and log Z, float32 [C].

    Args:
        logits_CV: float32; overwritten.
        count: K, below V.
    """
    logits_CK, ids_CK = logits_CV.topk(count + 1, dim=-1)
    # Relative to the greatest of the others: 1 less what is kept would be rounding where that is almost all.
    greatest_C1 = logits_CK[:, count:].clamp_min(torch.finfo(logits_CV.dtype).min)
    logits_CK, ids_CK = logits_CK[:, :count], ids_CK[:, :count]
    others_C1 = logits_CV.scatter_(1, ids_CK, -torch.inf).sub_(greatest_C1).exp_().sum(-1, keepdim=True)
    log_others_C1 = greatest_C1 + others_C1.log()
    log_z_C1 = torch.cat([logits_CK, log_others_C1], 1).logsumexp(-1, keepdim=True)
    top = LikeliestTokens(ids_CK, logits_CK - log_z_C1, (log_others_C1 - log_z_C1).squeeze(1))
    return top, log_z_C1.squeeze(1)


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


def drawn_tokens(logits_CV: Tensor, uniforms_C: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Tokens drawn from softmax(logits) by systematic sampling, ascending, int64 [C, n], and log Z, float32 [C].

    Draw i is the token at which the cumulative distribution passes (i + u) / n, with one u for all n ["Sampling
    Techniques", Cochran, 1977, chapter 8]: each token is drawn n p times on average, and never a whole time more or
    less often than that.

    Args:
        logits_CV: float32; overwritten.
        uniforms_C: u of each position, float64 in [0, 1).
        count: n.
    """
    greatest_C1 = logits_CV.amax(-1, keepdim=True)
    weights_CV = logits_CV.sub_(greatest_C1).exp_()
    size = _block_size(weights_CV.shape[1], count)
    below_CM = _block_sums(weights_CV, size).cumsum(-1)
    total_C1 = below_CM[:, -1:]
    points_Cn = (torch.arange(count, device=logits_CV.device) + uniforms_C.unsqueeze(-1)) / count * total_C1
    blocks_Cn, inside_Cn = _passed(below_CM, points_Cn)
    # Of a distribution over the whole vocabulary only the blocks that a draw falls into are summed up token by token.
    ids_CnB = blocks_Cn.unsqueeze(-1) * size + torch.arange(size, device=logits_CV.device)
    last = weights_CV.shape[1] - 1
    inner_CnB = weights_CV.gather(1, ids_CnB.clamp(max=last).flatten(1)).view(ids_CnB.shape)
    within_CnB = inner_CnB.masked_fill_(ids_CnB > last, 0.0).cumsum(-1, dtype=torch.float64)
    places_Cn1, _ = _passed(within_CnB, inside_Cn.unsqueeze(-1))
    ids_Cn = (blocks_Cn * size + places_Cn1.squeeze(-1)).clamp_(max=last)
    return ids_Cn, (greatest_C1 + total_C1.log()).squeeze(1).float()


def _block_size(vocab_size: int, count: int) -> int:
    """Size at which there are about as many blocks as tokens in those that ``count`` draws fall into."""
    return max(1, isqrt(vocab_size // count))


def _block_sums(weights_CV: Tensor, size: int) -> Tensor:
    """Sums of neighbouring weights, ``size`` each but for the last, float64 [C, M]."""
    num_whole = weights_CV.shape[1] // size
    whole_CM = weights_CV[:, : num_whole * size].view(-1, num_whole, size).sum(-1)
    rest_C1 = weights_CV[:, num_whole * size :].sum(-1, keepdim=True)
    return torch.cat([whole_CM, rest_C1], 1).double()


def _passed(below: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Places at which sums [..., M] pass points [..., n], float64 both, and how far each is above the sum before.

    It is never one that adds nothing: a point lies below the last sum, whatever was rounded.
    """
    total = below[..., -1:]
    points = torch.minimum(points, total * (1 - 2.0**-52))
    places = torch.searchsorted(below, points, right=True).clamp_(max=below.shape[-1] - 1)
    before = torch.nn.functional.pad(below[..., :-1], (1, 0)).gather(-1, places)
    return places, points - before


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
