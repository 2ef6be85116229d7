"""Comparison of values that were computed in two ways, and differ by rounding at most. Needs torch."""

import torch
from torch import Tensor

_CLOSE, _CLOSE_16_BITS = 1e-3, 0.25
"""Most that two computations of the same values may differ, relative to the largest of them.

In 16 bits one rounding of a large score moves its probability by percents; what is to be told apart differs by more.
"""


def is_close(found: Tensor, expected: Tensor) -> bool:
    """True if two tensors are alike but for rounding.

    Values that are not finite prove nothing of how a model is built; a build tells of them by row and layer.
    """
    close = _CLOSE if expected.dtype == torch.float32 else _CLOSE_16_BITS
    finite = found.isfinite() & expected.isfinite()
    found, expected = found[finite].float(), expected[finite].float()
    scale = float(expected.abs().amax()) if expected.numel() else 0.0
    return torch.allclose(found, expected, rtol=0, atol=close * scale + 1e-6)
