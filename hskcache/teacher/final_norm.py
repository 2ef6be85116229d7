"""The way back through the final norm of a model.

A norm takes the scale of a state away, so what went into it cannot be had from what came out; a state that the norm
leads to the same place can: y without the norm's bias and weight is such a one, for an RMSNorm and a LayerNorm alike.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hskcache.errors import MismatchError, TeacherError
from hskcache.rounding import is_close
from hskcache.store.request import Request
from hskcache.teacher.load import Teacher, load_for
from hskcache.teacher.probe import probe_inputs
from hskcache.teacher.taps import tapped

States = NDArray[np.float32]


def load_same(name: str, request: Request) -> Teacher:
    """Load the teacher of a cache.

    Raises:
        MismatchError: its weights are others than those that the cache was made with.
        TeacherError: it cannot be loaded.
    """
    teacher = load_for(name, "cpu", request)
    if teacher.info.weights_sha256 != request.teacher.weights_sha256:
        raise MismatchError(
            f"{name} has other weights ({teacher.info.weights_sha256[:12]}) than the teacher of the cache "
            f"({request.teacher.name}, {request.teacher.weights_sha256[:12]}); give that one"
        )
    return teacher


def before_final_norm(teacher: Teacher) -> Callable[[States], States]:
    """Function from last states [tokens, width] to states that the final norm leads to them, both float32.

    Raises:
        TeacherError: the last states that the model reports do not come out of a norm that could be undone.
    """
    model, last = teacher.model, teacher.info.num_layers
    reason = f"the last states of {teacher.info.name} do not come out of a norm whose weight could be taken off"
    if not teacher.taps.states or teacher.taps.states[last].is_input:
        raise TeacherError(f"{reason}; give the teacher of the cache, a decoder with a final norm")
    tap = teacher.taps.states[last]
    norm, states = model.get_submodule(tap.module), dict[int, Tensor]()
    with torch.inference_mode(), tapped(model, {last: tap}, states):
        model(**probe_inputs(model, teacher.pad_token_id))
        for weight_D, bias_D in _candidates(norm):
            found = (states[last] - bias_D) / weight_D
            if bool(found.isfinite().all()) and is_close(norm(found), states[last]):
                bias, weight = (one.float().cpu().numpy() for one in (bias_D, weight_D))
                return lambda states_TD: (states_TD - bias) / weight
    raise TeacherError(f"{reason}; speculators norms them itself, so none can be exported")


def _candidates(norm: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Factors and addends that a norm may have; some add 1 to their weight."""
    weight = getattr(norm, "weight", None)
    if not isinstance(weight, Tensor):
        return []
    bias = getattr(norm, "bias", None)
    added = bias.detach() if isinstance(bias, Tensor) else torch.zeros_like(weight)
    return [(weight.detach(), added), (1.0 + weight.detach(), added)]
