"""Confidence of a teacher: of an answer that is certain a student learns little more than the label [StarK, Figure 1].

The paper takes the variance of the output distribution for it. Negative entropy stands beside it: of several classes it
tells apart what the variance does not. N counts rows, C classes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from hskcache.cache import Cache


@dataclass(frozen=True)
class Confidence:
    """Means over rows of two measures of p = softmax(logits), at temperature 1; both rise with confidence.

    ``variance``: mean over classes of (p - 1/C)^2, from 0, where all classes are alike, to (C - 1) / C^2;
    ``negative_entropy``: sum over classes of p log p, in nats, from -log C to 0.
    """

    variance: float
    negative_entropy: float


def confidence(logits_NC: NDArray[np.float32]) -> Confidence | None:
    """The confidence of a teacher's answers.

    ``logits_NC``: of every row, [N, C]; a row that is not finite does not count. Returns means over the rows; None of a
    regression, which has no distribution, or where no row counts.
    """
    logits_NC = logits_NC[np.isfinite(logits_NC).all(1)].astype(np.float64)
    if logits_NC.shape[1] < 2 or not len(logits_NC):
        return None
    log_p_NC = log_softmax(logits_NC, axis=1)
    p_NC = np.exp(log_p_NC)
    return Confidence(float(p_NC.var(1).mean()), float((p_NC * log_p_NC).sum(1).mean()))


def cached_confidence(cache: Cache, field: str) -> Confidence | None:
    """The same of a field of a cache. Raises MismatchError without it, DamageError if a shard is altered."""
    shards = (cache.read(field, shard, ("logits",)) for shard in range(len(cache.shards)))
    return confidence(np.concatenate([arrays["logits"] for arrays in shards]))
