"""Task presets: which columns a known data set has, what its labels are and how it is scored."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from hskcache.classes import Problem
from hskcache.errors import SpecError
from hskcache.nearest import meant
from hskcache.resources import resource
from hskcache.strict import Strict, first_problem, parse_yaml, read_text
from hskcache.text.table import Columns


class HubLayout(Strict):
    """The column names of the same task on the hub, where they differ from its files'."""

    text: str
    text_pair: str | None = None
    label: str = "label"


class Task(Strict):
    """Preset by which one data set is read and scored.

    ``labels`` are the classes as the files write them, in the order of class indices; a regression has none.
    The first of ``metrics`` picks the best checkpoint.
    """

    name: str
    text: str | int
    text_pair: str | int | None = None
    label: str | int
    header: bool | None = Field(default=None, description="None: the file decides")
    problem: Problem
    labels: list[str] = Field(default=[])
    separator: str | None = Field(default=None, min_length=1, description="between the classes of a row; None: found")
    metrics: list[str] = Field(min_length=1)
    max_length: int | None = Field(default=None, ge=3, description="tokens of a row at most; None: not known")
    copies: int | None = Field(default=None, ge=1, description="of a row that augmentation adds; None: not known")
    hub: HubLayout | None = Field(default=None, description="None: the columns are called as in the files")

    @model_validator(mode="after")
    def _check_labels(self) -> "Task":
        if self.problem == "regression" and self.labels:
            raise ValueError("a regression has scores, not labels; leave labels out")
        if self.problem in {"classification", "tagging"} and len(set(self.labels)) != max(2, len(self.labels)):
            raise ValueError(f"labels of a {self.problem} are at least two, each named once")
        if self.problem == "multilabel" and len(set(self.labels)) != max(1, len(self.labels)):
            raise ValueError("labels of a multilabel task are named, each once")
        if self.separator is not None and self.problem != "multilabel":
            raise ValueError("separator stands between several classes of a row; give it with problem: multilabel")
        return self

    @property
    def columns(self) -> Columns:
        """Columns of the task's files."""
        return Columns(self.text, self.text_pair, self.label, self.header)

    @property
    def hub_columns(self) -> Columns:
        """Columns of the task's data set on the hub."""
        return self.columns if self.hub is None else Columns(self.hub.text, self.hub.text_pair, self.hub.label)


def task_names() -> list[str]:
    """Names of the presets, sorted."""
    return sorted(path.stem for path in resource("tasks").glob("*.yaml"))


def load_task(name: str) -> Task:
    """A task by its name, or of a .yaml file. Raises SpecError if there is none such, or it describes no task."""
    if name.endswith((".yaml", ".yml")):
        return _parse_task(Path(name))
    known = task_names()
    if name not in known:
        near = meant(name, known)
        raise SpecError(f"{name!r} is not a task; the tasks are {', '.join(known)}; give one, or a .yaml file{near}")
    return _parse_task(resource("tasks", f"{name}.yaml"))


def _parse_task(path: Path) -> Task:
    text = read_text(path, str(path), "give a task's name or a .yaml file that describes one")
    value = parse_yaml(text, str(path))
    if not isinstance(value, Mapping):
        raise SpecError(f"{path} is not a mapping; give keys such as text, label and problem, as the presets do")
    return parse_task(value, str(path))


def parse_task(value: Mapping[str, Any], what: str) -> Task:
    """A task from its keys; ``what`` names it in an error. Raises SpecError if they do not describe a task."""
    try:
        return Task.model_validate(value)
    except ValidationError as error:
        raise SpecError(f"{what}: {first_problem(error, Task)}") from None
