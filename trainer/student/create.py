"""Make a student: by name, from a config without weights, from a checkpoint, or from layers of the teacher."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

import torch
from transformers import BertConfig, PreTrainedConfig, PreTrainedModel

from hskcache.classes import Problem, class_names, problem_of, require_one_score
from hskcache.counted import counted
from hskcache.encoder import layer_stacks
from hskcache.errors import MismatchError, SpecError, TeacherError
from hskcache.model.load import (
    CLASSIFIER,
    ENCODER,
    TAGGER,
    ModelDemands,
    ModelKind,
    answering,
    draw_model,
    load_config,
    load_model,
)
from hskcache.model.sentence import encoder_of, sentence_modules
from trainer.student.compact import BY_LAYER
from trainer.student.head import keep_meaning
from trainer.student.origin import STUDENTS, has_no_weights, is_preset
from trainer.student.token_types import copy_untrained

_OF_ALL_LAYERS = ".contact_head."
"""A head of ESM's that reads the attention of all layers, and that no classifier reads."""

_PROBLEM_TYPES: dict[Problem, str | None] = {
    "classification": "single_label_classification",
    "multilabel": "multi_label_classification",
    "regression": "regression",
    "tagging": None,
}
_SCHEME = re.compile(r"(bottom|uniform):(\d+)")


@dataclass(frozen=True)
class Interface:
    """Inputs and outputs that a student must have: the tokenizer's ids in, the task's classes out.

    ``label_names`` holds the class names in index order; regression has none. ``problem`` says whether a row has one of
    the classes, or any number of them: multilabel. ``max_positions`` and
    ``type_vocab_size`` shape the named students only: every other student brings its own. ``reads_pairs`` is whether
    rows are two texts, which token types tell apart.
    """

    vocab_size: int
    label_names: tuple[str, ...]
    problem: Problem = "classification"
    pad_token_id: int = 0
    max_positions: int = 512
    type_vocab_size: int = 2
    reads_pairs: bool = False

    @property
    def num_labels(self) -> int:
        """Outputs of the classifier, C; 1 for regression."""
        return 1 if self.problem == "regression" else len(self.label_names)

    @property
    def kind(self) -> ModelKind:
        """The kind of model that answers so."""
        return TAGGER if self.problem == "tagging" else CLASSIFIER

    @property
    def head(self) -> dict[str, Any]:
        """The config entries that describe the classifier."""
        names = ("score",) if self.problem == "regression" else self.label_names
        return {
            "id2label": dict(enumerate(names)),
            "label2id": {name: index for index, name in enumerate(names)},
            "problem_type": _PROBLEM_TYPES[self.problem],
        }


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw initial weights from ``seed`` and leave every global generator where it was."""
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would reseed the accelerators too, which fork_rng does not save here.
        torch.default_generator.manual_seed(seed)
        yield


def student_config(source: str, interface: Interface) -> PreTrainedConfig:
    """The config of a student that starts from random weights. Raises TeacherError if the config cannot be read.

    ``source``: a key of STUDENTS, a config.json, or a folder that holds one; ``interface``: what the student must read
    and answer.
    """
    if is_preset(source):
        config: PreTrainedConfig = BertConfig(
            **STUDENTS[source],
            max_position_embeddings=interface.max_positions,
            type_vocab_size=interface.type_vocab_size,
        )
    else:
        config = load_config(source, "a student")
    config.update({"vocab_size": interface.vocab_size, "pad_token_id": interface.pad_token_id, **interface.head})
    return config


def create_student(source: str, interface: Interface, seed: int = 0) -> PreTrainedModel:
    """A student on the CPU in float32; whatever is not loaded is drawn from ``seed``.

    Raises TeacherError if the source cannot be read, or its weights do not fit its config; MismatchError if the
    checkpoint has another number of classes, too small a vocabulary, classes that are those of the interface only in
    part, several scores of one row, or one class a row where there may be several.

    Args:
        source: a key of STUDENTS, a config.json or a folder without weights (random weights), a folder with weights,
            or a hub id. A folder wins over a key of the same name. A checkpoint without a classifier gets
            a new one; of one with the same classes in another order the classifier's rows move.
        interface: what the student must read and answer.
        seed: of the random weights; the global generators stay untouched.
    """
    if has_no_weights(source):
        config = student_config(source, interface)
        with seeded(seed):
            return draw_model(source, interface.kind, config, "a student")
    return _load_student(source, interface, seed)


def create_encoder(source: str, interface: Interface, seed: int = 0) -> PreTrainedModel:
    """The same without a classifier, its pooler included where its kind has one: what task students begin from.

    Of a checkpoint with a head, the head is left behind; what ``interface`` says of classes does not count. Raises
    TeacherError if the source cannot be read, or its weights do not fit its config; MismatchError if the checkpoint has
    too small a vocabulary.
    """
    if has_no_weights(source):
        config = student_config(source, interface)
        # Back to what a config has by itself and a saved one leaves out: an encoder has no classes.
        config.num_labels, config.problem_type = 2, None
        with seeded(seed):
            return draw_model(source, ENCODER, config, "a student")
    config = load_config(source, "a student")
    check_vocabulary(source, config, interface)
    with seeded(seed):
        model = load_model(source, ModelDemands(ENCODER, "a student", config=config)).model
    copy_untrained(model, source, interface.reads_pairs)
    return model


def _load_student(source: str, interface: Interface, seed: int) -> PreTrainedModel:
    config = load_config(source, "a student")
    check_vocabulary(source, config, interface)
    require_one_score(source, config)
    num_labels, names, told = config.num_labels, class_names(config), config.problem_type
    is_other = num_labels > 1 and problem_of(config) not in {None, interface.problem}
    config.update(interface.head)
    with seeded(seed):
        model, drawn = load_model(source, ModelDemands(interface.kind, "a student", new_head=True, config=config))
    if drawn.resized:
        raise MismatchError(
            f"{source} classifies into {counted(num_labels, 'class', 'classes')} and {interface.num_labels} "
            "are asked for; "
            "start from a checkpoint of this task or from one without a classifier"
        )
    if is_other and not drawn.new:
        raise MismatchError(
            f"{source} has a classifier of problem_type {told}, and {config.problem_type} is asked for; start from a "
            "checkpoint of such a task or from one without a classifier"
        )
    keep_meaning(model, source, (names, interface.label_names), drawn.new)
    copy_untrained(model, source, interface.reads_pairs)
    return model


def check_vocabulary(source: str, config: PreTrainedConfig, interface: Interface) -> None:
    """Refuse weights that know fewer token ids than the tokenizer gives; raises MismatchError."""
    if config.vocab_size < interface.vocab_size:
        raise MismatchError(
            f"{source} knows {config.vocab_size} token ids and the tokenizer has {interface.vocab_size}; "
            "a student that starts from weights needs the tokenizer of those weights, which --tokenizer gives where a "
            "cache keeps its text"
        )


def load_classifier(source: str) -> PreTrainedModel:
    """A fine-tuned classifier of rows, or of their words, on the CPU in float32, from a folder or the hub.

    Raises TeacherError if it cannot be loaded whole, or has no classifier of its own; MismatchError if it gives several
    answers of one row.
    """
    if has_no_weights(source):
        raise TeacherError(f"{source} has no weights; give the folder or the hub id of a fine-tuned model")
    config = load_config(source, "a classifier")
    require_one_score(source, config)
    remedy = f"fine-tune it first: hsktrain finetune --model {source}"
    return load_model(source, ModelDemands(answering(config), "a classifier", remedy, config=config)).model


def load_layered(source: str) -> PreTrainedModel:
    """A model that students take layers of: an encoder from a sentence-transformers folder, else a classifier.

    Raises TeacherError, MismatchError as :func:`load_classifier`.
    """
    if (modules := sentence_modules(source)) is None:
        return load_classifier(source)
    return load_model(encoder_of(source, modules), ModelDemands(ENCODER, "a teacher")).model


def resolve_layers(scheme: str, teacher_layers: int) -> tuple[int, ...]:
    """1-based encoder layers from ``2,4,6``, ``bottom:3`` or ``uniform:3``.

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
    """A student made of the teacher's embeddings, some of its encoder layers, its pooler and its classifier.

    ``teacher``: BERT, RoBERTa, ELECTRA, DistilBERT or another encoder whose layers are one module list; ``layers``:
    1-based numbers of the layers to keep, in the student's order. Returns a new model of the teacher's class on the
    CPU; it shares no memory with the teacher. Raises SpecError for a layer the teacher lacks, or one listed twice;
    TeacherError if the teacher's layers are not one module list.
    """
    _check_layers(layers, teacher.config.num_hidden_layers)
    prefix = f"{_layers_path(teacher)}."
    config = type(teacher.config).from_dict(teacher.config.to_dict())
    config.num_hidden_layers = len(layers)
    for name in ("layer_types", *BY_LAYER):
        if (numbers := getattr(config, name, None)) is not None:
            setattr(config, name, [numbers[layer - 1] for layer in layers])
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
    return student.eval()


def _layers_path(teacher: PreTrainedModel) -> str:
    paths = list(layer_stacks(teacher))
    if len(paths) != 1:
        raise TeacherError(
            f"{type(teacher).__name__} has {len(paths)} lists of "
            f"{teacher.config.num_hidden_layers} layers where one is expected, as all "
            "models have whose layers are neither shared nor in several stacks; give a config.json with fewer layers"
        )
    return paths[0]
