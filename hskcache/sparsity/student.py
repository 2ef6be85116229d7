"""The trial student: a classifier that was distilled from the dense teacher, over the same tokens and classes."""

from typing import NamedTuple

from transformers import PreTrainedModel

from hskcache.classes import reordering, require_one_score, require_outputs
from hskcache.encoder import weights_digest
from hskcache.errors import MismatchError
from hskcache.model.adapter import tokenizer_of
from hskcache.model.load import CLASSIFIER, ModelDemands, load_model
from hskcache.runtime import quiet
from hskcache.sparsity.artifact import ModelId
from hskcache.teacher.load import Teacher
from hskcache.text import Task, load_tokenizer
from hskcache.text.layout import class_order
from hskcache.text.tokenize import vocabulary_difference


class Trial(NamedTuple):
    """A trial student in eval mode, and what identifies it."""

    model: PreTrainedModel
    info: ModelId


def load_trial(name: str, teacher: Teacher, task: Task | None = None) -> Trial:
    """Load a student from a folder or the hub, onto the device of its teacher.

    ``name``: where it is, with its tokenizer; ``task``: tells how models of other class names order their classes.
    Raises TeacherError if it cannot be loaded whole, or has no classifier; MismatchError if it knows other tokens, or
    answers for other classes.
    """
    remedy = "distill it from the teacher first: hsktrain fit"
    model, _ = load_model(name, ModelDemands(CLASSIFIER, "a trial student", remedy))
    with quiet():
        vocabulary = load_tokenizer(tokenizer_of(name)).get_vocab()
    if (found := vocabulary_difference(vocabulary, teacher.tokenizer.get_vocab())) is not None:
        token, theirs, ours = found
        raise MismatchError(
            f"the trial student {name} knows other tokens than {teacher.info.name}: {token!r} has id {theirs} and "
            f"{ours}; give a student that was distilled from this teacher"
        )
    _check_classes(name, model, teacher, task)
    return Trial(model.to(teacher.device), ModelId(name=name, weights_sha256=weights_digest(model)))


def _check_classes(name: str, model: PreTrainedModel, teacher: Teacher, task: Task | None) -> None:
    theirs, ours = model.config, teacher.model.config
    require_one_score(name, theirs)
    remedy = "a student that was distilled from this teacher"
    require_outputs(f"the trial student {name}", theirs, teacher.info.name, teacher.num_labels or 0, remedy)
    if theirs.num_labels == 1 or theirs.id2label == ours.id2label:
        return
    order, wanted = class_order(name, theirs, task), class_order(teacher.info.name, ours, task)
    if order is not None and wanted is not None and order != wanted:
        raise MismatchError(
            f"the trial student {name} has the classes {', '.join(order)} and {teacher.info.name} has "
            f"{', '.join(wanted)}; give a student that was distilled from this teacher, or "
            f"{reordering(name, order, wanted)}"
        )
