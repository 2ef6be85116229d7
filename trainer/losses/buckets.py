"""Losses on some ids of the vocabulary, with the others as one bucket: no second tensor of the logits' size.

With the ids K that a teacher kept set aside, the rest of the vocabulary is a bucket with log Z_r = logsumexp of its
logits, and log Z = log(e^log Z_r + sum over K of e^z). The student's tail is log q_t = log Z_r - log Z, exact however
small it is, where in float32 1 - sum q is nothing but rounding below 1e-7. With w the weights, and p and c / n as in
:mod:`~trainer.losses.next_tokens`, the gradient of the weighted sum on the logits is

- in the rest q_v sum(w) - w_top p_t q_v / q_t, of a position a multiple of e^z_v;
- in K q_v sum(w) - w_top p_v;
- and, wherever an id was drawn, - w c_v / n more.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from trainer.losses.next_tokens import DrawnTokens, TopTokens


class ChunkLosses(NamedTuple):
    """Values of a chunk by term, [C] each, and the gradient of their weighted sum on its logits [C, V]."""

    values: dict[str, Tensor]
    gradient_CV: Tensor | None


def compare(logits_CV: Tensor, terms: Mapping[str, DrawnTokens | TopTokens], wants_gradient: bool) -> ChunkLosses:
    """Compare logits, which are overwritten, with what is known of some ids: terms of which one at most is of a top."""
    drawn = {name: _Drawn(term, logits_CV) for name, term in terms.items() if isinstance(term, DrawnTokens)}
    kept = {name: _Kept(term, logits_CV) for name, term in terms.items() if isinstance(term, TopTokens)}
    for aside in kept.values():
        logits_CV.scatter_(1, aside.ids_CK, -torch.inf)
    rest = _Rest(logits_CV, [aside.logits_CK for aside in kept.values()])
    sides: dict[str, _Drawn | _Kept] = {**drawn, **kept}
    values = {name: side.value(rest).squeeze(1) for name, side in sides.items()}
    if not wants_gradient:
        return ChunkLosses(values, None)
    mass_C1 = torch.stack([side.mass_C1 for side in sides.values()]).sum(0)
    in_rest_C1 = mass_C1 * rest.logq_C1.exp()
    for aside in kept.values():
        in_rest_C1 -= aside.mass_C1 * aside.tail_C1
    gradient_CV = rest.exponentials_CV.mul_(in_rest_C1 / rest.sum_C1)
    for aside in kept.values():
        gradient_CV.scatter_add_(1, aside.ids_CK, mass_C1 * rest.logq(aside.logits_CK).exp())
    for side in sides.values():
        gradient_CV.scatter_add_(1, side.ids_CK, -side.mass_C1 * side.p_CK)
    return ChunkLosses(values, gradient_CV)


class _Rest:
    """The logits that are not set aside as one bucket, and the student's distribution that follows.

    Everything is relative to the highest logit, so that rounding is relative to the differences alone.

    Attributes:
        exponentials_CV: e^z over the greatest of the rest; 0 where logits were set aside. They replace the logits.
        sum_C1: of these, at least 1; also where nothing is left.
        logq_C1: log q_t, of the bucket; minus infinity where nothing is left.
    """

    def __init__(self, logits_CV: Tensor, aside: Sequence[Tensor]) -> None:
        # A number, also where nothing is left.
        greatest_C1 = logits_CV.amax(1, keepdim=True).clamp_min_(torch.finfo(logits_CV.dtype).min)
        self.highest_C1 = torch.cat([greatest_C1, *aside], 1).amax(1, keepdim=True)
        self.exponentials_CV = logits_CV.sub_(greatest_C1).exp_()
        total_C1 = self.exponentials_CV.sum(1, keepdim=True)
        self.sum_C1 = total_C1.clamp_min(1.0)
        log_rest_C1 = greatest_C1 - self.highest_C1 + total_C1.log()
        others = [logits_CK - self.highest_C1 for logits_CK in aside]
        self.log_all_C1 = torch.cat([log_rest_C1, *others], 1).logsumexp(1, keepdim=True)
        self.logq_C1 = log_rest_C1 - self.log_all_C1

    def logq(self, logits_CK: Tensor) -> Tensor:
        """Log q of some ids."""
        return logits_CK - self.highest_C1 - self.log_all_C1


class _Drawn:
    """Draws, with the logits of their ids; ``mass_C1``: the weight, 0 at a position without any."""

    def __init__(self, term: DrawnTokens, logits_CV: Tensor) -> None:
        counts_CK = term.counts_TK.to(logits_CV.dtype)
        num_C1 = counts_CK.sum(1, keepdim=True)
        is_known_C1 = num_C1 > 0
        self.ids_CK, self.logits_CK = term.ids_TK, logits_CV.gather(1, term.ids_TK)
        self.p_CK = counts_CK / num_C1.where(is_known_C1, 1.0)
        self.mass_C1 = term.weight * is_known_C1.to(logits_CV.dtype)

    def value(self, rest: _Rest) -> Tensor:
        """Cross-entropy [C, 1]."""
        return -_product(self.p_CK, rest.logq(self.logits_CK)).sum(1, keepdim=True)


class _Kept:
    """A top, with the logits of its ids, before they are set aside."""

    def __init__(self, term: TopTokens, logits_CV: Tensor) -> None:
        logp_CK, ids_CK = term.logp_TK.to(logits_CV.dtype), term.ids_TK
        best_C1 = logp_CK.argmax(1, keepdim=True)
        # Padding is the best id once more: only a position's own ids are set aside. One without any has weight 0.
        is_own_CK = (logp_CK > -torch.inf).scatter(1, best_C1, True)
        self.ids_CK = ids_CK.where(is_own_CK, ids_CK.gather(1, best_C1))
        self.logits_CK = logits_CV.gather(1, self.ids_CK).where(is_own_CK, -torch.inf)
        greatest_C1 = logp_CK.gather(1, best_C1)
        is_known_C1 = greatest_C1 > -torch.inf
        self.mass_C1 = term.weight * is_known_C1.to(logits_CV.dtype)
        # 1 - p of the best, exact near 1, less the others.
        others_C1 = logp_CK.exp().scatter(1, best_C1, 0.0).sum(1, keepdim=True)
        tail_C1 = -greatest_C1.expm1() - others_C1
        self.logp_CK = logp_CK - (-tail_C1).clamp_min(0.0).log1p()
        self.p_CK, self.tail_C1 = self.logp_CK.exp(), tail_C1.clamp_min(0.0) * is_known_C1

    def value(self, rest: _Rest) -> Tensor:
        """Divergence [C, 1]."""
        kept_C1 = _product(self.p_CK, self.logp_CK - rest.logq(self.logits_CK)).sum(1, keepdim=True)
        # Where nothing is left, the tail is rounding.
        tail_C1 = self.tail_C1 * (rest.logq_C1 > -torch.inf)
        return kept_C1 + _product(tail_C1, tail_C1.log() - rest.logq_C1)


def _product(p: Tensor, log: Tensor) -> Tensor:
    """P times a logarithm, 0 where p is."""
    return (p * log).where(p > 0, 0.0)
