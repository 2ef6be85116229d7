"""A recipe: stages of training, each with its losses, weights, epochs and schedule."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from hskcache.errors import SpecError
from hskcache.nearest import meant
from hskcache.resources import resource
from hskcache.strict import first_problem, parse_yaml, read_text
from trainer.terms import (
    TERMS,
    AttentionTerm,
    EmbeddedTerm,
    EmbeddingTerm,
    Finite,
    GoldTerm,
    HiddenTerm,
    LabelTerm,
    Losses,
    NextTerm,
    SentenceTerm,
    SimilarityTerm,
    SoftTerm,
    StatesTerm,
    Term,
)

__all__ = [
    "TERMS",
    "AttentionTerm",
    "EmbeddedTerm",
    "EmbeddingTerm",
    "GoldTerm",
    "HiddenTerm",
    "LabelTerm",
    "Losses",
    "NextTerm",
    "Recipe",
    "SentenceTerm",
    "SimilarityTerm",
    "SoftTerm",
    "Stage",
    "StatesTerm",
    "Term",
    "known_recipes",
    "load_recipe",
]

SUFFIXES = (".yaml", ".yml", ".json")

Epochs = Annotated[float, Field(gt=0)]


class Stage(Finite):
    """One run of the optimiser.

    ``select: best`` keeps the evaluation with the best score on the evaluation data, ``last`` the end; evaluated is
    every epoch and, with ``eval_steps``, every so many optimizer steps, too. ``patience`` epochs without a better score
    end the stage early.

    Attributes:
        name: lower-case letters, digits and dashes; ``name.setting`` changes a setting.
        losses: the terms that are added up.
        epochs: passes over the rows; parts of one as well.
        epochs_by_task: by the name of a task, the epochs in place of ``epochs``.
        learning_rate: of AdamW at its peak.
        batch_size: rows of a global batch.
        schedule: how the learning rate goes on from its peak: ``constant``, or to 0, ``linear`` or as a ``cosine``.
        weight_decay: of AdamW, biases and norms excepted.
        max_grad_norm: norm that gradients are clipped to, over all parameters; 0 clips none.
        select: weights that are kept: those of the ``best`` evaluation or the ``last``.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    losses: Losses
    epochs: Epochs
    epochs_by_task: dict[str, Epochs] = Field(default={})
    learning_rate: float = Field(default=5e-5, gt=0)
    batch_size: int = Field(default=32, ge=1)
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    warmup: float = Field(default=0.0, ge=0, lt=1, description="share of the steps")
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, ge=0)
    select: Literal["best", "last"] = "last"
    patience: int | None = Field(default=None, ge=1, description="epochs")
    eval_steps: int | None = Field(default=None, ge=1, description="None: evaluated is every epoch alone")

    @model_validator(mode="after")
    def _selects(self) -> "Stage":
        for key in ("patience", "eval_steps"):
            if getattr(self, key) is not None and self.select != "best":
                raise ValueError(f"{key} needs select: best")
        return self

    def for_task(self, task: str | None) -> "Stage":
        """The stage with the epochs that belong to a task."""
        epochs = self.epochs_by_task.get(task or "", self.epochs)
        return self.model_copy(update={"epochs": epochs, "epochs_by_task": {}})


class Recipe(Finite):
    """Stages in order; each goes on with the student of the one before.

    Attributes:
        name: for people.
        stages: at least one, each with another name.
    """

    name: str
    stages: tuple[Stage, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _unique(self) -> "Recipe":
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError("two stages have the same name")
        return self

    @property
    def terms(self) -> dict[str, Term]:
        """The terms of all stages by name, in the order in which losses are added up; of one name the last."""
        given = {name: term for stage in self.stages for name, term in stage.losses.terms.items()}
        return {name: given[name] for name in TERMS if name in given}

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of knowledge that any stage learns from."""
        return tuple(dict.fromkeys(term.kind for term in self.terms.values() if term.kind is not None))

    def scored(self) -> "Recipe":
        """The same where students can be scored: of stages that learn embeddings or next tokens the best are kept.

        So it is where a stage says nothing of it.
        """
        stages = (
            stage.model_copy(update={"select": "best"})
            if (stage.losses.embeds or stage.losses.needs_language) and "select" not in stage.model_fields_set
            else stage
            for stage in self.stages
        )
        return self.model_copy(update={"stages": tuple(stages)})

    def for_task(self, task: str | None) -> "Recipe":
        """The recipe with the epochs that belong to a task."""
        return self.model_copy(update={"stages": tuple(stage.for_task(task) for stage in self.stages)})

    def evaluated_every(self, steps: int | None) -> "Recipe":
        """The same with evaluations every so many steps, None: as it is. Raises SpecError without such a stage."""
        if steps is None:
            return self
        if not any(stage.select == "best" for stage in self.stages):
            # Where no stage answers a task or gives embeddings there may be nothing to score.
            scored = [stage.name for stage in self.stages if stage.losses.needs_task or stage.losses.embeds]
            raise SpecError(
                f"--eval-steps {steps}: no stage of recipe {self.name!r} keeps its best weights; leave it out"
                + (f", or give --set {scored[-1]}.select=best" if scored else "")
            )
        chosen = {stage.name: {"eval_steps": steps} if stage.select == "best" else {} for stage in self.stages}
        stages = tuple(stage.model_copy(update=chosen[stage.name]) for stage in self.stages)
        return self.model_copy(update={"stages": stages})


def known_recipes() -> list[str]:
    """Names of the recipes that ship."""
    return sorted(path.stem for path in resource("recipes").glob("*.yaml"))


def load_recipe(name_or_file: str, changes: Sequence[str] = ()) -> Recipe:
    """A recipe that ships, by name, or one in a file, with changes such as ``prediction.epochs=3``.

    Raises SpecError for unknown name, malformed file, or a change to a setting that does not exist.
    """
    path = Path(name_or_file)
    if path.suffix not in SUFFIXES:
        if name_or_file not in known_recipes():
            known = known_recipes()
            near = meant(name_or_file, known)
            raise SpecError(f"--recipe {name_or_file!r} is none of {', '.join(known)}, nor a .yaml file{near}")
        path = resource("recipes", f"{name_or_file}.yaml")
    what = f"--recipe {name_or_file}"
    value = parse_yaml(read_text(path, what, f"give one of {', '.join(known_recipes())}, or a .yaml file"), what)
    recipe = _validated(value, what)
    for change in changes:
        _apply(value, change, [stage.name for stage in recipe.stages])
    # Together: one change may need another, as patience needs select=best.
    return _validated(value, " ".join([what, *(f"--set {change}" for change in changes)]))


def _validated(value: Any, what: str) -> Recipe:
    try:
        # By way of JSON, in which pydantic takes a list for a tuple and a whole number for a float.
        return Recipe.model_validate_json(json.dumps(value))
    except ValidationError as error:
        raise SpecError(f"{what}: {first_problem(error, Recipe)}") from None
    except (TypeError, ValueError) as error:
        raise SpecError(f"{what}: {error}") from None


def _apply(recipe: dict[str, Any], change: str, stages: list[str]) -> None:
    """Carry out ``stage.key=value``; ``key`` may go down, as in ``hidden.losses.hidden.missing=ignore``."""
    path, equals, text = change.partition("=")
    stage, *keys = path.split(".")
    if not equals or not keys or not all(keys):
        raise SpecError(f"--set {change!r} is not of the form stage.setting=value, such as prediction.epochs=3")
    if stage not in stages:
        near = meant(stage, stages)
        raise SpecError(f"--set {change!r}: the recipe has no stage {stage!r}; it has {', '.join(stages)}{near}")
    target = recipe["stages"][stages.index(stage)]
    for key in keys[:-1]:
        target = target.setdefault(key, {})
        if not isinstance(target, dict):
            raise SpecError(f"--set {change!r}: {key!r} has no settings below it")
    target[keys[-1]] = parse_yaml(text, f"--set {change!r}")
    if keys == ["epochs"]:
        target.pop("epochs_by_task", None)
