"""Divergences of two whole distributions over the vocabulary, with their gradients on the student's logits.

Of a teacher p and a student q, a position each:

- ``forward_kl``: sum p (log p - log q), with the gradient q - p;
- ``reverse_kl``: sum q (log q - log p), with the gradient q (log q - log p - reverse_kl) ["MiniLLM", Gu et al., 2024,
  arXiv 2306.08543, section 2];
- ``jsd``: b sum p (log p - log m) + (1 - b) sum q (log q - log m) with m = b p + (1 - b) q, with the gradient
  (1 - b) q (log q - log m - sum q (log q - log m)) ["On-Policy Distillation of Language Models", Agarwal et al., 2024,
  arXiv 2306.13649, section 2].
"""

import math
from typing import NamedTuple, assert_never

import torch
from torch import Tensor

from trainer.terms import Divergence


class Diverged(NamedTuple):
    """Divergences of positions [C], and their gradients on the student's logits [C, V]."""

    value_C: Tensor
    gradient_CV: Tensor


def diverge(divergence: Divergence, teacher_CV: Tensor, student_CV: Tensor, share: float) -> Diverged:
    """The divergence of two softmaxes, of the logits of both sides.

    An id that a head rules out by minus infinity has no part in a sum whose weight there is 0.
    """
    logp_CV, logq_CV = _log_softmax(teacher_CV), _log_softmax(student_CV)
    match divergence:
        case "forward_kl":
            p_CV = logp_CV.exp()
            value_C = logp_CV.sub_(logq_CV).mul_(p_CV).sum(1)
            return Diverged(value_C, logq_CV.exp_().sub_(p_CV))
        case "reverse_kl":
            return _from_student(logq_CV, logp_CV)
        case "jsd":
            logm_CV = torch.logaddexp(logp_CV + math.log(share), logq_CV + math.log1p(-share))
            p_CV = logp_CV.exp()
            from_teacher_C = logp_CV.sub_(logm_CV).mul_(p_CV).sum(1)
            from_student_C, gradient_CV = _from_student(logq_CV, logm_CV)
            return Diverged(share * from_teacher_C + (1 - share) * from_student_C, gradient_CV.mul_(1 - share))
        case unknown:
            assert_never(unknown)


def _from_student(logq_CV: Tensor, other_CV: Tensor) -> Diverged:
    """Sum of q (log q - log r), and q (log q - log r - the sum): the gradient of it where r is held fast."""
    q_CV = logq_CV.exp()
    gradient_CV = logq_CV.sub_(other_CV).mul_(q_CV)
    value_C = gradient_CV.sum(1)
    return Diverged(value_C, gradient_CV.sub_(q_CV.mul_(value_C[:, None])))


def _log_softmax(logits_CV: Tensor) -> Tensor:
    # The least number in the place of minus infinity: 0 times it is 0.
    return logits_CV.log_softmax(1).clamp_min_(torch.finfo(logits_CV.dtype).min)
