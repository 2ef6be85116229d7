"""Take heads and neurons out of a teacher: by masks that can be differentiated, or by zeros in its weights.

What a head contributes passes through its columns of the attention's output projection, what a neuron contributes
through its column of the second feed-forward Linear, and nowhere else. So a mask on the input of these Linears and
zeros in those columns remove the same [StarK 3.2, 3.3]; biases belong to no head and stay.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from hskcache.sparsity.levels import KeptUnits
from hskcache.teacher.load import Teacher, describe
from hskcache.teacher.places import places


@contextmanager
def masked(model: PreTrainedModel, heads_LH: Tensor, neurons_LF: Tensor) -> Iterator[None]:
    """Multiply what heads and neurons contribute, in forward passes inside.

    ``model``: it computes what it computed before when the context ends. ``heads_LH``: masks xi on the device of the
    model, any dtype; gradients go through them. ``neurons_LF``: masks nu, likewise.
    """
    with ExitStack() as stack:
        for place, heads_H, neurons_F in zip(places(model), heads_LH, neurons_LF, strict=True):
            columns = heads_H.repeat_interleave(place.head_size)
            for linear, mask in ((place.heads, columns), (place.neurons, neurons_F)):
                stack.callback(linear.register_forward_pre_hook(_multiplier(mask)).remove)
        yield


def _multiplier(mask: Tensor) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Tensor]]:
    def multiply(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Tensor]:
        states: Tensor = args[0]
        return (states * mask.to(states.dtype),)

    return multiply


def zero_(model: PreTrainedModel, kept: KeptUnits) -> None:
    """Set the weights through which removed heads and neurons contribute to 0.0, in place."""
    with torch.no_grad():
        for weight, columns in _removed(model, kept):
            weight.index_fill_(1, columns, 0.0)


@contextmanager
def zeroed(model: PreTrainedModel, kept: KeptUnits) -> Iterator[None]:
    """As :func:`zero_`, for a while; the weights come back bit for bit, whatever happens inside."""
    with torch.no_grad():
        saved = [(weight, columns, weight.index_select(1, columns)) for weight, columns in _removed(model, kept)]
    try:
        zero_(model, kept)
        yield
    finally:
        with torch.no_grad():
            for weight, columns, values in saved:
                weight.index_copy_(1, columns, values)


@contextmanager
def sparse(teacher: Teacher, kept: KeptUnits, name: str) -> Iterator[Teacher]:
    """The teacher without its removed heads and neurons, as one of its own; the two share their model."""
    with zeroed(teacher.model, kept):
        yield replace(teacher, info=describe(teacher.model, name))


def _removed(model: PreTrainedModel, kept: KeptUnits) -> list[tuple[Tensor, Tensor]]:
    """Weights [out, in] and the numbers of their columns that belong to removed heads and neurons, int64."""
    removed = []
    for place, heads_H, neurons_F in zip(places(model), kept.heads_LH, kept.neurons_LF, strict=True):
        columns = np.repeat(heads_H, place.head_size)
        removed += [(place.heads.weight, _numbers(columns, model)), (place.neurons.weight, _numbers(neurons_F, model))]
    return removed


def _numbers(kept: NDArray[np.bool_], model: PreTrainedModel) -> Tensor:
    return torch.from_numpy(np.flatnonzero(~kept)).to(model.device)
