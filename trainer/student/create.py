"""Make a student: by name, from a config without weights, or from a checkpoint."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import BertConfig, PreTrainedConfig, PreTrainedModel

from hskcache.classes import Problem, class_names, problem_of, require_one_score
from hskcache.counted import counted
from hskcache.errors import MismatchError, TeacherError
from hskcache.model.causal import refuse_causal
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
from trainer.student.head import keep_meaning
from trainer.student.origin import STUDENTS, has_no_weights, is_preset
from trainer.student.token_types import copy_untrained

_PROBLEM_TYPES: dict[Problem, str | None] = {
    "classification": "single_label_classification",
    "multilabel": "multi_label_classification",
    "regression": "regression",
    "tagging": None,
}


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
    refuse_causal(source, config, f"hsktrain evaluate --model {source} --corpus FILE tells how well it says texts")
    require_one_score(source, config)
    remedy = f"fine-tune it first: hsktrain finetune --model {source}"
    return load_model(source, ModelDemands(answering(config), "a classifier", remedy, config=config)).model
