"""Recipes that a recipe is read beside: gold labels alone, and logits alone, for as many epochs in all."""

from collections.abc import Sequence

from hskcache.errors import SpecError
from hskcache.nearest import meant
from trainer.recipe import Recipe, load_recipe

LABELS, SOFT = "labels alone", "logits"
_OTHERS = {LABELS: "labels", SOFT: "logits"}


def own_changes(changes: Sequence[str], recipe: str) -> list[str]:
    """Those of some changes whose stage a recipe has."""
    stages = {stage.name for stage in load_recipe(recipe).stages}
    return [change for change in changes if change.partition(".")[0] in stages]


def check_changes(changes: Sequence[str], recipes: Sequence[str], what: str) -> None:
    """Raise unless every change is of a stage that some of the recipes has.

    Args:
        changes: as ``--set`` takes them.
        recipes: by name or file; those for labels and logits are known beside them.
        what: nothing of which has the stage, such as ``side``.

    Raises:
        SpecError: one is not; names the nearest stage.
    """
    named = dict.fromkeys(
        stage.name for recipe in (*recipes, *_OTHERS.values()) for stage in load_recipe(recipe).stages
    )
    for change in changes:
        if (stage := change.partition(".")[0]) not in named:
            near = meant(stage, named)
            raise SpecError(f"--set {change!r}: no {what} has a stage {stage!r}; they have {', '.join(named)}{near}")


def recipe_for(recipe: str, changes: Sequence[str], task: str | None) -> Recipe:
    """A recipe with those of the changes that are of its stages, and the epochs of a task."""
    return load_recipe(recipe, own_changes(changes, recipe)).for_task(task)


def recipes_beside(recipe: str, changes: Sequence[str], task: str | None) -> dict[str, Recipe]:
    """Recipes for labels alone and for logits alone, which are learned from for as many epochs as the recipe has.

    Epochs that are changed of a stage that both have are the recipe's, and the other has as many as that has in all.
    """
    whole = recipe_for(recipe, changes, task)
    of_whole = {f"{stage.name}.epochs" for stage in whole.stages}
    epochs, found = sum(stage.epochs for stage in whole.stages), {}
    for side, name in _OTHERS.items():
        own = [change for change in own_changes(changes, name) if change.partition("=")[0] not in of_whole]
        found[side] = load_recipe(name, [f"{load_recipe(name).stages[0].name}.epochs={epochs:g}", *own])
    return found
