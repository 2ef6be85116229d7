"""Random numbers that depend on what they are for alone: SplitMix64 [Steele et al., OOPSLA 2014], in tensors.

Neither the device, nor the batch, nor the version of torch changes them. Arithmetic is modulo 2**64 in int64.
"""

import torch
from torch import Tensor

_MODULUS = 1 << 64


def _signed(value: int) -> int:
    """The int64 with the same bits as ``value`` modulo 2**64."""
    value %= _MODULUS
    return value - _MODULUS if value >= _MODULUS >> 1 else value


_GAMMA = _signed(0x9E3779B97F4A7C15)
_FIRST = _signed(0xBF58476D1CE4E5B9)
_SECOND = _signed(0x94D049BB133111EB)


def _shift_xor(bits: Tensor, places: int) -> Tensor:
    # The shift of int64 copies the sign; the mask clears the copies.
    return bits ^ ((bits >> places) & ((1 << (64 - places)) - 1))


def mix(state: Tensor) -> Tensor:
    """SplitMix64's output function of a state, int64 of any shape."""
    return _shift_xor(_shift_xor(_shift_xor(state, 30) * _FIRST, 27) * _SECOND, 31)


def stream(state: Tensor, num: int) -> Tensor:
    """The first ``num`` outputs of the generators that start at ``state``, [...] -> [..., num], int64."""
    steps = torch.arange(1, num + 1, device=state.device) * _GAMMA
    return mix(state.unsqueeze(-1) + steps)


def seed_state(seed: int) -> Tensor:
    """The state of a seed, a scalar int64 on the host; any integer is accepted, modulo 2**64."""
    return torch.tensor(_signed(seed), dtype=torch.int64)
