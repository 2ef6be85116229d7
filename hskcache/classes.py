"""Names of a model's classes: which are the same, in which order they stand, and whether there is one answer a row."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from hskcache.counted import counted
from hskcache.errors import MismatchError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Problem: TypeAlias = Literal["classification", "multilabel", "regression", "tagging"]
"""Kinds of a task: one class a row, any number of them, a score, or one class a word."""

ASKED = {
    "classification": "one class",
    "multilabel": "any number of classes",
    "regression": "a score",
    "tagging": "a class a word",
}
"""Answers of a row, in words."""

NO_CLASS = -100
"""The index that stands for no class where a row has no gold label; losses pass it over, as torch's do."""

_SEPARATORS = str.maketrans("", "", " -_")


def has_gold(labels_N: "NDArray[Any]") -> "NDArray[np.bool_]":
    """Flags of labels that are a class, not NO_CLASS, or a score, not NaN; of rows of words, of any word: bool [N].

    Labels with a value for each class, [N, C], are gold where all of a row's values are there.
    """
    import numpy as np

    if labels_N.dtype.kind == "O":
        return np.array([has_gold(tags).any() for tags in labels_N], bool)
    # NaN alone differs from itself.
    is_gold_N: NDArray[np.bool_] = labels_N == labels_N if labels_N.dtype.kind == "f" else labels_N != NO_CLASS
    return is_gold_N if is_gold_N.ndim < 2 else np.asarray(is_gold_N.all(axis=1))


def single_classes(labels: "NDArray[Any]") -> "NDArray[Any]":
    """Labels [N] as they are; of distributions [N, C] the most probable class, int64 [N], NO_CLASS for none."""
    if labels.ndim < 2:
        return labels
    import numpy as np

    return np.where(has_gold(labels), labels.argmax(1), NO_CLASS)


def several_classes(values_NC: "NDArray[Any]") -> "NDArray[np.bool_]":
    """Flags of the classes that a row has by its labels, where these are values in [0, 1]: those of 0.5 or more."""
    flags_NC: NDArray[np.bool_] = values_NC >= 0.5
    return flags_NC


def of_words(labels_N: "NDArray[Any]") -> "NDArray[Any]":
    """The labels of all words, one row after the other; the same where rows have a label each."""
    if labels_N.dtype.kind != "O":
        return labels_N
    import numpy as np

    return np.concatenate([np.empty(0, np.int64), *labels_N])


def is_tagger(config: Any) -> bool:
    """True if a model's configuration says that it answers for each token."""
    return any(str(one).endswith("ForTokenClassification") for one in config.architectures or ())


def folded(name: str) -> str:
    """A class name without what people vary: case, blanks, hyphens and underscores."""
    return name.casefold().translate(_SEPARATORS)


def class_names(config: Any) -> tuple[str, ...]:
    """The classes of a model's configuration, in the order of its outputs; LABEL_i for an output that has no name."""
    return tuple(str(config.id2label.get(index, f"LABEL_{index}")) for index in range(config.num_labels))


def is_nameless(names: Sequence[str]) -> bool:
    """True if these are the names of a model that was saved without any: LABEL_0, LABEL_1, ..."""
    return list(names) == [f"LABEL_{index}" for index in range(len(names))]


def are_counted(names: Sequence[str]) -> bool:
    """True if classes have no names but their numbers, LABEL_0, LABEL_1, ... or 0, 1, ..., in this order."""
    return is_nameless(names) or list(names) == [str(index) for index in range(len(names))]


def order_between(had: Sequence[str], wanted: Sequence[str]) -> tuple[int, ...] | None:
    """Places of the wanted classes among those that a model has; None where these are not the same classes.

    Numbers that count classes are no names: in part the same as others they tell nothing. Raises MismatchError if some
    classes are the same and some are not, or two differ in no more than spelling.
    """
    places = {folded(name): place for place, name in enumerate(had)}
    found = [places.get(folded(name)) for name in wanted]
    order = tuple(place for place in found if place is not None)
    if len(had) == len(wanted) and sorted(order) == list(range(len(had))):
        return order
    if order and not are_counted(had) and not are_counted(wanted):
        raise MismatchError(
            f"the classes {', '.join(had)} and {', '.join(wanted)} are the same only in part, which does not tell "
            "their order"
        )
    return None


def several_names(names: Sequence[str], values: Sequence[float]) -> list[str]:
    """The classes of a row by the values of its label, see :func:`several_classes`."""
    import numpy as np

    flags = several_classes(np.asarray(values))
    return [name for name, flag in zip(names, flags.tolist(), strict=True) if flag]


def problem_of(config: Any) -> Problem | None:
    """The kind of answers that a model's configuration tells; None where it leaves open how classes are answered."""
    if is_tagger(config):
        return "tagging"
    told = getattr(config, "problem_type", None)
    if told == "multi_label_classification":
        return "multilabel"
    if config.num_labels == 1:
        return "regression"
    return "classification" if told == "single_label_classification" else None


def is_other(answered: str | None, asked: str) -> bool:
    """True if a row has any number of classes by one kind of task and not by the other; None is told by nothing."""
    return answered is not None and "multilabel" in {answered, asked} and answered != asked


def require_single(name: str, config: Any, purpose: str) -> None:
    """Raise MismatchError if a model answers any number of classes, of which something is not done yet."""
    if problem_of(config) == "multilabel":
        raise MismatchError(
            f"{name} answers any number of classes of a row (problem_type multi_label_classification), and {purpose} "
            "of one class or one score a row; give such a model"
        )


def require_outputs(model: str, config: Any, other: str, num_outputs: int, remedy: str) -> None:
    """Raise MismatchError unless a model has as many outputs as ``other`` asks for; ``remedy`` says what to give."""
    if num_outputs != config.num_labels:
        raise MismatchError(
            f"{model} has {counted(config.num_labels, 'output')} and {other} has {num_outputs} (1 is a score); "
            f"give {remedy}"
        )


def require_one_score(name: str, config: Any, num_outputs: int | None = None) -> None:
    """Refuse a model that gives several scores of one row.

    ``config``: its configuration, or that as plain values. ``num_outputs``: of the model; None takes the
    configuration's. Raises MismatchError.
    """
    if isinstance(config, Mapping):
        problem, count = config.get("problem_type"), num_outputs or 1
    else:
        problem, count = getattr(config, "problem_type", None), num_outputs or int(config.num_labels)
    if problem == "regression" and count > 1:
        raise MismatchError(
            f"{name} gives {counted(count, 'score')} of one row (problem_type regression), for which there is no loss "
            "yet; give a model of classes or of one score a row, or correct problem_type in its config.json"
        )


def reordering(model: str, names: Sequence[str], wanted: Sequence[str]) -> str:
    """Advice on a model whose classes are not in the order that is wanted, for the end of an error."""
    try:
        order = order_between(names, wanted)
    except MismatchError:
        order = None
    if order is None:
        return "correct id2label in its config.json"
    labels = ",".join(wanted)
    create = f"hsktrain create --student {model} --tokenizer {model} --labels {labels} --out FOLDER"
    return f"put its classes in that order first: {create}"
