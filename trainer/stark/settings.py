"""Settings of a run over levels of sparsity."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from hskcache.describe import DESCRIPTIONS
from hskcache.errors import SpecError
from hskcache.sparsity.levels import check_balance, level_name, parse_levels
from hskcache.store.kinds import LOGITS
from hskcache.text.layout import Layout
from trainer.recipe import Recipe
from trainer.run.request import FitRequest, FromCache, Machine

KNOWLEDGE = "knowledge"
"""The method: expressive and student-friendly scores together [StarK 3.2]."""

OTHERS = ("plain", "magnitude", "random")
"""Ways to rank that it can be compared with: expressive scores alone, sizes of weights, chance."""

_FOLDER = re.compile(rf"(?:({'|'.join(OTHERS)})-)?s([0-9]{{1,2}})")


class Level(NamedTuple):
    """A teacher of one sparsity and its student; without sparsity it is the dense one, whatever the method."""

    method: str
    percent: int

    @property
    def folder(self) -> str:
        """Folder of its student, in ``OUT/levels``."""
        name = level_name(self.percent)
        return name if self.method == KNOWLEDGE else f"{self.method}-{name}"

    @property
    def field(self) -> str:
        """Field of the cache with its teacher's logits."""
        return LOGITS if self.percent == 0 else self.folder


DENSE = Level(KNOWLEDGE, 0)
"""The trial, which is level 0 of every method: its teacher is the dense one and rewinding makes it the same run."""


def levels_of(percents: Sequence[int], others: Sequence[str]) -> tuple[Level, ...]:
    """The levels above 0, in the order in which they are trained: those of the method first."""
    above = [percent for percent in percents if percent > 0]
    return tuple(Level(method, percent) for method in (KNOWLEDGE, *others) for percent in above)


def level_of(folder: str) -> Level | None:
    """The level whose student is in a folder of this name; None where it is none of ours."""
    match = _FOLDER.fullmatch(folder)
    return Level(match[1] or KNOWLEDGE, int(match[2])) if match is not None else None


def parse_percents(text: str) -> tuple[int, ...]:
    """Read ``10,30,50`` or ``0,10,...,90``, and add 0. Raises SpecError as :func:`parse_levels` does."""
    return tuple(sorted({0, *parse_levels(text)}))


def parse_methods(text: str, flag: str = "--compare") -> tuple[str, ...]:
    """Read ``plain,random`` or nothing. Raises SpecError, which names ``flag``, for one unknown or twice."""
    names = tuple(text.split(",")) if text else ()
    for place, name in enumerate(names):
        if name not in OTHERS:
            raise SpecError(f"{flag} {text!r}: {name!r} is no way to rank; give some of {','.join(OTHERS)}")
        if name in names[:place]:
            raise SpecError(f"{flag} {text!r} names {name} twice; give each once")
    return names


def soft_temperature(recipe: Recipe) -> float:
    """The temperature at which a recipe's student learns from logits, the last stage's where several do.

    Raises SpecError if it learns from something else than logits and labels, or not from logits.
    """
    for stage in recipe.stages:
        if others := [kind for kind in stage.losses.kinds if kind != LOGITS]:
            raise SpecError(
                f"stage {stage.name!r} of recipe {recipe.name!r} learns from {DESCRIPTIONS[others[0]].noun}, and of "
                "sparse teachers there are logits alone; use --recipe stark or logits"
            )
    soft = [stage.losses.soft for stage in recipe.stages if stage.losses.soft is not None]
    if not soft:
        raise SpecError(
            f"recipe {recipe.name!r} does not learn from logits, so every teacher would give the same student; use "
            "--recipe stark or logits"
        )
    return soft[-1].temperature


@dataclass(frozen=True)
class Data:
    """The rows, and which are for what.

    Attributes:
        train: what the student learns from.
        evaluation: what scores it, and so chooses its epoch, where the recipe selects the best, and the level.
        scoring: what scores heads and neurons; None takes some of ``train``. Taken from ``evaluation``, heads and
            neurons would be a third choice by the rows that the figure at the end is reported on.
        scoring_rows: as many of them, drawn at random; None takes all of ``scoring``, or as many of ``train`` as there
            are in ``evaluation``.
    """

    train: str
    evaluation: str
    scoring: str | None
    scoring_rows: int | None
    layout: Layout


@dataclass(frozen=True)
class Stark:
    """A run, apart from its folder. Raises SpecError if the balance is not a number from 0 to 1.

    Attributes:
        teacher: the dense one, folder or hub id.
        student: where every student starts: a name, config.json, folder or hub id.
        recipe: that every student is trained by.
        percents: levels of sparsity; 0 is always one.
        others: ways to rank beside the method, of OTHERS.
        balance: weight of the expressive scores, in [0, 1]; the student-friendly ones have the rest [StarK 3.2].
        batch_size: rows of a batch whose gradients are summed up as one in scoring.
        seed: of all that is drawn.
        metric: that was chosen to pick the best evaluation and the best level; None: the task's.
    """

    teacher: str
    student: str
    data: Data
    recipe: Recipe
    percents: tuple[int, ...]
    others: tuple[str, ...]
    balance: float
    max_length: int
    batch_size: int
    seed: int
    machine: Machine
    metric: str | None = None

    def __post_init__(self) -> None:
        check_balance(self.balance)

    @property
    def temperature(self) -> float:
        """Temperature of the student-friendly scores: the recipe's."""
        return soft_temperature(self.recipe)

    @property
    def levels(self) -> tuple[Level, ...]:
        """Levels above 0."""
        return levels_of(self.percents, self.others)

    def request(self, level: Level, cache: Path) -> FitRequest:
        """The run that trains the student of a level from its field of a cache."""
        return FitRequest(
            source=FromCache(cache, () if level == DENSE else (level.field,)),
            student=self.student,
            recipe=self.recipe,
            eval_data=(self.data.evaluation,),
            layout=self.data.layout,
            metric=self.metric,
            seed=self.seed,
        )
