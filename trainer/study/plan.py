"""Plans of studies: what a file, a preset or the command line asks for, before any cache is known."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator

from hskcache.errors import SpecError
from hskcache.nearest import meant
from hskcache.resources import resource
from hskcache.strict import Strict, first_problem, parse_yaml, read_text
from trainer.recipe import SUFFIXES

Value = str | int | float | bool
Axes = dict[str, Annotated[list[Value], Field(min_length=1)]]
"""Values by axis; a study has a point for every combination."""

UNNAMED = "study"
"""Name of a study that the command line alone describes."""


class StudyPlan(Strict):
    """A study as it is asked for.

    Attributes:
        name: of the study.
        about: one sentence on what it shows, for the picture.
        note: what has to be known to read the results, said beside the table.
        recipe: that every point is learned by, where no axis says another.
        changes: of the recipes' stages, such as ``hidden.epochs``; in a file the key is ``set``.
        student: where every point begins, where neither an axis nor the command says another.
        seeds: runs of each point, from seed 0 on.
        baseline: name of the point that differences are taken to; None: the first that keeps most.
        labels: whether gold labels alone are learned from, too, for as many epochs.
        logits: whether logits alone are, too, for as many epochs: the point without any hidden state.
        axes: of all points.
        lines: by strategy, axes of its points beside those of all; without any the study is one line.
    """

    name: str = UNNAMED
    about: str = ""
    note: str = ""
    recipe: str = "mud"
    changes: dict[str, Value] = Field(default={}, alias="set")
    student: str | None = None
    seeds: int = Field(default=3, ge=1)
    baseline: str | None = None
    labels: bool = True
    logits: bool = False
    axes: Axes = Field(default={})
    lines: dict[str, Axes] = Field(default={})

    @field_validator("axes", "lines", mode="before")
    @classmethod
    def _as_lists(cls, value: Any) -> Any:
        """One value alone as a list, wherever a list is asked for."""
        if not isinstance(value, dict):
            return value
        return {
            key: cls._as_lists(one) if isinstance(one, dict) else one if isinstance(one, list) else [one]
            for key, one in value.items()
        }

    def with_axes(self, axes: Axes) -> "StudyPlan":
        """The same with axes in place of those of the same name, in all lines; its baseline may be gone with these."""
        if not axes:
            return self
        known = {*self.axes, *(name for own in self.lines.values() for name in own)}
        lines = {line: {name: one for name, one in own.items() if name not in axes} for line, own in self.lines.items()}
        changes: dict[str, Any] = {"axes": {**self.axes, **axes}, "lines": lines}
        return self.model_copy(update=changes | ({"baseline": None} if known & set(axes) else {}))


def known_studies() -> list[str]:
    """Names of the studies that ship."""
    return sorted(path.stem for path in resource("studies").glob("*.yaml"))


def load_plan(name_or_file: str | None, axes: Sequence[str] = ()) -> StudyPlan:
    """A study that ships, by name, one in a file, or one of axes alone.

    Args:
        name_or_file: None: of axes alone.
        axes: each ``NAME=VALUE,VALUE``.

    Raises:
        SpecError: there is no such study, its file is malformed, or there are neither axes nor a study.
    """
    given = dict(map(_axis, axes))
    if len(given) < len(axes):
        raise SpecError("--axis gives one axis twice; give all its values at once, as in --axis view=1l_1t,1l_5t")
    if name_or_file is None:
        if not given:
            known = ", ".join(known_studies())
            raise SpecError(f"give a study, {known} or a .yaml file, or axes as in --axis view=1l_1t,1l_5t")
        return StudyPlan().with_axes(given)
    path, what = Path(name_or_file), f"study {name_or_file}"
    if path.suffix not in SUFFIXES:
        known_names = known_studies()
        if name_or_file not in known_names:
            near = meant(name_or_file, known_names)
            raise SpecError(f"study {name_or_file!r} is none of {', '.join(known_names)}, nor a .yaml file{near}")
        path = resource("studies", f"{name_or_file}.yaml")
    value = parse_yaml(read_text(path, what, f"give one of {', '.join(known_studies())}, or a .yaml file"), what)
    if isinstance(value, dict):
        value.setdefault("name", path.stem)
    try:
        return StudyPlan.model_validate(value).with_axes(given)
    except ValidationError as error:
        raise SpecError(f"{what}: {first_problem(error, StudyPlan)}") from None


def _axis(text: str) -> tuple[str, list[Value]]:
    name, equals, values = text.partition("=")
    listed: list[Value] = [value for value in values.split(",") if value]
    if not equals or not name or not listed:
        raise SpecError(f"--axis {text!r} is not of the form NAME=VALUE,VALUE, such as view=1l_1t_0.05h,1l_5t_0.05h")
    return name, listed
