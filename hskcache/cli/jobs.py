"""From a command line to a job of the teacher; needs torch, so commands import it when they run."""

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from hskcache import console
from hskcache.errors import CacheError, MismatchError
from hskcache.spec import Spec
from hskcache.text import Examples, tokenize
from hskcache.text.labels import Problem
from hskcache.text.layout import Layout, class_order

if TYPE_CHECKING:
    from hskcache.teacher.job import Job
    from hskcache.teacher.load import Teacher


class Rows(NamedTuple):
    """A data file and which of its columns to read."""

    source: str
    layout: Layout

    def read(self, teacher: "Teacher") -> Examples:
        """The rows, their labels in the order of the teacher's classes.

        Raises:
            DataError: a row cannot be read.
            MismatchError: the teacher answers for other classes.
        """
        config = teacher.model.config
        names = class_order(teacher.info.name, config, self.layout.task)
        problem: Problem = "regression" if teacher.num_labels == 1 else "classification"
        examples = self.layout.read(self.source, names if self.layout.has_label else None, problem)
        if examples.labels is None:
            # The teacher alone tells what its answers mean.
            known = names or tuple(str(config.id2label[index]) for index in range(teacher.num_labels))
            return replace(examples, problem=problem, label_names=() if problem == "regression" else known)
        found = len(examples.label_names) if examples.problem == "classification" else 1
        if found != teacher.num_labels:
            raise MismatchError(
                f"{teacher.info.name} has {teacher.num_labels} outputs and {self.source} has {found} (1 is a score); "
                "give a teacher of this task, or --task to name the classes"
            )
        return examples


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
    examples = rows.read(loaded)
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
