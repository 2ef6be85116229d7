"""Losses on the next token that never hold the vocabulary: of the student's logits a chunk, of the teacher's no more.

They share one pass over the student's head, see :mod:`trainer.losses.chunked`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hskcache.errors import MismatchError
from hskcache.output_head import OutputHead, wide
from trainer.losses.chunked import Gradients, summed
from trainer.losses.next_tokens import NextTokens, TeacherStates, TopTokens

# Logits of a chunk, 64 MiB in float32, unless these are so few positions that passing over the head shows.
_NUM_LOGITS, _LEAST = 1 << 24, 256


class VocabularyLoss(NamedTuple):
    """Weighted sum of terms on next tokens.

    Attributes:
        total: scalar with gradients, float32 (float64 of float64).
        terms: each without its weight and without gradient, by name, to be logged.
    """

    total: Tensor
    terms: dict[str, Tensor]


def vocabulary_loss(
    states_TD: Tensor,
    head: OutputHead,
    terms: Mapping[str, NextTokens],
    num_targets: int | Mapping[str, int],
    num_at_once: int | None = None,
) -> VocabularyLoss:
    """Weighted sum of losses on the next token, each summed over positions and divided by those of the global batch.

    All terms share one pass over the student's head, of whose logits one chunk exists at a time. Gradients of states
    and head are computed in that pass and kept for the backward pass, each only where it is asked for; there are no
    second ones. Products are of the head's dtype, or of autocast's; what follows them, the sum of the chunks' gradients
    of the head, and the loss are float32.

    Args:
        states_TD: final states of the student at the T positions of this slice that have a target, one after the other.
        head: of the student; its weight may be the input embeddings, too.
        terms: what is known of these positions, by name: :class:`~trainer.losses.GoldTokens`,
            :class:`~trainer.losses.DrawnTokens`, :class:`~trainer.losses.TeacherStates`, and of
            :class:`~trainer.losses.TopTokens` one at most.
        num_targets: positions of the global batch, which this slice is a part of, that a term is averaged over: those
            with a target, or by name those that the term knows of.
        num_at_once: positions of a chunk; None for as many as have 2^24 logits, and 256 at least.

    Raises:
        MismatchError: no term is given, or two tops; a term knows of another number of positions, or a teacher has
            another vocabulary.
    """
    _check(states_TD, head, terms)
    nums = dict(num_targets) if isinstance(num_targets, Mapping) else dict.fromkeys(terms, num_targets)
    nums = {name: max(1, nums[name]) for name in terms}
    most = max(nums.values())
    place = states_TD.device.type
    dtype = torch.get_autocast_dtype(place) if torch.is_autocast_enabled(place) else head.weight_VD.dtype
    gradients = Gradients(*(_zeros(one) for one in (states_TD, head.weight_VD, head.bias_V)))
    with torch.no_grad(), torch.autocast(place, enabled=False):
        # Of terms over fewer positions each counts for more; all are divided by the most of them at the end.
        weighed = {name: replace(term, weight=term.weight * (most / nums[name])) for name, term in terms.items()}
        frozen = {
            name: replace(term, head=term.head.cast(dtype)) if isinstance(term, TeacherStates) else term
            for name, term in weighed.items()
        }
        chunk = num_at_once or max(_LEAST, _NUM_LOGITS // len(head.weight_VD))
        sums = summed(states_TD.to(dtype), head.cast(dtype), frozen, gradients, chunk)
        values = {name: value / nums[name] for name, value in sums.items()}
        total = torch.stack([terms[name].weight * value for name, value in values.items()]).sum()
    if gradients.are_wanted:
        factor = head.scale / most
        total = _Led.apply(states_TD, head.weight_VD, head.bias_V, total, factor, gradients)  # type: ignore[no-untyped-call]
    return VocabularyLoss(total, values)


def _zeros(tensor: Tensor | None) -> Tensor | None:
    """Zeros for the gradient of a tensor, float32 at least; None where it wants none."""
    if tensor is None or not tensor.requires_grad or not torch.is_grad_enabled():
        return None
    return torch.zeros_like(tensor, dtype=wide(tensor.dtype))


def _check(states_TD: Tensor, head: OutputHead, terms: Mapping[str, NextTokens]) -> None:
    if not terms:
        raise MismatchError("a loss on next tokens has no term; give what is known of them")
    for name, term in terms.items():
        if len(term) != len(states_TD):
            raise MismatchError(
                f"the term {name} knows of {len(term)} positions and the student has states at {len(states_TD)}; give "
                "it the positions that have a target, in the same order"
            )
        if isinstance(term, TeacherStates) and len(term.head.weight_VD) != len(head.weight_VD):
            raise MismatchError(
                f"the teacher of the term {name} has a vocabulary of {len(term.head.weight_VD):,} ids and the student "
                f"one of {len(head.weight_VD):,}; compare models of one vocabulary"
            )
    if sum(isinstance(term, TopTokens) for term in terms.values()) > 1:
        raise MismatchError("two terms are of a teacher's likeliest tokens; give one")


class _Led(torch.autograd.Function):
    """A total whose gradients are known."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Any:
        """Keep the gradients of states, weight and bias, which come first, in this order."""
        *_, total, ctx.factor, gradients = given
        ctx.save_for_backward(gradients.states_TD, gradients.weight_VD, gradients.bias_V)
        return total.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Multiply them, in tensors of their own: a graph that is retained comes here again."""
        led = (None if one is None else one * (gradient * ctx.factor) for one in ctx.saved_tensors)
        return (*led, None, None, None)
