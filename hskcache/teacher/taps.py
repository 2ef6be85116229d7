"""Places in a model where its knowledge passes by, found by a probe rather than by the names of architectures.

A small batch runs through the model once with every module watched. A hidden state that the model reports is then the
output of some module, or the input of one: that is its tap. So layers that are shared, states that a last norm changes,
and stacks of any name need no cases of their own. What cannot be had is refused for what asks for it, and for nothing
else.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hskcache.counted import counted
from hskcache.errors import TeacherError
from hskcache.output_head import OutputHead
from hskcache.teacher.attending import CAUSAL, AttentionSource, find_attention
from hskcache.teacher.probe import check_pad_token, check_padding, probe_inputs, run_probe

_SIZES = ("vocab_size", "num_hidden_layers", "num_attention_heads", "hidden_size")


class Tap(NamedTuple):
    """Place where one hidden state passes by.

    Attributes:
        module: its name.
        call: of the module in a forward pass, counted from 0; layers that are shared are called more than once.
        is_input: whether the state goes into the module rather than out of it.
    """

    module: str
    call: int
    is_input: bool


@dataclass(frozen=True)
class Taps:
    """Everything that can be seen of a model, and why the rest cannot.

    Attributes:
        states: a tap for each hidden layer 0 to T, as the model reports them; empty if there are none.
        attention: where attention is seen; None if nowhere.
        without_states: the reason for no states, in words that follow the model's name.
        without_attention: the reason for no attention; where there are maps alone, for no scores before the softmax.
        output_head: by which a language model says the next token; None of other models.
    """

    states: tuple[Tap, ...] = ()
    attention: AttentionSource | None = None
    without_states: str = ""
    without_attention: str = ""
    output_head: OutputHead | None = None

    @property
    def is_causal(self) -> bool:
        """True if the model is known to read from left to right."""
        return self.without_attention in CAUSAL


def find_taps(model: PreTrainedModel, pad_token_id: int | None = None) -> Taps:
    """Probe a model, put it in eval mode, and behind the attention function that shows most of it.

    Args:
        model: in any mode, on its device.
        pad_token_id: that rows will be padded with; None: the model's own.

    Raises:
        TeacherError: it does not run on token ids and a mask alone, or what it answers for a row depends on the row's
            padding.
    """
    model.eval()
    if lacking := [size for size in _SIZES if not isinstance(getattr(model.config, size, None), int)]:
        raise TeacherError(
            f"{type(model).__name__} does not say its {' and its '.join(lacking)} in its configuration; use a plain "
            "encoder such as BERT"
        )
    inputs = probe_inputs(model, pad_token_id)
    check_pad_token(model, int(inputs["input_ids"][1, -1]))
    reported = run_probe(model, inputs)
    check_padding(model, inputs, reported)
    states, without_states = _states(model, inputs)
    attention, without_attention = find_attention(model, inputs, reported)
    return Taps(states, attention, without_states, without_attention)


@contextmanager
def tapped(model: nn.Module, taps: Mapping[int, Tap], states: dict[int, Tensor]) -> Iterator[None]:
    """Keep hidden states of the next forward pass.

    Args:
        model: that runs inside.
        taps: of the layers that are wanted, by layer.
        states: takes the states [B, L, D] by layer.
    """
    handles = []
    for name in {tap.module for tap in taps.values()}:
        layers = {(tap.call, tap.is_input): layer for layer, tap in taps.items() if tap.module == name}
        handles += _watch(model.get_submodule(name), _keeper(layers, states))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _keeper(layers: Mapping[tuple[int, bool], int], states: dict[int, Tensor]) -> Callable[[int, bool, Any], None]:
    def keep(call: int, is_input: bool, tensor: Tensor) -> None:
        layer = layers.get((call, is_input))
        if layer is not None:
            states[layer] = tensor

    return keep


def _watch(module: nn.Module, see: Callable[[int, bool, Any], None]) -> list[Any]:
    """Hooks that show the first tensor that goes into each call of a module, and the first that comes out of it."""
    calls = Counter[bool]()

    def before(_module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        see(calls[True], True, args[0] if args else kwargs.get("hidden_states"))
        calls[True] += 1

    def after(_module: nn.Module, _args: Any, output: Any) -> None:
        see(calls[False], False, output[0] if isinstance(output, tuple) else output)
        calls[False] += 1

    return [module.register_forward_pre_hook(before, with_kwargs=True), module.register_forward_hook(after)]


def _states(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> tuple[tuple[Tap, ...], str]:
    """A tap for each hidden state that the model reports, or the reason why there are none."""
    seen: list[tuple[Tap, Tensor]] = []
    handles: list[Any] = []
    for name, module in model.named_modules():

        def see(call: int, is_input: bool, value: Any, name: str = name) -> None:
            if isinstance(value, Tensor) and value.is_floating_point():
                seen.append((Tap(name, call, is_input), value))

        handles += _watch(module, see)
    try:
        hidden = getattr(run_probe(model, inputs, output_hidden_states=True), "hidden_states", None)
    finally:
        for handle in handles:
            handle.remove()
    count, width = model.config.num_hidden_layers + 1, model.config.hidden_size
    if hidden is None:
        return (), "reports no hidden states of its own"
    if len(hidden) != count or any(state.shape != (*inputs["input_ids"].shape, width) for state in hidden):
        return (), (
            f"reports {len(hidden)} hidden states, and not one of {width} values a token for each of "
            f"{counted(count - 1, 'layer')} and the embedding"
        )
    taps = [_tap(state, seen) for state in hidden]
    if lost := [str(layer) for layer, tap in enumerate(taps) if tap is None]:
        return (), f"reports hidden states that no module takes or gives (layer {', '.join(lost)})"
    return tuple(tap for tap in taps if tap is not None), ""


def _tap(state: Tensor, seen: Sequence[tuple[Tap, Tensor]]) -> Tap | None:
    """The place of a state: where that very tensor was, else where one with its values was; outputs first."""
    same = [tap for tap, tensor in seen if tensor is state]
    if not same:
        same = [tap for tap, tensor in seen if tensor.shape == state.shape and torch.equal(tensor, state)]
    return min(same, key=lambda tap: (tap.is_input, tap.module.count(".")), default=None)
