"""Options of commands as keywords of functions: the same words, and values as Python has them."""

import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from hskcache.errors import SpecError
from hskcache.nearest import meant
from hskcache.text.layout import OPTIONS, Layout
from hskcache.text.table import BadRows, Unlabelled

LAYOUT = tuple("task" if name == "task_name" else name for name in OPTIONS)
"""Keywords that say how rows are read."""


def refuse_unknown(function: str, given: Collection[str], known: Collection[str]) -> None:
    """Raise SpecError if a keyword is not one of those of a function; tells the nearest."""
    for name in given:
        if name not in known:
            listed = f"; it has {', '.join(dict.fromkeys(known))}"
            raise SpecError(f"{function} has no option {name}{meant(name, known) or listed}")


def one_of(name: str, value: Any, known: Collection[str]) -> Any:
    """The value of a keyword. Raises SpecError unless it is one of some words; tells the nearest."""
    if value not in known:
        raise SpecError(f"{name} is {value!r}; give one of {', '.join(known)}{meant(str(value), known)}")
    return value


def layout_of(given: Mapping[str, Any]) -> Layout:
    """The columns that keywords name, and what they say of rows. Raises SpecError for a value that cannot be."""
    values = {"task_name" if name == "task" else name: given[name] for name in LAYOUT if given.get(name) is not None}
    for name in ("task_name", "text", "text_pair", "label"):
        if name in values:
            values[name] = str(listed_as_text(values[name]))
    if "classes" in values:
        if isinstance(values["classes"], str) or len(values["classes"]) < 2:
            raise SpecError(f"classes {values['classes']!r}: give two names or more, such as ('neg', 'pos')")
        values["classes"] = tuple(map(str, values["classes"]))
    for name, known in (("unlabelled", get_args(Unlabelled)), ("bad_rows", get_args(BadRows))):
        if name in values:
            one_of(name, values[name], known)
    return Layout(**values)


def listed_as_text(value: Any) -> Any:
    """Numbers or names as options have them, with commas between; anything else as it is."""
    return ",".join(map(str, value)) if isinstance(value, Iterable) and not isinstance(value, str) else value


@contextmanager
def folder_of(model: Any, tokenizer: Any = None) -> Iterator[tuple[str, str | None]]:
    """A model as a folder, and what to call it where that is not its name.

    Args:
        model: a folder, a hub id, or a ``transformers.PreTrainedModel``, which is saved in a folder that is gone at the
            end.
        tokenizer: of a model in memory: itself, or its folder or hub id.

    Raises:
        SpecError: it is none of these.
    """
    if isinstance(model, str | Path):
        if tokenizer is not None:
            raise SpecError(f"a tokenizer is for a model in memory, and {model} brings its own; leave it out")
        yield str(model), None
        return
    if not hasattr(model, "save_pretrained"):
        raise SpecError(f"a model is a folder, a hub id or a model of transformers; a {type(model).__name__} was given")
    from hskcache.runtime import quiet

    with tempfile.TemporaryDirectory(prefix="hskcache-") as folder:
        with quiet():
            model.save_pretrained(folder)
        if isinstance(tokenizer, str | Path):
            from hskcache.text import load_tokenizer

            tokenizer = load_tokenizer(str(tokenizer))
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)
        yield folder, model.name_or_path or type(model).__name__
