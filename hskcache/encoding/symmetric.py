"""Symmetric integers with one scale per position: what int8 and int4 share.

A position of W values is divided by its step, max|h| / largest, and rounded to integers in -largest..largest.
"""

import torch
from torch import Tensor

# The least step. A smaller one would lose digits in float32 and at last vanish; with this floor neither a step nor its
# inverse leaves the normal range, and the error of a position that is tiny throughout stays below 2**-121.
_LEAST_STEP = 2.0**-120
# Rounding of the step, of its inverse and of two products, each 2**-24 of at most 127 steps.
_SLACK = 2.0**-14


def _steps(values: Tensor, largest: int) -> tuple[Tensor, Tensor]:
    magnitude = values.abs().amax(-1).to(torch.float32)
    # At the very top of float32, a step that was rounded up would decode the largest integer to infinity.
    greatest = torch.finfo(torch.float32).max / largest * (1.0 - 2.0**-23)
    steps = (magnitude / largest).clamp(_LEAST_STEP, greatest)
    # Zero for every number, NaN for an infinity, which the clamp has hidden.
    return magnitude, steps + (magnitude - magnitude)


def quantise(values: Tensor, largest: int) -> tuple[Tensor, Tensor]:
    """Integers and scales of values.

    Args:
        values: float [..., W].
        largest: the largest integer, at most 127.

    Returns:
        int8 [..., W] in -largest..largest, and float32 scales [...], 0 for a position of zeros. Where a position holds
        a NaN or an infinity its scale is NaN and its integers say nothing.
    """
    magnitude, steps = _steps(values, largest)
    levels = (values * steps.reciprocal().unsqueeze(-1)).round_().to(torch.int8)
    return levels, steps.masked_fill(magnitude == 0, 0.0)


def dequantise(levels: Tensor, scales: Tensor) -> Tensor:
    """Values of integers: int8 [..., W] times float32 [...], float32 [..., W]."""
    if levels.device.type == "cpu":
        # A product of two types converts one of them first, into memory of its own.
        return levels.to(torch.float32).mul_(scales.unsqueeze(-1))
    return levels * scales.unsqueeze(-1)


def bound(values: Tensor, largest: int) -> Tensor:
    """Half a step of each position, and the roundings of float32; infinite where a position is not finite."""
    magnitude, steps = _steps(values, largest)
    half = (steps * (0.5 + _SLACK)).masked_fill(magnitude == 0, 0.0).nan_to_num(nan=torch.inf)
    return half.unsqueeze(-1).expand(values.shape)
