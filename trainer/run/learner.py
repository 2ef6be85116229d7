"""Learner: a student and the projections that it learns through, from stage to stage and from run to run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from hskcache.encoder import weights_digest
from hskcache.errors import MismatchError
from hskcache.model.load import folder_of, load_again
from trainer.losses.matches import Matches
from trainer.recipe import Losses, Recipe, Stage
from trainer.source.projections import (
    FILE,
    REMEDY,
    SHARED,
    Projections,
    Widths,
    described,
    load,
    needed,
    published,
    widths_of,
)
from trainer.student.origin import has_no_weights

_STATES = ("embedding", "hidden")


@dataclass(frozen=True)
class Projecting:
    """Projections that a run begins with, and their fate.

    ``taken``: those that the student brings and the run learns through; ``fresh``: draw them anew in every stage;
    ``exported``: save them beside the student that comes of the run; ``initial``: those that follow from what is
    learned, where the student brings none.
    """

    taken: Projections = field(default_factory=dict)
    fresh: bool = False
    exported: bool = True
    initial: Projections = field(default_factory=dict)

    @property
    def identity(self) -> dict[str, str]:
        """Facts of this that decide the result; none where a run begins as all did before projections were kept."""
        if self.fresh:
            return {"projection": "fresh"}
        return {"projection": weights_digest(nn.ModuleDict(self.taken))} if self.taken else {}


@dataclass
class Learner:
    """A student and the projections that it has learned through so far, by name; both are trained in place."""

    student: PreTrainedModel
    projections: dict[str, nn.Linear]

    def again(self, folder: Path, device: torch.device) -> "Learner":
        """The same as a stage left it. Raises TeacherError, DamageError if the folder does not hold what was saved."""
        remedy = f"delete {folder.parent} and run the same command again"
        return Learner(load_again(self.student, folder).to(device), load_beside(folder, remedy))


def load_beside(folder: Path, remedy: str = REMEDY) -> dict[str, nn.Linear]:
    """The projections beside a student's weights, if any.

    ``remedy``: what to do where they cannot be read. Raises DamageError if there is a file of them that cannot be read.
    """
    return load(folder / FILE, remedy) if (folder / FILE).is_file() else {}


def projections_of(source: str) -> dict[str, nn.Linear]:
    """The projections that a student to begin with brings along; none of a shape.

    ``source``: name, config.json, folder or hub id. Raises DamageError, TeacherError if there are some that cannot be
    read.
    """
    if has_no_weights(source) or (folder := folder_of(source, FILE)) is None:
        return {}
    return load_beside(folder) or published(folder)


def take_up(
    source: str, held: Projections, recipe: Recipe, matches: Matches, student: PreTrainedModel
) -> dict[str, nn.Linear]:
    """The projections of a student that a run goes on with: all of them where it learns through any, else none.

    ``held``: what it brings. Raises MismatchError if they are of other widths or layers than those that the run learns
    through.
    """

    def needs(losses: Losses) -> dict[str, Widths]:
        return needed(losses, matches, student.config.hidden_size)

    stages = [stage for stage in recipe.stages if needs(stage.losses)]
    if not stages or not held:
        return {}
    widths = {name: widths_of(projection) for name, projection in held.items()}
    for stage in stages:
        _check_widths(source, widths, needs(stage.losses))
    _check_layers(source, widths, stages[0], needs)
    return dict(held)


def left_behind(
    source: str, held: Projections, recipe: Recipe, matches: Matches, student: PreTrainedModel
) -> str | None:
    """Warning that a run learns past projections that would fit it, as student and teacher are equally wide.

    The student's states mean something to the teacher by way of them, so that what is to be matched without them is
    far off. None where there are none such. Arguments are those of :func:`take_up`.
    """
    widths = {name: widths_of(projection) for name, projection in held.items()}
    for shared in (True, False):
        change = {"project_equal_widths": True, "shared_projection": shared}
        stages = [_changed(stage, change) for stage in recipe.stages if stage.losses.projected]
        wanted = [needed(losses, matches, student.config.hidden_size) for losses, _ in stages]
        if any(wanted) and all(needs.items() <= widths.items() for needs in wanted):
            settings = " ".join(setting for _, settings in stages for setting in settings)
            return (
                f"the projection of {source} ({described(held, widths)}) is left behind: recipe {recipe.name!r} "
                f"compares student and teacher, which are equally wide, without one; {settings} goes on with it"
            )
    return None


def told(stage: str, projections: Projections, held: Projections, began: Projecting | None = None) -> str:
    """Line on which of a stage's projections are taken up and which drawn.

    ``began``: what the first stage begins with; None of later ones.
    """
    widths = {name: widths_of(projection) for name, projection in projections.items()}
    initial = set() if began is None else (began.initial.keys() - began.taken.keys()) & widths.keys() & held.keys()
    taken, drawn = [name for name in widths if name in held], [name for name in widths if name not in held]
    taken = [name for name in taken if name not in initial]
    parts = [f"begins with the directions of the teacher's vectors ({described(initial, widths)})"] if initial else []
    if taken:
        parts.append(f"goes on with the student's projection ({described(taken, widths)})")
    if drawn:
        parts.append(f"draws a new projection ({described(drawn, widths)})")
    return f"{stage}: {' and '.join(parts)}"


def _check_widths(source: str, held: Mapping[str, Widths], wanted: Mapping[str, Widths]) -> None:
    for name, widths in wanted.items():
        if name in held and held[name] != widths:
            raise MismatchError(
                f"the projection of {source} is {held[name]} and this student learns through one of {widths}; give "
                "--projection fresh to draw a new one, or learn from the teacher that it was made for"
            )


def _check_layers(source: str, held: Mapping[str, Widths], stage: Stage, needs: Callable[[Losses], Any]) -> None:
    wanted = needs(stage.losses)
    if wanted.keys() <= held.keys():
        return
    other, settings = _changed(stage, {"shared_projection": SHARED not in wanted})
    change = "give --projection fresh to draw it anew"
    if needs(other).keys() <= held.keys():
        change += f", or {' '.join(settings)}"
    raise MismatchError(
        f"{source} brings a projection of {described(held, held)}, and stage {stage.name!r} learns through "
        f"{described(wanted, wanted)}; {change}"
    )


def _changed(stage: Stage, change: Mapping[str, bool]) -> tuple[Losses, list[str]]:
    """The losses of a stage with other settings of the terms on hidden states, and the flags that make them so."""
    terms = {name: term for name in _STATES if (term := getattr(stage.losses, name)) is not None}
    flags = [
        f"--set {stage.name}.losses.{name}.{key}={str(value).lower()}"
        for name, term in terms.items()
        for key, value in change.items()
        if getattr(term, key) != value
    ]
    others = {name: term.model_copy(update=change) for name, term in terms.items()}
    return stage.losses.model_copy(update=others), flags
