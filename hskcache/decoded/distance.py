"""Distance of two sets of vectors, and what two choices have in common."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class Same:
    """Agreement of two choices: places that each of them chose, and that both did."""

    here: int = 0
    there: int = 0
    both: int = 0

    def add(self, here: Tensor, there: Tensor) -> None:
        """Count the places of two choices, bool tensors of one shape."""
        self.here += int(here.sum())
        self.there += int(there.sum())
        self.both += int((here & there).sum())

    @property
    def share(self) -> float:
        """Chosen by both, of what the one that chose more did; 1 where there was nothing to choose."""
        chosen = max(self.here, self.there)
        return self.both / chosen if chosen else 1.0


@dataclass
class Distance:
    """Distance of two sets of vectors, gathered piece by piece.

    Attributes:
        num_values: values compared.
        num_nonfinite: of these, pairs of which one at least is NaN or infinite; the other figures leave them out.
        max_abs: largest absolute difference.
        sum_abs: sum of the absolute differences.
        num_vectors: vectors that have a direction on both sides.
        sum_cosine: sum of their cosines.
        num_distributions: vectors compared as scores.
        sum_divergence: sum over these of the Kullback-Leibler divergence, in nats.
    """

    num_values: int = 0
    num_nonfinite: int = 0
    max_abs: float = 0.0
    sum_abs: float = 0.0
    num_vectors: int = 0
    sum_cosine: float = 0.0
    num_distributions: int = 0
    sum_divergence: float = 0.0

    def add(self, here_VE: Tensor, there_VE: Tensor, valid_VE: Tensor, are_scores: bool) -> None:
        """Compare vectors with others.

        Args:
            here_VE: float32.
            there_VE: what they should be.
            valid_VE: bool, which values of the two belong together.
            are_scores: whether a softmax turns them into distributions, which are compared too.
        """
        finite_VE = valid_VE & here_VE.isfinite() & there_VE.isfinite()
        here, there = (side.double().masked_fill(~finite_VE, 0.0) for side in (here_VE, there_VE))
        error = (here - there).abs()
        self.num_values += int(valid_VE.sum())
        self.num_nonfinite += int((valid_VE & ~finite_VE).sum())
        self.max_abs = max(self.max_abs, float(error.max()) if error.numel() else 0.0)
        self.sum_abs += float(error.sum())
        lengths = here.norm(dim=-1) * there.norm(dim=-1)
        cosines = ((here * there).sum(-1) / lengths)[lengths > 0]
        self.num_vectors += len(cosines)
        self.sum_cosine += float(cosines.sum())
        if are_scores:
            logs = [side.masked_fill(~finite_VE, -torch.inf).log_softmax(-1) for side in (here, there)]
            terms = (logs[1].exp() * (logs[1] - logs[0])).masked_fill(~finite_VE, 0.0)
            self.add_divergences(terms.sum(-1)[finite_VE.any(-1)])

    def add_divergences(self, kl_V: Tensor) -> None:
        """Take Kullback-Leibler divergences in nats, of which rounding may leave some below zero."""
        self.num_distributions += len(kl_V)
        self.sum_divergence += float(kl_V.double().clamp(min=0.0).sum())

    @property
    def figures(self) -> dict[str, Any]:
        """Everything a report tells, by name."""
        return {
            "num_values": self.num_values,
            "num_nonfinite": self.num_nonfinite,
            "max_abs": self.max_abs,
            "mean_abs": self.mean_abs,
            "cosine": self.cosine,
            "kl": self.divergence,
        }

    @property
    def mean_abs(self) -> float:
        """Mean absolute difference."""
        return self.sum_abs / max(self.num_values - self.num_nonfinite, 1)

    @property
    def cosine(self) -> float | None:
        """Mean over the vectors of the cosine between the two; None where there are none to compare."""
        return self.sum_cosine / self.num_vectors if self.num_vectors else None

    @property
    def divergence(self) -> float | None:
        """Mean Kullback-Leibler divergence of the softmax here from the softmax there; None of what is no score."""
        return self.sum_divergence / self.num_distributions if self.num_distributions else None
