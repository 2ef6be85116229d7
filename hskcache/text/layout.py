"""Which columns of a data file a command reads, and in which order its classes count."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import click

from hskcache import console
from hskcache.classes import class_names, folded, require_one_answer
from hskcache.errors import MismatchError
from hskcache.text.labels import Problem
from hskcache.text.rows import Examples, Overrides, examples_for
from hskcache.text.tasks import Task, load_task

Command = Callable[..., Any]


@dataclass(frozen=True)
class Layout:
    """Which columns of a data file to read, as the user gave them: a task, columns, or both."""

    task_name: str | None
    text: str | None
    text_pair: str | None
    label: str | None
    header: bool | None

    @property
    def has_label(self) -> bool:
        """Whether labels will be read."""
        return self.label not in (None, "") or (self.label is None and self.task_name is not None)

    @property
    def task(self) -> Task | None:
        """The task preset, if one was named."""
        return None if self.task_name is None else load_task(self.task_name)

    def read(self, source: str, label_names: Sequence[str] | None = None, problem: str | None = None) -> Examples:
        """The rows of ``source``.

        Args:
            source: a data file or ``hub:REPO[:CONFIG]:SPLIT``.
            label_names: classes in index order; None or empty takes the task's, or what the labels show.
            problem: ``regression`` reads scores where no task says so and every one happens to be a whole number.
        """
        task = self.task
        if task is None and problem == "regression" and self.text is not None and self.label is not None:
            task = Task(name="scores", text=self.text, label=self.label, problem="regression", metrics=["pearson"])
        overrides = Overrides(self.text, self.text_pair, self.label, self.header)
        return examples_for(source, task, overrides, label_names or None)

    def read_for(self, model: str, config: Any, source: str) -> Examples:
        """The rows of ``source``, their labels in the order of a model's classes.

        Args:
            model: what to call the model in an error.
            config: its configuration.
            source: as for :meth:`read`.

        Raises:
            DataError: a row cannot be read.
            MismatchError: the model answers for other classes.
        """
        names = class_order(model, config, self.task)
        problem: Problem = "regression" if config.num_labels == 1 else "classification"
        examples = self.read(source, names if self.has_label else None, problem)
        if examples.labels is None:
            # The model alone tells what its answers mean.
            known = names or class_names(config)
            return replace(examples, problem=problem, label_names=() if problem == "regression" else known)
        found = len(examples.label_names) if examples.problem == "classification" else 1
        if found != config.num_labels:
            raise MismatchError(
                f"{model} has {config.num_labels} outputs and {source} has {found} (1 is a score); give a teacher of "
                "this task, or --task to name the classes"
            )
        return examples


def layout(command: Command) -> Command:
    """Give a command ``--task`` and the column options as one argument ``layout``."""

    @click.option(
        "--task", "task_name", metavar="NAME", help="Task preset (sst2, rte, ...): columns, labels and metrics."
    )
    @click.option("--text", metavar="COLUMN", help="Column of the text: its name, or its number counted from 0.")
    @click.option("--text-pair", metavar="COLUMN", help="Column of the second text of a pair.")
    @click.option("--label", metavar="COLUMN", help="Column of the label.")
    @click.option("--header/--no-header", default=None, help="Whether the first line names columns [default: detect].")
    @functools.wraps(command)
    def wrapper(
        *args: Any,
        task_name: str | None,
        text: str | None,
        text_pair: str | None,
        label: str | None,
        header: bool | None,
        **kwargs: Any,
    ) -> Any:
        return command(*args, layout=Layout(task_name, text, text_pair, label, header), **kwargs)

    return wrapper


def class_order(model: str, config: Any, task: Task | None) -> tuple[str, ...] | None:
    """The labels as the data writes them, in the order of the model's classes; None where only the data can tell.

    A model that was saved without names (LABEL_0, ...) is taken to follow the task's order, and so is one whose names
    are not the task's at all, such as NEGATIVE for 0. Names that are the task's only in part tell no order.

    Raises:
        MismatchError: the model and the task differ in kind, in the number of classes, or in the names of some; or the
            model gives several answers of one row.
    """
    require_one_answer(model, config)
    if config.num_labels == 1:
        return None
    names = class_names(config)
    nameless = names == tuple(f"LABEL_{index}" for index in range(len(names)))
    if task is None:
        return None if nameless else names
    if len(task.labels) != len(names):
        raise MismatchError(
            f"{model} has {len(names)} classes and {task.name} has {len(task.labels) or 'scores'}; "
            "give a model that was fine-tuned on this task"
        )
    spelled = {folded(label): label for label in task.labels}
    known = [folded(name) in spelled for name in names]
    if all(known):
        return tuple(spelled[folded(name)] for name in names)
    if any(known):
        raise MismatchError(
            f"{model} has the classes {', '.join(names)} and {task.name} has {', '.join(task.labels)}, which do not "
            "tell their order; correct id2label in the model's config.json"
        )
    if not nameless:
        console.say(
            f"the model's classes {', '.join(names)} are taken for the task's {', '.join(task.labels)}, in order"
        )
    return tuple(task.labels)
