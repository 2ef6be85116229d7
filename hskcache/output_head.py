"""Head of a language model, by which it says the next token: found in a model, and proven on a small batch.

Dimension key, beside that of :mod:`hskcache.spec`: T positions, D width of the head's input, V vocabulary.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from hskcache.errors import TeacherError
from hskcache.rounding import is_close

_SCALES = ("logit_scale", "lm_head_multiplier")
_DIVISORS = ("logits_scaling",)
_SOFTCAPS = ("final_logit_softcapping", "logits_soft_cap")
"""Keys of configurations of what follows the product: factors, divisors and soft caps."""

_LARGE = 64.0
"""Largest logit of the proof, before what follows the product; soft caps are about as large."""


@dataclass(frozen=True, eq=False, repr=False)
class OutputHead:
    """Head of a language model over its vocabulary: z = c tanh(s (W h + b) / c), or s (W h + b) without a soft cap.

    Attributes:
        weight_VD: W, which may be the input embeddings, too.
        bias_V: b; None for none.
        scale: s, such as Cohere's ``logit_scale`` or one over Granite's ``logits_scaling``.
        softcap: c, such as Gemma's ``final_logit_softcapping``; None for none.
    """

    weight_VD: Tensor
    bias_V: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None

    def cast(self, dtype: torch.dtype) -> "OutputHead":
        """The same head without gradients, whose products are of that dtype."""
        bias_V = None if self.bias_V is None else self.bias_V.detach().to(dtype)
        return replace(self, weight_VD=self.weight_VD.detach().to(dtype), bias_V=bias_V)

    def logits(self, states_TD: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits [T, V], at least float32, and the derivative of the soft cap, [T, V] too; None where there is none.

        The product is of the dtype of states and weight; scale and cap follow in float32. Not for autograd, as they
        overwrite it.
        """
        product_TV = F.linear(states_TD, self.weight_VD, self.bias_V)
        logits_TV = product_TV.to(wide(product_TV.dtype))
        if self.scale != 1.0:
            logits_TV.mul_(self.scale)
        if self.softcap is None:
            return logits_TV, None
        logits_TV.div_(self.softcap).tanh_()
        slope_TV = 1.0 - logits_TV.square()
        return logits_TV.mul_(self.softcap), slope_TV


def wide(dtype: torch.dtype) -> torch.dtype:
    """Dtype of sums over the vocabulary: float32, or float64 of float64."""
    return torch.promote_types(dtype, torch.float32)


def find_head(model: PreTrainedModel) -> OutputHead | None:
    """Find the head by which a model in eval mode answers with logits of next tokens, and prove it on a few tokens.

    Returns:
        The head, whose tensors are the model's own; None of a model without output embeddings.

    Raises:
        TeacherError: what the model answers is not what its output embeddings make of what goes into them.
    """
    linear = model.get_output_embeddings()
    if not isinstance(linear, nn.Linear):
        return None
    seen: list[Tensor] = []
    ids_BL = torch.arange(8, device=model.device).view(2, 4) % len(linear.weight)

    def enlarge(_module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        # Small logits would hide a soft cap, which leaves them as they are.
        largest = F.linear(given[0], linear.weight, linear.bias).abs().amax().clamp(min=1e-6)
        seen.append(given[0] * (_LARGE / largest))
        return (seen[-1], *given[1:])

    watch = linear.register_forward_pre_hook(enlarge)
    try:
        with torch.inference_mode():
            logits = model(input_ids=ids_BL, attention_mask=torch.ones_like(ids_BL)).logits
    finally:
        watch.remove()
    head = OutputHead(linear.weight.detach(), None if linear.bias is None else linear.bias.detach(), *_following(model))
    with torch.inference_mode():
        if len(seen) != 1 or not _is_proven(head, seen[0], logits):
            raise TeacherError(
                f"{type(model).__name__} makes its logits otherwise than by its output embeddings and what its "
                "configuration says of a scale and a soft cap, so its head cannot be kept apart; give another teacher"
            )
    return head


def _is_proven(head: OutputHead, states_BLD: Tensor, logits_BLV: Tensor) -> bool:
    """True if a head makes of its input what the model answered."""
    if logits_BLV.shape != (*states_BLD.shape[:2], len(head.weight_VD)):
        return False
    return is_close(head.logits(states_BLD)[0].to(logits_BLV.dtype), logits_BLV)


def described_head(head: OutputHead) -> dict[str, Any]:
    """Account of a head for a manifest: its sizes, the type that holds weight and bias exactly, its scale and cap."""
    vocab_size, width = head.weight_VD.shape
    return {
        "vocab_size": vocab_size,
        "width": width,
        "dtype": exact_dtype(head),
        "has_bias": head.bias_V is not None,
        "scale": head.scale,
        "softcap": head.softcap,
    }


def exact_dtype(head: OutputHead) -> str:
    """The smallest of bfloat16, float16 and float32 that holds weight and bias of a head exactly."""
    tensors = [head.weight_VD] + ([] if head.bias_V is None else [head.bias_V])

    def holds(dtype: torch.dtype) -> bool:
        return all(torch.equal(one, one.to(dtype).to(one.dtype)) for one in tensors)

    return next((name for name in ("bfloat16", "float16") if holds(getattr(torch, name))), "float32")


@contextmanager
def without_logits(model: PreTrainedModel, head: OutputHead | None) -> Iterator[list[Tensor]]:
    """Run a language model without its head, which is proven; one that has None runs as it is.

    The product with the output embeddings is of no positions, so that no [B, L, V] is made.

    Yields:
        A list, which takes the final states [B, L, D] of each forward pass inside.
    """
    seen: list[Tensor] = []
    if head is None:
        yield seen
        return
    linear = model.get_output_embeddings()

    def hold(_module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        seen.append(given[0])
        return (given[0][:, :0], *given[1:])

    handle = linear.register_forward_pre_hook(hold)
    try:
        yield seen
    finally:
        handle.remove()


def _following(model: PreTrainedModel) -> tuple[float, float | None]:
    """Scale and soft cap of what follows the product, by the configuration."""
    config = model.config.get_text_config()

    def said(keys: tuple[str, ...]) -> float | None:
        found = [getattr(config, key, None) for key in keys]
        return next((float(one) for one in found if isinstance(one, int | float) and one), None)

    scale, divisor = said(_SCALES), said(_DIVISORS)
    return (1.0 if scale is None else scale) / (1.0 if divisor is None else divisor), said(_SOFTCAPS)
