"""Columns of a data file that a command reads, and the order in which its classes count."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hskcache.classes import (
    ASKED,
    class_names,
    folded,
    is_nameless,
    is_other,
    problem_of,
    require_one_score,
    require_outputs,
)
from hskcache.counted import counted
from hskcache.errors import ColumnError, DataError, MismatchError, SpecError
from hskcache.remarks import remark
from hskcache.text.head import check_head
from hskcache.text.labels import LabelSet
from hskcache.text.memory import Source
from hskcache.text.remembered import Remembered
from hskcache.text.rows import Examples, Overrides, columns_of, examples_for, preset_of
from hskcache.text.singles import singles
from hskcache.text.table import BadRows, RowPolicy, Unlabelled
from hskcache.text.tasks import Task, load_task

OPTIONS = ("task_name", "text", "text_pair", "label", "header", "classes", "unlabelled", "bad_rows")
"""Names of what the user gives, as attributes of a layout and as parameters of a command."""


@dataclass(frozen=True)
class Layout:
    """Columns of a data file to read, and how, as the user gave them; None for what was not given.

    Attributes:
        task_name: a preset or a .yaml file.
        text, text_pair, label: columns, by name or by number counted from 0; an empty string reads none.
        header: whether the first line names the columns, where the file does not show it.
        classes: as the data writes them, in the order of class indices.
        unlabelled: what becomes of rows without a gold label among others that have one: ``fail``, ``skip`` or
            ``keep``; None fails, too, but reads a column in which no row has one as no labels.
        bad_rows: what becomes of rows that cannot be used, such as one without a text: ``fail`` or ``skip``.
        definition: of a task of one's own that is remembered and not given by its name.
        memory: how rows were read that these must be like.
        recalls: whether columns are from there.
        most_rows: the first so many of the rows that are read are taken; None: all.
    """

    task_name: str | None = None
    text: str | None = None
    text_pair: str | None = None
    label: str | None = None
    header: bool | None = None
    classes: tuple[str, ...] | None = None
    unlabelled: Unlabelled | None = None
    bad_rows: BadRows | None = None
    definition: Task | None = None
    memory: Remembered | None = None
    recalls: bool = False
    most_rows: int | None = None

    @property
    def is_empty(self) -> bool:
        """True if nothing was given: no task, no column, and nothing of rows."""
        return all(getattr(self, name) is None for name in OPTIONS)

    @property
    def names_columns(self) -> bool:
        """True if a task or a text column was given."""
        return self.task_name is not None or self.text is not None

    @property
    def has_label(self) -> bool:
        """True if labels will be read."""
        return self.label not in (None, "") or (self.label is None and self.task_name is not None)

    @property
    def task(self) -> Task | None:
        """The task, if one was named or is remembered."""
        if self.definition is not None or self.task_name is None:
            return self.definition
        return load_task(self.task_name)

    def recalling(self, memory: Remembered, source: Source, labelled: bool = False) -> "Layout":
        """The columns that were given, the others as they are remembered, which one line says.

        A task or a text column that was given leaves nothing to remember but whether rows are pairs. ``source``: the
        data, whose kind decides what a task's columns are called; ``labelled``: whether labels are needed, though there
        it had none.
        """
        if self.names_columns or not memory.has_columns:
            return replace(self, memory=memory)
        known = memory.flags(labelled)
        columns = {name: getattr(self, name) for name in ("text_pair", "label", "header")}
        known |= {name: value for name, value in columns.items() if value is not None}
        recalled = replace(self, **known, definition=memory.definition, memory=memory, recalls=True)
        remark(f"columns as in {memory.where}: {recalled.listed(source)}")
        return recalled

    def listed(self, source: Source) -> str:
        """The columns of a source, for people."""
        task = self.task
        preset = None if task is None else preset_of(source, task)
        names = ("text", "text_pair", "label")
        own = [getattr(preset, name, None) if getattr(self, name) is None else getattr(self, name) for name in names]
        return ", ".join(str(column) for column in own if column not in (None, ""))

    def of_labelled_rows(self) -> "Layout":
        """The same for rows that are scored or learned from by their labels alone: without one they are left out."""
        return replace(self, unlabelled="skip") if self.unlabelled == "keep" else self

    def read(
        self,
        source: Source,
        label_names: Sequence[str] | None = None,
        problem: str | None = None,
        num_classes: int | None = None,
    ) -> Examples:
        """The rows of ``source``; what was recognised or left out is said.

        Raises MismatchError if the classes that the user named are not those of the task or ``label_names``, DataError
        if a row cannot be read.

        Args:
            source: a data file, a folder of ``save_to_disk``, ``hub:REPO[:CONFIG]:SPLIT``, or rows in memory.
            label_names: classes in index order; None or empty takes the task's, or what the labels show.
            problem: where no task says it: ``regression`` reads scores though every one happens to be a whole number,
                ``multilabel`` any number of classes though every row happens to have one, ``classification`` lists of
                numbers as distributions. ``tagging`` reads rows of words.
            num_classes: of a model that does not name its classes.
        """
        task = self.task
        names = self.names_of(label_names or (task.labels if task is not None else ()), problem)
        if task is None and problem == "regression" and self.has_label:
            labels = LabelSet("regression")
        elif problem == "tagging":
            labels = LabelSet("tagging", names, num_classes)
        elif task is None and problem == "multilabel":
            labels = LabelSet("multilabel", names, num_classes)
        elif task is None and problem == "classification":
            labels = LabelSet("classification", names, num_classes)
        else:
            labels = LabelSet(None, names, num_classes)
        policy = RowPolicy(self.unlabelled, self.bad_rows or "fail")
        try:
            examples = examples_for(source, task, self._overrides, labels, policy)
        except ColumnError as error:
            raise self._told(error) from None
        if self.memory is not None:
            self.memory.check_pairs(examples)
        for note in examples.reading.notes:
            remark(note)
        if problem is not None and examples.labels is not None and is_other(problem, examples.problem):
            raise MismatchError(
                f"{source} has {ASKED[examples.problem]} a row and {ASKED[problem]} is asked for; give rows of the "
                "same task, or a model of the other kind"
            )
        return examples if self.most_rows is None else examples.first(self.most_rows)

    def check(self, source: Source) -> None:
        """Refuse a source that is not there or has no such columns, by its head: before a model is loaded.

        Raises SpecError if neither a task nor a text column was given, DataError if reading would refuse it, too.
        """
        try:
            check_head(source, columns_of(source, self.task, self._overrides))
        except ColumnError as error:
            raise self._told(error) from None

    @property
    def _overrides(self) -> Overrides:
        return Overrides(self.text, self.text_pair, self.label, self.header)

    @property
    def file_columns(self) -> tuple[str | int, ...]:
        """Columns of text, second text and label, without those that are not read, of a file of rows."""
        return columns_of("a file", self.task, self._overrides).wanted

    def _told(self, error: ColumnError) -> DataError:
        """The same error, with where the columns are from that nobody gave."""
        if self.memory is None or not self.recalls:
            return error
        return DataError(
            f"{error}; the columns are those of {self.memory.where}: name this file's with --task, or with --text, "
            "--text-pair and --label"
        )

    def names_of(self, known: Sequence[str], problem: str | None) -> tuple[str, ...] | None:
        """The classes as the data writes them, in the order of their indices; None where only the data can tell.

        ``known``: as model or task name them; empty where neither does. ``problem``: ``regression`` has none. Raises
        MismatchError if the classes that the user named are not those known, or there are scores.
        """
        task = self.task
        if self.classes is None:
            return tuple(known) or None
        if "regression" in {problem, task.problem if task is not None else None}:
            raise MismatchError(f"--classes {','.join(self.classes)} names classes, and there are scores; leave it out")
        return _as_named(known, self.classes) if known else self.classes

    def read_for(self, model: str, config: Any, source: Source) -> Examples:
        """The rows of ``source``, their labels in the order of a model's classes.

        ``model``: what to call the model in an error. Raises DataError if a row cannot be read; MismatchError if the
        model answers for other classes, for several where the task has one, or gives a score where it has classes.
        """
        problem = problem_of(config)
        require_problem(model, problem, self.task)
        names = class_order(model, config, self.task)
        num_classes = None if problem == "regression" else int(config.num_labels)
        examples = self.read(source, names if self.has_label else None, problem, num_classes)
        _require_same(model, problem, str(source), examples.problem)
        if examples.labels is None:
            if problem == "regression" and self.task is not None and self.task.labels:
                raise MismatchError(
                    f"{model} gives a score and {self.task.name} has "
                    f"{counted(len(self.task.labels), 'class', 'classes')}; give a model "
                    "that was fine-tuned on this task"
                )
            # The model alone tells what its answers mean.
            known = names or class_names(config)
            problem = problem or ("classification" if self.task is None else self.task.problem)
            return replace(examples, problem=problem, label_names=() if problem == "regression" else known)
        outputs = 1 if examples.problem == "regression" else len(examples.label_names)
        require_outputs(
            model, config, str(source), outputs, "a model of this task, or --task or --classes to name the classes"
        )
        return examples

    def read_texts(self, source: Source) -> Examples:
        """The texts of ``source`` alone, a row each: of pairs the first, then the second. No label is read.

        Raises SpecError if a label was asked for, DataError if a row cannot be read.
        """
        if self.label not in (None, ""):
            raise SpecError(
                f"--label {self.label}: the teacher answers no task, and embeddings of texts have no labels; leave it "
                "out"
            )
        return singles(replace(self, label="").read(source))


def require_problem(model: str, problem: str | None, task: Task | None) -> None:
    """Raise MismatchError if a model answers for words and a task does not, or the other way round."""
    if task is not None:
        _require_same(model, problem, task.name, task.problem)


def _require_same(model: str, problem: str | None, other: str, asked: str) -> None:
    if (asked == "tagging") != (problem == "tagging"):
        units = ("word", "row") if problem == "tagging" else ("row", "word")
        raise MismatchError(
            f"{model} answers for each {units[0]}, and {other} asks for each {units[1]}; give a model that was "
            "fine-tuned on such a task"
        )


def class_order(model: str, config: Any, task: Task | None) -> tuple[str, ...] | None:
    """The labels as the data writes them, in the order of the model's classes; None where only the data can tell.

    A model that was saved without names (LABEL_0, ...) is taken to follow the task's order, and so is one whose names
    are not the task's at all, such as NEGATIVE for 0. Names that are the task's only in part tell no order. Raises
    MismatchError if the model and the task differ in kind, in the number of classes, or in the names of some; or the
    model gives several scores of one row.
    """
    require_one_score(model, config)
    if (problem := problem_of(config)) == "regression":
        return None
    names = class_names(config)
    if task is None:
        return None if is_nameless(names) else names
    if len(task.labels) != len(names):
        raise MismatchError(
            f"{model} has {counted(len(names), 'class', 'classes')} and {task.name} has "
            f"{len(task.labels) or 'scores'}; "
            "give a model that was fine-tuned on this task"
        )
    if problem not in {None, task.problem}:
        raise MismatchError(
            f"{model} answers {ASKED[problem]} of a row (problem_type {config.problem_type}) and {task.name} has "
            f"{ASKED[task.problem]}; give a model of such a task"
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
    if not is_nameless(names):
        remark(f"the model's classes {', '.join(names)} are taken for the task's {', '.join(task.labels)}, in order")
    return tuple(task.labels)


def _as_named(known: Sequence[str], classes: tuple[str, ...]) -> tuple[str, ...]:
    """The classes of ``--classes``, once it is seen that they can be those that are ``known`` in index order.

    Raises MismatchError if they are more or fewer, in another order, or only in part the same.
    """
    listed, given = ", ".join(known), ",".join(classes)
    if len(known) != len(classes):
        raise MismatchError(
            f"--classes {given} names {counted(len(classes), 'class', 'classes')} and there are {len(known)}: {listed}"
        )
    ours, theirs = [[folded(name) for name in names] for names in (classes, known)]
    if ours == theirs or is_nameless(known):
        return classes
    if set(ours) & set(theirs):
        raise MismatchError(f"--classes {given}: the classes are {listed}, in this order; give them in the same one")
    remark(f"the classes {listed} are taken for {', '.join(classes)}, in order")
    return classes
