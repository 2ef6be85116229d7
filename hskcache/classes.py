"""Names of a model's classes: which are the same, in which order they stand, and whether there is one answer a row."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hskcache.counted import counted
from hskcache.errors import MismatchError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NO_CLASS = -100
"""The index that stands for no class where a row has no gold label; losses pass it over, as torch's do."""

_SEPARATORS = str.maketrans("", "", " -_")


def has_gold(labels_N: "NDArray[Any]") -> "NDArray[np.bool_]":
    """Flags of labels that are a class, not NO_CLASS, or a score, not NaN; of rows of words, of any word: bool [N]."""
    if labels_N.dtype.kind == "O":
        import numpy as np

        return np.array([has_gold(tags).any() for tags in labels_N], bool)
    # NaN alone differs from itself.
    is_gold_N: NDArray[np.bool_] = labels_N == labels_N if labels_N.dtype.kind == "f" else labels_N != NO_CLASS
    return is_gold_N


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


def require_outputs(model: str, config: Any, other: str, num_outputs: int, remedy: str) -> None:
    """Raise MismatchError unless a model has as many outputs as ``other`` asks for; ``remedy`` says what to give."""
    if num_outputs != config.num_labels:
        raise MismatchError(
            f"{model} has {counted(config.num_labels, 'output')} and {other} has {num_outputs} (1 is a score); "
            f"give {remedy}"
        )


def require_one_answer(name: str, config: Any, num_outputs: int | None = None) -> None:
    """Refuse a model that gives several answers of one row: several labels at once, or several scores.

    ``config``: its configuration, or that as plain values. ``num_outputs``: of the model; None takes the
    configuration's. Raises MismatchError.
    """
    if isinstance(config, Mapping):
        problem, count = config.get("problem_type"), num_outputs or 1
    else:
        problem, count = getattr(config, "problem_type", None), num_outputs or int(config.num_labels)
    if problem == "multi_label_classification":
        several = "several labels of one row at once (problem_type multi_label_classification)"
    elif problem == "regression" and count > 1:
        several = f"{counted(count, 'score')} of one row (problem_type regression)"
    else:
        return
    raise MismatchError(
        f"{name} gives {several}, for which there is no loss yet; give a model of one class or one score a row, or "
        "correct problem_type in its config.json"
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
