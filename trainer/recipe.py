"""A recipe: stages of training, each with its losses, weights, epochs and schedule."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from hskcache.errors import SpecError
from hskcache.nearest import meant
from hskcache.resources import resource
from hskcache.store.kinds import LOGITS
from hskcache.store.kinds.attention import AttentionScores
from hskcache.store.kinds.hidden import HiddenStates
from hskcache.strict import Extended, Strict, first_problem, parse_yaml

SUFFIXES = (".yaml", ".yml", ".json")

Epochs = Annotated[float, Field(gt=0)]


class Finite(Strict):
    """A strict model whose numbers are numbers."""

    model_config = ConfigDict(allow_inf_nan=False)


class Term(Finite):
    """A term of a stage's loss.

    Settings in ``later`` came after runs were saved without them: they are left out where they are the default, so that
    such runs go on. ``kind`` is the kind of knowledge that it learns from, None of labels, ``needs_task`` whether it is
    about what a classifier answers.
    """

    later: ClassVar[frozenset[str]] = frozenset()
    kind: ClassVar[str | None] = None
    needs_task: ClassVar[bool] = False

    weight: float = Field(default=1.0, gt=0)

    @model_serializer(mode="wrap")
    def _as_ever(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        plain: dict[str, Any] = serialize(self)
        defaults = {name: type(self).model_fields[name].default for name in self.later}
        return {name: value for name, value in plain.items() if name not in defaults or value != defaults[name]}


class StatesTerm(Term):
    """A loss on hidden states [MUD 2.2]: ``missing`` says what a dropped column counts as.

    The projection to the teacher's width is one for all terms and layers that share theirs, or one for each layer.
    """

    later = frozenset({"project_equal_widths"})
    kind: ClassVar[str] = HiddenStates.name

    missing: Literal["zero", "ignore"] = "zero"
    shared_projection: bool = Field(default=True, description="one Linear for all layers, as TinyBERT's release has it")
    project_equal_widths: bool = Field(default=False, description="have one where no width differs, as the release has")


class HiddenTerm(StatesTerm):
    """Hidden-state loss of the layers; ``embedding`` says whether the embedding outputs, layer 0, count here too."""

    embedding: bool = Field(default=True, description="whether the embedding outputs, layer 0, count here too")


class EmbeddingTerm(StatesTerm):
    """Hidden-state loss of the embedding outputs, layer 0, with a weight of its own [TinyBERT 3.1, eq. 9]."""


class AttentionTerm(Term):
    """Attention loss [TinyBERT 3.1, eq. 7]; ``heads`` says which are compared, see ``losses.attention.pair_heads``.

    ``mean`` says what the squared errors are averaged over: the pairs of real tokens, as the paper has it, or as many
    as rows padded to the cache's greatest length would have, as TinyBERT's release does. There this term weighs less
    beside the others the shorter the rows are.
    """

    later = frozenset({"mean"})
    kind: ClassVar[str] = AttentionScores.name

    mean: Literal["real", "padded"] = "real"
    heads: Literal["match", "mean"] | Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = "match"


class SoftTerm(Term):
    """Soft-label loss [TinyBERT 3.1, eq. 10].

    ``temperature_squared`` multiplies it by T^2, so that beside a loss to the labels its gradient is as large at every
    temperature [Hinton et al. 2015, section 2]; the squared error of a regression knows none and stays as it is.
    """

    kind = LOGITS
    needs_task = True

    temperature: float = Field(default=1.0, gt=0)
    temperature_squared: bool = False


class LabelTerm(Term):
    """Loss to the gold labels."""

    needs_task = True


TERMS: dict[str, type[Term]] = {
    "embedding": EmbeddingTerm,
    "hidden": HiddenTerm,
    "attention": AttentionTerm,
    "soft": SoftTerm,
    "label": LabelTerm,
}
"""Terms that a stage may learn from, in the order in which losses are added up."""


class Losses(Extended):
    """The terms of a stage's loss; those left out are not computed."""

    model_config = ConfigDict(allow_inf_nan=False)
    further: ClassVar[Mapping[str, type[BaseModel]]] = TERMS

    embedding: EmbeddingTerm | None = None
    hidden: HiddenTerm | None = None
    attention: AttentionTerm | None = None
    soft: SoftTerm | None = None
    label: LabelTerm | None = None

    @property
    def terms(self) -> dict[str, Term]:
        """Terms that are computed, by name."""
        given = {name: getattr(self, name, None) for name in TERMS}
        return {name: term for name, term in given.items() if term is not None}

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of knowledge that they learn from, each once."""
        return tuple(dict.fromkeys(term.kind for term in self.terms.values() if term.kind is not None))

    @property
    def projected(self) -> bool:
        """True if a term is about states that may be learned through a projection."""
        return any(isinstance(term, StatesTerm) for term in self.terms.values())

    @property
    def needs_task(self) -> bool:
        """True if a term is about what a classifier answers."""
        return any(term.needs_task for term in self.terms.values())

    @model_validator(mode="after")
    def _some(self) -> "Losses":
        if not self.terms:
            *some, last = TERMS
            raise ValueError(f"a stage needs at least one of {', '.join(some)} and {last}")
        if self.embedding is not None and self.hidden is not None and self.hidden.embedding:
            raise ValueError("embedding and hidden both count the embedding outputs; set hidden.embedding to false")
        return self


class Stage(Finite):
    """One run of the optimiser.

    ``select: best`` keeps the evaluation with the best score on the evaluation data, ``last`` the end; evaluated is
    every epoch and, with ``eval_steps``, every so many optimizer steps, too. ``patience`` epochs without a better score
    end the stage early.
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
    def terms(self) -> dict[str, Term]:
        """The terms of all stages by name, in the order in which losses are added up; of one name the last."""
        given = {name: term for stage in self.stages for name, term in stage.losses.terms.items()}
        return {name: given[name] for name in TERMS if name in given}

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of knowledge that any stage learns from."""
        return tuple(dict.fromkeys(term.kind for term in self.terms.values() if term.kind is not None))

    def for_task(self, task: str | None) -> "Recipe":
        """The recipe with the epochs that belong to a task."""
        return self.model_copy(update={"stages": tuple(stage.for_task(task) for stage in self.stages)})

    def evaluated_every(self, steps: int | None) -> "Recipe":
        """The recipe with evaluations every so many steps in all stages that keep the best; None leaves it as it is.

        Raises SpecError if there is no such stage.
        """
        if steps is None:
            return self
        if not any(stage.select == "best" for stage in self.stages):
            # Where no stage answers a task there may be nothing to score.
            scored = [stage.name for stage in self.stages if stage.losses.needs_task]
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
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SpecError(f"--recipe {name_or_file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SpecError(f"--recipe {name_or_file} is not UTF-8 text") from None
    what = f"--recipe {name_or_file}"
    value = parse_yaml(text, what)
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
