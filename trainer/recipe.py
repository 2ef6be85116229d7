"""A recipe: stages of training, each with its losses, weights, epochs and schedule."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from hskcache.errors import SpecError
from hskcache.resources import resource
from hskcache.spec import Strict, first_problem

SUFFIXES = (".yaml", ".yml", ".json")


class HiddenTerm(Strict):
    """Hidden-state loss [MUD 2.2]: ``missing`` says what a dropped column counts as."""

    weight: float = Field(default=1.0, gt=0)
    missing: Literal["zero", "ignore"] = "zero"
    shared_projection: bool = Field(default=True, description="one Linear for all layers, as TinyBERT's release has it")


class SoftTerm(Strict):
    """Soft-label loss [TinyBERT 3.1, eq. 10]."""

    weight: float = Field(default=1.0, gt=0)
    temperature: float = Field(default=1.0, gt=0)


class LabelTerm(Strict):
    """Loss to the gold labels."""

    weight: float = Field(default=1.0, gt=0)


class Losses(Strict):
    """The terms of a stage's loss; those left out are not computed."""

    hidden: HiddenTerm | None = None
    soft: SoftTerm | None = None
    label: LabelTerm | None = None

    @model_validator(mode="after")
    def _some(self) -> "Losses":
        if self.hidden is None and self.soft is None and self.label is None:
            raise ValueError("a stage needs at least one of hidden, soft and label")
        return self


class Stage(Strict):
    """One run of the optimiser.

    ``select: best`` keeps the epoch with the best score on the evaluation data, ``last`` the last one;
    ``patience`` epochs without a better score end the stage early.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    losses: Losses
    epochs: float = Field(gt=0)
    epochs_by_task: dict[str, float] = Field(default={})
    learning_rate: float = Field(default=5e-5, gt=0)
    batch_size: int = Field(default=32, ge=1)
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    warmup: float = Field(default=0.0, ge=0, lt=1, description="share of the steps")
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, ge=0)
    select: Literal["best", "last"] = "last"
    patience: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _patience(self) -> "Stage":
        if self.patience is not None and self.select != "best":
            raise ValueError("patience needs select: best")
        return self

    def for_task(self, task: str | None) -> "Stage":
        """The stage with the epochs that belong to a task."""
        epochs = self.epochs_by_task.get(task or "", self.epochs)
        return self.model_copy(update={"epochs": epochs, "epochs_by_task": {}})


class Recipe(Strict):
    """Stages in order; each goes on with the student of the one before."""

    name: str
    stages: tuple[Stage, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _unique(self) -> "Recipe":
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError("two stages have the same name")
        return self

    @property
    def needs_hidden(self) -> bool:
        """Whether any stage trains on hidden states."""
        return any(stage.losses.hidden is not None for stage in self.stages)

    @property
    def needs_labels(self) -> bool:
        """Whether any stage trains on gold labels."""
        return any(stage.losses.label is not None for stage in self.stages)


def known_recipes() -> list[str]:
    """Names of the recipes that ship."""
    return sorted(path.stem for path in resource("recipes").glob("*.yaml"))


def load_recipe(name_or_file: str, changes: Sequence[str] = (), task: str | None = None) -> Recipe:
    """A recipe that ships, by name, or one in a file, with changes such as ``prediction.epochs=3``.

    Raises:
        SpecError: unknown name, malformed file, or a change to a setting that does not exist.
    """
    import yaml

    path = Path(name_or_file)
    if path.suffix not in SUFFIXES:
        path = resource("recipes", f"{name_or_file}.yaml")
        if name_or_file not in known_recipes():
            raise SpecError(f"--recipe {name_or_file!r} is none of {', '.join(known_recipes())}, nor a .yaml file")
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
        for change in changes:
            _apply(value, change)
        recipe = Recipe.model_validate_json(_json(value))
    except OSError as error:
        raise SpecError(f"--recipe {name_or_file}: {error.strerror}") from None
    except ValidationError as error:
        raise SpecError(f"recipe {name_or_file}: {first_problem(error)}") from None
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError) as error:
        raise SpecError(f"recipe {name_or_file} is malformed: {' '.join(str(error).split())}") from None
    return recipe.model_copy(update={"stages": tuple(stage.for_task(task) for stage in recipe.stages)})


def _json(value: Any) -> str:
    import json

    return json.dumps(value)


def _apply(recipe: dict[str, Any], change: str) -> None:
    """Carry out ``stage.key=value``; ``key`` may go down, as in ``hidden.losses.hidden.missing=ignore``."""
    import yaml

    path, equals, text = change.partition("=")
    stage_name, *keys = path.split(".")
    stages = {stage["name"]: stage for stage in recipe["stages"]}
    if not equals or not keys:
        raise SpecError(f"--set {change!r} is not of the form stage.setting=value, such as prediction.epochs=3")
    if stage_name not in stages:
        raise SpecError(f"--set {change!r}: the recipe has no stage {stage_name!r}; it has {', '.join(stages)}")
    target = stages[stage_name]
    for key in keys[:-1]:
        target = target.setdefault(key, {})
        if not isinstance(target, dict):
            raise SpecError(f"--set {change!r}: {key!r} has no settings below it")
    target[keys[-1]] = yaml.safe_load(text)
    if keys == ["epochs"]:
        target.pop("epochs_by_task", None)
