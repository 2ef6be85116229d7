"""From a command line to a job of the teacher; needs torch, so commands import it when they run."""

from typing import Any

from hskcache import console
from hskcache.errors import CacheError
from hskcache.spec import Spec
from hskcache.teacher.build import Job, prepare_job
from hskcache.teacher.load import Teacher, load_teacher
from hskcache.text import Examples, Overrides, examples_for, load_task, tokenize


def make_job(teacher: str, device: str, spec: Spec, given: dict[str, Any]) -> Job:
    """Load the teacher, read and tokenize the rows, and lay out the cache.

    Raises:
        CacheError: whichever of them is at fault.
    """
    require_teacher_extra()
    loaded = load_teacher(teacher, device, spec.compute_dtype)
    examples = read_data(given, loaded)
    with console.progress("rows") as bar:
        task = bar.add_task("tokenize", total=len(examples))
        rows = tokenize(examples, loaded.tokenizer, spec.max_length, lambda count: bar.advance(task, count))
    return prepare_job(loaded, examples, rows, spec, given["task"])


def read_data(given: dict[str, Any], teacher: Teacher) -> Examples:
    """The rows of a command line; without a task, the teacher's own classes fix the order of labels."""
    task = load_task(given["task"]) if given["task"] else None
    overrides = Overrides(given["text"], given["text_pair"], given["label"])
    names = teacher.label_names if task is None and given["label"] and teacher.num_labels > 1 else None
    if names and all(name.startswith("LABEL_") for name in names):
        names = None
    return examples_for(given["data"], task, overrides, names)


def require_teacher_extra() -> None:
    """Say which extra is missing before a long traceback does.

    Raises:
        CacheError: torch or transformers is not installed.
    """
    from importlib.util import find_spec

    for package in ("torch", "transformers"):
        if find_spec(package) is None:
            raise CacheError(f"{package} is not installed; install the extra: pip install 'hskcache[teacher]'")
