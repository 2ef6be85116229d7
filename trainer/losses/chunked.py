"""One pass over the head, some positions at a time: the values of all terms, and the gradients of their weighted sum.

Of the student's logits one chunk exists at a time, and all that is known of its positions is compared with it: several
terms cost one product with the head. The gradient of the weighted sum on a chunk's logits is led on to states and head
at once, three products in all, as many as a loss on all logits takes; logits that are computed again on the way back
would be a fourth. The idea is that of fused linear cross-entropy ["Liger Kernel", Hsu et al., 2024, arXiv 2410.10989,
section 3.2].
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce

from torch import Tensor

from hskcache.output_head import OutputHead, wide
from trainer.losses.buckets import ChunkLosses, compare
from trainer.losses.divergences import diverge
from trainer.losses.next_tokens import KnownTokens, NextTokens, TeacherStates


@dataclass(frozen=True, eq=False)
class Gradients:
    """Gradients of a sum over positions on the product of states and weight, led on; None where none is wanted."""

    states_TD: Tensor | None
    weight_VD: Tensor | None
    bias_V: Tensor | None

    @property
    def are_wanted(self) -> bool:
        """True if one is."""
        return any(one is not None for one in (self.states_TD, self.weight_VD, self.bias_V))

    def add(self, rows: slice, gradient_CV: Tensor, states_CD: Tensor, weight_VD: Tensor) -> None:
        """Lead on the gradient on a chunk's product, all in the product's dtype."""
        if self.states_TD is not None:
            self.states_TD[rows] = gradient_CV @ weight_VD
        if self.weight_VD is not None and self.weight_VD.dtype == gradient_CV.dtype:
            self.weight_VD.addmm_(gradient_CV.T, states_CD)
        elif self.weight_VD is not None:
            # Chunks add up in float32.
            self.weight_VD.add_(gradient_CV.T @ states_CD)
        if self.bias_V is not None:
            self.bias_V.add_(gradient_CV.sum(0, dtype=self.bias_V.dtype))


def summed(
    states_TD: Tensor, head: OutputHead, terms: Mapping[str, NextTokens], gradients: Gradients, num_at_once: int
) -> dict[str, Tensor]:
    """Sums of the terms over all positions, without their weights, by name; adds to the gradients of the weighted sum.

    The gradients lack the head's scale, which multiplies them all. ``states_TD``: final states of the student, in the
    dtype of its ``head``; ``num_at_once``: positions of a chunk.
    """
    sums = {name: states_TD.new_zeros((), dtype=wide(states_TD.dtype)) for name in terms}
    for first in range(0, len(states_TD), num_at_once):
        rows = slice(first, first + num_at_once)
        known = {name: term.at(rows) for name, term in terms.items()}
        for name, value_C in _chunk(states_TD[rows], head, known, gradients, rows).items():
            sums[name] += value_C.sum()
    return sums


def _chunk(
    states_CD: Tensor, head: OutputHead, known: Mapping[str, KnownTokens], gradients: Gradients, rows: slice
) -> dict[str, Tensor]:
    """Values of a chunk by term, [C] each. The gradient on its logits ends with the call."""
    logits_CV, slope_CV = head.logits(states_CD)
    wholes = {name: term for name, term in known.items() if isinstance(term, TeacherStates)}
    somes = {name: term for name, term in known.items() if not isinstance(term, TeacherStates)}
    compared = [_whole(name, term, logits_CV) for name, term in wholes.items()]
    if somes:
        # Last, as it overwrites the logits.
        compared.append(compare(logits_CV, somes, gradients.are_wanted))
    if gradients.are_wanted:
        gradient_CV = reduce(Tensor.add_, [one.gradient_CV for one in compared if one.gradient_CV is not None])
        if slope_CV is not None:
            gradient_CV *= slope_CV
        gradients.add(rows, gradient_CV.to(states_CD.dtype), states_CD, head.weight_VD)
    return {name: value_C for one in compared for name, value_C in one.values.items()}


def _whole(name: str, term: TeacherStates, logits_CV: Tensor) -> ChunkLosses:
    """Compare logits with the whole distribution of the teacher."""
    teacher_CV, _ = term.head.logits(term.states_TD.to(term.head.weight_VD.dtype))
    teacher_CV, student_CV = teacher_CV.to(logits_CV.dtype), logits_CV
    if term.temperature != 1.0:
        teacher_CV, student_CV = teacher_CV / term.temperature, student_CV / term.temperature
    value_C, gradient_CV = diverge(term.divergence, teacher_CV, student_CV, term.share)
    factor = term.temperature**2 if term.temperature_squared else 1.0
    if term.is_known_T is not None:
        # Filled, not multiplied by 0: whatever stands there, it must not reach the sum.
        value_C = value_C.where(term.is_known_T, 0.0)
        gradient_CV.masked_fill_(~term.is_known_T[:, None], 0.0)
    return ChunkLosses({name: value_C * factor}, gradient_CV.mul_(term.weight * factor / term.temperature))
