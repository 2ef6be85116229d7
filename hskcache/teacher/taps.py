"""Places in a model where its knowledge passes by, found by a probe rather than by the names of architectures.

A small batch runs through the model once with every module watched. A hidden state that the model reports is then the
output of some module, or the input of one: that is its tap. So layers that are shared, states that a last norm changes,
and stacks of any name need no cases of their own. Attention is taken from transformers' attention interface where the
model goes through it and that is proven to show what the model's own eager attention computes; else from the whole maps
that the model reports. What cannot be had is refused for what asks for it, and for nothing else.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from textwrap import shorten
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hskcache.attention import IMPLEMENTATION, listening
from hskcache.counted import counted
from hskcache.errors import TeacherError
from hskcache.selection.scores import Attended

AttentionSource = Literal["queries", "maps"]
"""``queries``: query and key of every layer; ``maps``: the probabilities [B, H, L, L] that the model reports."""

_SIZES = ("vocab_size", "num_hidden_layers", "num_attention_heads", "hidden_size")
_CLOSE, _CLOSE_16_BITS = 1e-3, 0.25
"""Most that two computations of the same values may differ, relative to the largest of them.

In 16 bits one rounding of a large score moves its probability by percents; what is to be told apart differs by more.
"""


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
    """

    states: tuple[Tap, ...] = ()
    attention: AttentionSource | None = None
    without_states: str = ""
    without_attention: str = ""


def find_taps(model: PreTrainedModel) -> Taps:
    """Probe a model, put it in eval mode, and behind the attention function that shows most of it.

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
    inputs = _inputs(model)
    reported = _run(model, inputs)
    _check_padding(model, inputs, reported)
    states, without_states = _states(model, inputs)
    attention, without_attention = _attention(model, inputs, reported)
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


def _inputs(model: PreTrainedModel) -> dict[str, Tensor]:
    """A row of five tokens and one of three with padding; each ends with the token that ends texts, if there is one."""
    config = model.config
    pad, end = config.pad_token_id or 0, getattr(config, "eos_token_id", None)
    special = {pad, end, getattr(config, "bos_token_id", None)}
    words = [token for token in range(3, config.vocab_size) if token not in special][:5]
    last = end if isinstance(end, int) and 0 <= end < config.vocab_size else words[4]
    ids = torch.tensor([[*words[:4], last], [*words[:2], last, pad, pad]], device=model.device)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], device=model.device)
    return {"input_ids": ids, "attention_mask": mask}


@torch.inference_mode()
def _run(model: PreTrainedModel, inputs: Mapping[str, Tensor], **asked: bool) -> Any:
    try:
        return model(**inputs, **asked)
    except Exception as error:  # noqa: BLE001  (whatever a model asks for beyond token ids, it is not given here)
        raise TeacherError(
            f"{type(model).__name__} does not run on token ids and a mask alone: {shorten(str(error), 200)}; use a "
            "plain encoder such as BERT"
        ) from None


def _answer(output: Any) -> Tensor:
    """The logits, or the last hidden states of a model without a head."""
    logits = getattr(output, "logits", None)
    answer: Tensor = output[0] if logits is None else logits
    return answer


def _check_padding(model: PreTrainedModel, inputs: Mapping[str, Tensor], reported: Any) -> None:
    """Raise TeacherError unless the padded row is answered as it is alone."""
    length = int(inputs["attention_mask"][1].sum())
    alone = _answer(_run(model, {name: tensor[1:, :length] for name, tensor in inputs.items()}))[0]
    padded = _answer(reported)[1]
    if alone.dim() > 1:
        padded = padded[:length]
    if alone.shape != padded.shape or not _is_close(padded, alone):
        raise TeacherError(
            f"{type(model).__name__} answers a row otherwise when it is padded to the length of another, so what it "
            "says would depend on the batch; use a model that heeds the attention mask, such as BERT"
        )


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
        hidden = getattr(_run(model, inputs, output_hidden_states=True), "hidden_states", None)
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


def _attention(
    model: PreTrainedModel, inputs: Mapping[str, Tensor], reported: Any
) -> tuple[AttentionSource | None, str]:
    """The place where attention is seen, and the reason why it is not, or not before the softmax."""
    layers = model.config.num_hidden_layers
    before = model.config._attn_implementation
    maps, reason = _maps(model, inputs, layers)
    if maps is None:
        _attend(model, before)
        return None, reason
    if not model.is_backend_compatible():
        return "maps", "computes attention in its own code, outside transformers' attention interface"
    _attend(model, IMPLEMENTATION)
    listened: list[Attended] = []
    valid = inputs["attention_mask"].bool()
    with listening(lambda query, key, mask, scaling: listened.append(_attended(query, key, mask, scaling, valid))):
        answer = _answer(_run(model, inputs))
    if len(listened) != layers:
        problem = f"attends {len(listened)} times in {counted(layers, 'layer')} through transformers' interface"
    elif not _is_close(answer, _answer(reported)) or not _agree(listened, maps, valid):
        problem = "attends otherwise than transformers' attention interface shows"
    else:
        return "queries", ""
    _attend(model, "eager")
    return "maps", problem


def _attend(model: PreTrainedModel, implementation: str) -> None:
    """Choose the attention function of a model that leaves the choice; one that does not goes on with its own."""
    if model.config._attn_implementation != implementation:
        try:
            model.set_attn_implementation(implementation)
        except ValueError:
            return


def _maps(model: PreTrainedModel, inputs: Mapping[str, Tensor], layers: int) -> tuple[Sequence[Tensor] | None, str]:
    """Probabilities of every layer [B, H, L, L] as the model's eager attention reports them, or why there are none."""
    if getattr(model.config, "is_encoder_decoder", False) or getattr(model.config, "is_decoder", False):
        return None, "is a decoder; its [CLS] row cannot score positions"
    _attend(model, "eager")
    try:
        maps = getattr(_run(model, inputs, output_attentions=True), "attentions", None)
    except TeacherError:
        maps = None
    length = inputs["input_ids"].shape[1]
    if not maps or any(not isinstance(each, Tensor) or each.shape[-2:] != (length, length) for each in maps):
        return None, "does not report where it attends"
    if len(maps) != layers:
        return None, (
            f"attends {counted(len(maps), 'time')} in {counted(layers, 'layer')}, so its scores cannot be told apart"
        )
    if any(each.dim() != 4 or not _is_close(each.sum(-1)[0], torch.ones_like(each.sum(-1)[0])) for each in maps):
        return None, "reports attention that does not add up to 1"
    if all(not bool(each[0].triu(1).any()) for each in maps):
        return None, "attends causally; its [CLS] row cannot score positions"
    return maps, ""


def _attended(query: Tensor, key: Tensor, mask: Tensor | None, scaling: float, valid: Tensor) -> Attended:
    return Attended(torch.matmul(query.float(), key.float().transpose(2, 3)) * scaling, mask, valid)


def _agree(listened: Iterable[Attended], maps: Iterable[Tensor], valid_BL: Tensor) -> bool:
    """True if what the interface shows becomes the probabilities that the model reports, for queries that are real."""
    queries = valid_BL.nonzero(as_tuple=True)
    return all(
        attended.probabilities_BHQL.shape == reported.shape
        and _is_close(attended.probabilities_BHQL.transpose(1, 2)[queries], reported.transpose(1, 2)[queries])
        for attended, reported in zip(listened, maps, strict=True)
    )


def _is_close(found: Tensor, expected: Tensor) -> bool:
    """True if two tensors are alike but for rounding; where both are NaN they are."""
    close = _CLOSE if expected.dtype == torch.float32 else _CLOSE_16_BITS
    scale = float(expected.abs().nan_to_num(0).amax()) if expected.numel() else 0.0
    return torch.allclose(found.float(), expected.float(), rtol=0, atol=close * scale + 1e-6, equal_nan=True)
