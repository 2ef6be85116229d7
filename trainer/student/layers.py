"""Make a student of some of a teacher's layers."""

import copy
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from textwrap import shorten
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from hskcache.counted import counted
from hskcache.encoder import layer_stacks
from hskcache.errors import SpecError, TeacherError
from hskcache.inference import evaluating
from hskcache.model.causal import is_causal, load_causal
from hskcache.model.load import ENCODER, ModelDemands, load_config, load_model
from hskcache.model.sentence import encoder_of, sentence_modules
from trainer.student.compact import BY_LAYER
from trainer.student.create import load_classifier, seeded

_OF_ALL_LAYERS = ".contact_head."
"""A head of ESM's that reads the attention of all layers, and that no classifier reads."""

_BY_LAYER = ("layer_types", "mlp_layer_types", "layers_block_type", "no_rope_layers", "attention_layers", *BY_LAYER)
"""Entries of configurations that hold a word or a number for every layer."""

_SCHEME = re.compile(r"(bottom|uniform):(\d+)")
_PROBE = 16


def load_layered(source: str) -> PreTrainedModel:
    """A model that students take layers of.

    It is an encoder from a sentence-transformers folder, a causal language model, else a classifier. Raises
    TeacherError, MismatchError as :func:`load_classifier`; TeacherError for an encoder with a decoder.
    """
    if (modules := sentence_modules(source)) is not None:
        return load_model(encoder_of(source, modules), ModelDemands(ENCODER, "a teacher")).model
    config = load_config(source, "a teacher")
    if getattr(config, "is_encoder_decoder", False):
        raise TeacherError(
            f"{source} is an encoder with a decoder ({config.model_type}), of which no student can be made yet; give a "
            "classifier or a causal language model"
        )
    return load_causal(source, "a teacher") if is_causal(config) else load_classifier(source)


def resolve_layers(scheme: str, teacher_layers: int) -> tuple[int, ...]:
    """1-based layers from ``2,4,6``, ``bottom:3`` or ``uniform:3``.

    Uniform takes layer round(i * T / n) for i = 1..n, half to even: 3, 6, 9, 12 of 12 for n = 4 [TinyBERT 3.1]. Raises
    SpecError if not of these forms, a layer the teacher lacks, or one listed twice.
    """
    if match := _SCHEME.fullmatch(scheme):
        kind, count = match[1], int(match[2])
        if not 1 <= count <= teacher_layers:
            raise SpecError(
                f"--layers {scheme}: the teacher has {counted(teacher_layers, 'layer')}; ask for 1 to {teacher_layers}"
            )
        step = 1 if kind == "bottom" else teacher_layers / count
        return tuple(round(index * step) for index in range(1, count + 1))
    try:
        layers = tuple(int(part) for part in scheme.split(","))
    except ValueError:
        raise SpecError(f"--layers {scheme!r} is not of the form 2,4,6 or bottom:3 or uniform:3") from None
    _check_layers(layers, teacher_layers)
    return layers


def _check_layers(layers: Sequence[int], teacher_layers: int) -> None:
    if not layers or not all(1 <= layer <= teacher_layers for layer in layers):
        raise SpecError(f"layers {list(layers)}: the teacher has layers 1 to {teacher_layers}; list some of those")
    if len(set(layers)) < len(layers):
        raise SpecError(f"layers {list(layers)} names a layer twice; list each once")


def from_teacher_layers(teacher: PreTrainedModel, layers: Sequence[int]) -> PreTrainedModel:
    """A student made of some of the teacher's layers and all that is beside them: embeddings, last norm, head.

    What a model generates with stays as well. Of one that generates, the student is seen to answer as the teacher does
    without the other layers.

    ``teacher``: an encoder, a classifier or a causal language model whose layers are one module list; ``layers``:
    1-based numbers of the layers to keep, in the student's order. Returns a new model of the teacher's class on the
    CPU; it shares no memory with the teacher. Raises SpecError for a layer the teacher lacks, or one listed twice;
    TeacherError if the teacher's layers are not one module list, or do not answer in their new places as in the old.
    """
    _check_layers(layers, teacher.config.num_hidden_layers)
    path = _layers_path(teacher)
    prefix = f"{path}."
    config = _config_of(teacher.config, layers)
    place = {layer - 1: index for index, layer in enumerate(layers)}
    weights = {}
    for name, tensor in teacher.state_dict().items():
        if not name.startswith(prefix):
            weights[name] = tensor
            continue
        number, _, rest = name.removeprefix(prefix).partition(".")
        if int(number) in place:
            weights[f"{prefix}{place[int(number)]}.{rest}"] = tensor
    with seeded(0):
        # Every weight drawn here is overwritten; strict loading makes sure of it.
        student = type(teacher)(config)
    drawn = {name: tensor for name, tensor in student.state_dict().items() if _OF_ALL_LAYERS in name}
    try:
        student.load_state_dict(weights | drawn, strict=True)
    except RuntimeError as error:
        reason = shorten(str(error).partition("\n")[2].strip(), 160)
        raise TeacherError(
            f"layers {', '.join(map(str, layers))} of {type(teacher).__name__} cannot stand in these places: {reason}; "
            "keep layer 1 as the first"
        ) from None
    if teacher.can_generate():
        student.generation_config = copy.deepcopy(teacher.generation_config)
        if list(layers) == sorted(layers):
            _require_alike(student, teacher, path, layers)
    return student.eval()


def _config_of(config: PreTrainedConfig, layers: Sequence[int]) -> PreTrainedConfig:
    """The configuration of a student of these layers. Raises TeacherError if it does not describe them."""
    ours = type(config).from_dict(config.to_dict())
    ours.num_hidden_layers = len(layers)
    for name in _BY_LAYER:
        if (entries := getattr(config, name, None)) is not None:
            setattr(ours, name, [entries[layer - 1] for layer in layers])
    if (first := getattr(config, "max_window_layers", None)) is not None:
        # Layers from this one on may attend in a window.
        ours.max_window_layers = sum(layer <= first for layer in layers)
    try:
        type(config).from_dict(ours.to_dict())
    except Exception as error:  # noqa: BLE001  (each model family raises errors of its own kinds)
        reason = shorten(" ".join(str(error).split()), 160)
        raise TeacherError(
            f"a student of {counted(len(layers), 'layer')} cannot be described to {config.model_type}: {reason}; give "
            "a config.json with fewer layers"
        ) from None
    return ours


def _require_alike(student: PreTrainedModel, teacher: PreTrainedModel, path: str, layers: Sequence[int]) -> None:
    """Raise TeacherError unless a student's logits are those of the teacher without its other layers, on a probe."""
    ids_BL = torch.arange(1, 1 + _PROBE)[None] % teacher.config.vocab_size
    stack = teacher.get_submodule(path)
    assert isinstance(stack, nn.ModuleList)
    left_out = [module for number, module in enumerate(stack, start=1) if number not in layers]
    with evaluating(student), evaluating(teacher), torch.inference_mode():
        ours = student(input_ids=ids_BL, use_cache=False).logits
        with _passed_over(left_out):
            theirs = teacher(input_ids=ids_BL.to(teacher.device), use_cache=False).logits.to(ours.device, ours.dtype)
    if not torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max())):
        raise TeacherError(
            f"layers {', '.join(map(str, layers))} of {type(teacher).__name__} answer otherwise in these places, by up "
            f"to {float((ours - theirs).abs().max()):.3g} in a logit; give a config.json with fewer layers"
        )


@contextmanager
def _passed_over(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Let layers give back the states that come to them."""

    def passed(_module: nn.Module, given: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
        states = given[0] if given else named["hidden_states"]
        return (states, *output[1:]) if isinstance(output, tuple) else states

    with ExitStack() as stack:
        for module in modules:
            stack.callback(module.register_forward_hook(passed, with_kwargs=True).remove)
        yield


def _layers_path(teacher: PreTrainedModel) -> str:
    paths = list(layer_stacks(teacher))
    if len(paths) != 1:
        raise TeacherError(
            f"{type(teacher).__name__} has {len(paths)} lists of "
            f"{teacher.config.num_hidden_layers} layers where one is expected, as all "
            "models have whose layers are neither shared nor in several stacks; give a config.json with fewer layers"
        )
    return paths[0]
