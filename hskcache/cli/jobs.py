"""From a command line to a job of the teacher; needs torch, so commands import it when they run."""

from typing import TYPE_CHECKING, NamedTuple

from hskcache import console
from hskcache.errors import CacheError
from hskcache.spec import Spec
from hskcache.text import tokenize
from hskcache.text.layout import Layout

if TYPE_CHECKING:
    from hskcache.teacher.job import Job


class Rows(NamedTuple):
    """A data file and which of its columns to read."""

    source: str
    layout: Layout


def make_job(teacher: str, device: str, spec: Spec, rows: Rows) -> "Job":
    """Load the teacher, read and tokenize the rows, and lay out the cache.

    Raises:
        CacheError: whichever of them is at fault.
    """
    require_teacher_extra()
    from hskcache.teacher.job import prepare_job, resolve_spec
    from hskcache.teacher.load import load_teacher

    loaded = load_teacher(teacher, device, spec.compute_dtype)
    # What is wrong with the spec is said before the rows are read, which may take minutes.
    spec = resolve_spec(spec, loaded.info)
    examples = rows.layout.read_for(loaded.info.name, loaded.model.config, rows.source)
    with console.progress("rows") as bar:
        task = bar.add_task("tokenize", total=len(examples))
        tokens = tokenize(examples, loaded.tokenizer, spec.max_length, lambda count: bar.advance(task, count))
    return prepare_job(loaded, examples, tokens, spec, rows.layout.task_name)


def require_teacher_extra() -> None:
    """Say which extra is missing before a long traceback does.

    Raises:
        CacheError: torch or transformers is not installed.
    """
    from importlib.util import find_spec

    for package in ("torch", "transformers"):
        if find_spec(package) is None:
            raise CacheError(f"{package} is not installed; install the extra: pip install 'hskcache[teacher]'")
