"""Selection among the tokens of a vocabulary at some positions, of their logits in chunks; and how it is stored.

Dimension key, beside that of :mod:`hskcache.spec`: C positions of a chunk, P positions of a batch, K ids kept, n ids
drawn, M blocks of a vocabulary, B ids of one.
"""

from collections.abc import Iterator
from math import isqrt
from typing import NamedTuple

import torch
from torch import Tensor

from hskcache.encoded import LOG_BOUNDS
from hskcache.selection.splitmix import mix, seed_state

_NUM_LOGITS, _LEAST = 1 << 24, 64
_LOW_BITS = 16
_STEPS = 255
"""Steps of the log probabilities of kept tokens, from the first to the last."""


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
    ids_CK = likeliest(logits_CV, count + 1)
    logits_CK = logits_CV.gather(1, ids_CK)
    # Relative to the greatest of the others: 1 less what is kept would be rounding where that is almost all.
    greatest_C1 = logits_CK[:, count:].clamp_min(torch.finfo(logits_CV.dtype).min)
    logits_CK, ids_CK = logits_CK[:, :count], ids_CK[:, :count]
    others_C1 = logits_CV.scatter_(1, ids_CK, -torch.inf).sub_(greatest_C1).exp_().sum(-1, keepdim=True)
    log_others_C1 = greatest_C1 + others_C1.log()
    log_z_C1 = torch.cat([logits_CK, log_others_C1], 1).logsumexp(-1, keepdim=True)
    top = LikeliestTokens(ids_CK, logits_CK - log_z_C1, (log_others_C1 - log_z_C1).squeeze(1))
    return top, log_z_C1.squeeze(1)


def likeliest(logits_CV: Tensor, count: int) -> Tensor:
    """Ids of the ``count`` greatest logits of each position, int64 [C, K]: greatest first, of equal ones the lowest id.

    They lie in the K blocks with the greatest maxima, of equal ones the first: before a block that is left out, K
    others have a token each that comes before all of its own. So no more than the maxima of the blocks and the tokens
    of K of them are put in order, whatever the vocabulary. The order is one of distinct keys, so that equal logits are
    the same everywhere.

    Args:
        logits_CV: float32.
        count: K, at most V.
    """
    vocab_size = logits_CV.shape[1]
    size = 1 << ((vocab_size // count).bit_length() + 1) // 2
    ids_V = torch.arange(vocab_size, device=logits_CV.device)
    whole_CMB = _whole_blocks(logits_CV, size)
    num_blocks = whole_CMB.shape[1]
    keys_CM = _keys(whole_CMB.amax(-1), ids_V[:num_blocks])
    blocks_CK = keys_CM.topk(min(count, num_blocks), sorted=False).indices
    # Those behind the last whole block are few.
    behind_CN = ids_V[num_blocks * size :].expand(len(logits_CV), -1)
    ids_CN = torch.cat([_ids_in(blocks_CK, size).flatten(1), behind_CN], 1)
    return ids_CN.gather(1, _keys(logits_CV.gather(1, ids_CN), ids_CN).topk(count).indices)


def _keys(values: Tensor, places: Tensor) -> Tensor:
    """Integers in the order of values in float32, and where these are equal, greater at the lower place."""
    # 0 and -0 are equal; the bits of a number below 0 grow with its magnitude.
    bits = (values + 0.0).view(torch.int32)
    return ((bits >> 31) & 0x7FFFFFFF).bitwise_xor_(bits).long().bitwise_left_shift_(32).sub_(places)


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
    return StoredTop(steps, ranges, top.log_tail_P.clamp(*LOG_BOUNDS).half())


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
    size, last = _block_size(weights_CV.shape[1], count), weights_CV.shape[1] - 1
    whole_CMB = _whole_blocks(weights_CV, size)
    behind_C1 = weights_CV[:, whole_CMB.shape[1] * size :].sum(-1, keepdim=True)
    below_CM = torch.cat([whole_CMB.sum(-1), behind_C1], 1).double().cumsum(-1)
    total_C1 = below_CM[:, -1:]
    points_Cn = (torch.arange(count, device=logits_CV.device) + uniforms_C.unsqueeze(-1)) / count * total_C1
    blocks_Cn = _passed(below_CM, points_Cn, total_C1)
    before_Cn = below_CM.gather(1, (blocks_Cn - 1).clamp_(min=0)).masked_fill_(blocks_Cn == 0, 0.0)
    # Of a distribution over the whole vocabulary only the blocks that a draw falls into are summed up token by token.
    ids_CnB = _ids_in(blocks_Cn, size)
    within_CnB = weights_CV.gather(1, ids_CnB.clamp(max=last).flatten(1)).view(ids_CnB.shape)
    within_CnB = within_CnB.cumsum(-1, dtype=torch.float64)
    # Beyond the vocabulary its last token is repeated.
    ends_Cn1 = (last - ids_CnB[..., :1]).clamp_(0, size - 1)
    inside_Cn1 = (points_Cn - before_Cn).unsqueeze(-1)
    places_Cn1 = _passed(within_CnB, inside_Cn1, within_CnB.gather(-1, ends_Cn1))
    ids_Cn = (ids_CnB[..., :1] + places_Cn1).squeeze(-1).clamp_(max=last)
    return ids_Cn, (greatest_C1 + total_C1.log()).squeeze(1).float()


def _block_size(vocab_size: int, count: int) -> int:
    """Size at which there are about as many blocks as tokens in those that ``count`` draws fall into."""
    return max(1, isqrt(vocab_size // count))


def _whole_blocks(values_CV: Tensor, size: int) -> Tensor:
    """Neighbouring values, [C, M, ``size``], without those behind the last whole block."""
    num_blocks = values_CV.shape[1] // size
    return values_CV[:, : num_blocks * size].view(len(values_CV), num_blocks, size)


def _ids_in(blocks_Cn: Tensor, size: int) -> Tensor:
    """Ids of the tokens of some blocks, [C, n, ``size``]; the last block may reach beyond the vocabulary."""
    return blocks_Cn.unsqueeze(-1) * size + torch.arange(size, device=blocks_Cn.device)


def _passed(below: Tensor, points: Tensor, total: Tensor) -> Tensor:
    """Places at which sums [..., M] pass points [..., n], float64 both; ``total``: the last sum that counts.

    It is never one that adds nothing: a point lies below the last sum, whatever was rounded.
    """
    places = torch.searchsorted(below, torch.minimum(points, total * (1 - 2.0**-52)), right=True)
    return places.clamp_(max=below.shape[-1] - 1)


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
