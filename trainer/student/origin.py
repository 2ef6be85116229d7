"""Origin of a student: a shape by name, a configuration alone, or weights."""

from pathlib import Path
from typing import Any

from hskcache.errors import TeacherError
from hskcache.hub import is_path
from hskcache.model.weights import ADAPTER, fault, weights_file
from hskcache.nearest import meant
from hskcache.remarks import remark
from hskcache.text.remembered import of_model

# The two students of [TinyBERT 4.2], which [MUD 4.1] trains too.
STUDENTS: dict[str, dict[str, int]] = {
    "tinybert4": {"num_hidden_layers": 4, "hidden_size": 312, "intermediate_size": 1200, "num_attention_heads": 12},
    "tinybert6": {"num_hidden_layers": 6, "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
}


def is_preset(source: str) -> bool:
    """True if a source is a name of STUDENTS; a model's folder of that name is meant before it."""
    return source in STUDENTS and not _is_model(source)


def tell_origin(source: str, reads_pairs: bool = False) -> None:
    """Say where a student begins, if that may surprise: from random weights, or from one of two of the same name.

    ``reads_pairs``: whether it will read pairs of texts, see :func:`~trainer.student.token_types.copy_untrained`.
    """
    if reads_pairs and has_one_type(source):
        remark(f"{source} has seen single texts alone, so its token type 1 begins as a copy of token type 0")
    if source in STUDENTS and _is_model(source):
        remark(f"{source} is a folder here and is taken; the shape of that name is meant where there is none")
    if not has_no_weights(source):
        return
    what = "has no weights" if Path(source).is_dir() and not is_preset(source) else "is a shape"
    if Path(source).is_file() and weights_file(Path(source).parent) is not None:
        what = "is a shape, and the weights beside it are not read"
    remark(f"{source} {what}: the student starts from random weights")


def has_one_type(source: str) -> bool:
    """True if a student is remembered to have seen single texts alone. Raises DamageError if that cannot be read."""
    return not is_preset(source) and of_model(source).token_types == 1


def record(source: str, called: str | None = None) -> dict[str, Any]:
    """The origin of a student as metrics.json keeps it: the source as it was given, and whether weights were drawn.

    ``called``: its name where that is another.
    """
    return {"origin": {"source": called or source, "random_weights": has_no_weights(source)}}


def _is_model(source: str) -> bool:
    return Path(source, "config.json").is_file()


def has_no_weights(source: str) -> bool:
    """True if a source is a shape alone: a key of STUDENTS, a config.json, or a folder without weights.

    Raises TeacherError for a path that leads nowhere, or a folder with weights that are not read.
    """
    if is_preset(source):
        return True
    path = Path(source)
    if path.is_dir():
        if (reason := fault(path)) is not None:
            raise TeacherError(f"cannot load a student from {source}: {reason}")
        return weights_file(path) is None and not (path / ADAPTER).is_file()
    is_file = is_path(source) or source.endswith(".json")
    is_near = "/" not in source and meant(source, STUDENTS)
    if not path.exists() and (is_file or is_near):
        # Not the shape of a hub id, or nearly a name of ours: asking the hub would only hide the spelling mistake.
        raise TeacherError(
            f"{source} is no file or folder; give {', '.join(STUDENTS)}, a config.json, a checkpoint folder or a hub "
            f"id{meant(source, STUDENTS)}"
        )
    return path.is_file()
