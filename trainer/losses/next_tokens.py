"""Knowledge of the next token at each position, and the head by which a model says it.

Dimension key, beside that of :mod:`hskcache.spec`: T positions with a target, of all rows of a slice one after the
other; D width of a head's input; V vocabulary; K ids that something is known of.
"""

from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from hskcache.classes import NO_CLASS
from hskcache.output_head import OutputHead
from trainer.terms import Divergence


@dataclass(frozen=True, eq=False, repr=False)
class GoldTokens:
    """Next tokens of the text: cross-entropy, -log q_v.

    Attributes:
        targets_T: int64, :data:`~hskcache.classes.NO_CLASS` at a position without one, which adds nothing.
        weight: of the term in the sum.
    """

    targets_T: Tensor
    weight: float = 1.0

    def __len__(self) -> int:
        return len(self.targets_T)

    def at(self, rows: slice) -> "DrawnTokens":
        """Some of the positions, each with one draw or none."""
        targets_T = self.targets_T[rows]
        is_gold_T = targets_T != NO_CLASS
        return DrawnTokens(targets_T.where(is_gold_T, 0)[:, None], is_gold_T[:, None], self.weight)


@dataclass(frozen=True, eq=False, repr=False)
class DrawnTokens:
    """Draws from the teacher's distribution: -sum over v of (c_v / n) log q_v, n = sum of c_v.

    Its gradient is an unbiased estimate of that of full forward KL ["Sparse Logit Sampling", Anshumann et al., 2025,
    arXiv 2503.16870]; the value is that of a cross-entropy, above KL by the teacher's entropy.

    Attributes:
        ids_TK: the ids drawn, whole numbers from 0 to V - 1, also in padding.
        counts_TK: c, how often each was drawn; 0 is padding. A position without draws adds nothing.
        weight: of the term in the sum.
    """

    ids_TK: Tensor
    counts_TK: Tensor
    weight: float = 1.0

    def __len__(self) -> int:
        return len(self.ids_TK)

    def at(self, rows: slice) -> "DrawnTokens":
        """Some of the positions."""
        return DrawnTokens(self.ids_TK[rows].long(), self.counts_TK[rows], self.weight)


@dataclass(frozen=True, eq=False, repr=False)
class TopTokens:
    """The teacher's likeliest tokens K and, as one bucket, all others: forward KL of these K + 1 probabilities.

    With the tails p_t = 1 - sum over K of p and q_t likewise it is sum over K of p (log p - log q) + p_t (log p_t - log
    q_t): a lower bound of the KL over the vocabulary, equal to it where the tail is one token. Kept p that add up to 1
    by themselves would teach a student too sharp a distribution ["Sparse Logit Sampling", Anshumann et al., 2025, arXiv
    2503.16870].

    Attributes:
        ids_TK: the ids kept, different ones at each position, from 0 to V - 1, also in padding.
        logp_TK: log p, of the distribution over the whole vocabulary at temperature 1; minus infinity is padding. A
            sum of p above 1, by rounding, counts as 1. A position without any adds nothing.
        weight: of the term in the sum.
    """

    ids_TK: Tensor
    logp_TK: Tensor
    weight: float = 1.0

    def __len__(self) -> int:
        return len(self.ids_TK)

    def at(self, rows: slice) -> "TopTokens":
        """Some of the positions, with an entry at least, of padding where there is none."""
        ids_TK, logp_TK = self.ids_TK[rows].long(), self.logp_TK[rows]
        if not ids_TK.shape[1]:
            ids_TK, logp_TK = F.pad(ids_TK, (0, 1)), F.pad(logp_TK, (0, 1), value=-torch.inf)
        return TopTokens(ids_TK, logp_TK, self.weight)


@dataclass(frozen=True, eq=False, repr=False)
class TeacherStates:
    """Last states of the teacher, which its frozen head makes the whole distribution of.

    Attributes:
        states_TD: after the final norm, of the teacher's width D.
        head: the teacher's, over the student's vocabulary; no gradient goes to it.
        divergence: of p = softmax(z_t / T) and q = softmax(z_s / T), see :mod:`trainer.losses.divergences`.
        temperature: T, above 0.
        temperature_squared: whether to multiply by T^2, see :func:`~trainer.losses.soft_label_loss`.
        share: beta of ``jsd``, the teacher's share in the mixture, between 0 and 1.
        is_known_T: positions of which the states are known, bool; others add nothing. None for all.
        weight: of the term in the sum.
    """

    states_TD: Tensor
    head: OutputHead
    divergence: Divergence = "forward_kl"
    temperature: float = 1.0
    temperature_squared: bool = False
    share: float = 0.5
    is_known_T: Tensor | None = None
    weight: float = 1.0

    def __len__(self) -> int:
        return len(self.states_TD)

    def at(self, rows: slice) -> "TeacherStates":
        """Some of the positions."""
        is_known_T = None if self.is_known_T is None else self.is_known_T[rows]
        return replace(self, states_TD=self.states_TD[rows], is_known_T=is_known_T)


NextTokens: TypeAlias = GoldTokens | DrawnTokens | TopTokens | TeacherStates
KnownTokens: TypeAlias = DrawnTokens | TopTokens | TeacherStates
