"""A term of a stage's loss: which layers it compares, and how."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hskcache.attention import scores_between
from hskcache.errors import MismatchError
from hskcache.selection.depth import LayerPair
from trainer.batch import Batch
from trainer.losses.matches import Matches
from trainer.losses.speech import Final
from trainer.recipe import Term

Settings = TypeVar("Settings", bound=Term)
Target = TypeVar("Target")


class Attentions:
    """Queries and keys of every self-attention of one forward pass, in the order of the layers."""

    def __init__(self) -> None:
        self.layers: list[tuple[Tensor, Tensor, float]] = []

    def __call__(self, query_BHLd: Tensor, key_BHLd: Tensor, _mask: Tensor | None, scaling: float) -> None:
        """Listen."""
        self.layers.append((query_BHLd, key_BHLd, scaling))

    def scores(self, layer: int, positions_BK: Tensor) -> Tensor:
        """Scores [B, H, K, K] of a layer, counted from 1, between some positions of each row, and of no others."""
        query_BHLd, key_BHLd, scaling = self.layers[layer - 1]
        return scores_between(query_BHLd, key_BHLd, positions_BK, scaling)


class Seen(NamedTuple):
    """View of one forward pass that a term is given.

    Attributes:
        output: of the student, as transformers gives it.
        attentions: of its layers, where a term listens to them.
        batch: what it read, with the targets.
        matches: which layers learn from which.
        num_heads: attention heads of the student.
        is_multilabel: whether the student answers each class by itself.
        projection: leads a student's layer, or None: its vector of a row, to the teacher's width; None where nothing
            does.
        final: what a language model ends in; None of other students.
    """

    output: Any
    attentions: Attentions
    batch: Batch
    matches: Matches
    num_heads: int
    is_multilabel: bool
    projection: Callable[[LayerPair | None, Term], nn.Linear | None]
    final: Final | None = None


class WeightedSum(NamedTuple):
    """Weighted sum of terms.

    Attributes:
        total: scalar with gradients.
        terms: each without its weight and without gradient, by name, to be logged.
    """

    total: Tensor
    terms: dict[str, Tensor]


class Computation:
    """Computation of the terms of a loss that have it in common; an object for each way in which terms are computed."""

    def summed(self, terms: Mapping[str, "tuple[Any, Term]"], seen: Seen) -> WeightedSum:
        """Sum of terms, each with its settings, by name."""
        raise NotImplementedError


class Separately(Computation):
    """Each term by itself."""

    def summed(self, terms: Mapping[str, "tuple[Any, Term]"], seen: Seen) -> WeightedSum:
        """Sum of :meth:`LossTerm.loss`."""
        losses = {name: (settings.weight, term.loss(settings, seen)) for name, (term, settings) in terms.items()}
        total = torch.stack([weight * loss for weight, loss in losses.values()]).sum()
        return WeightedSum(total, {name: loss.detach() for name, (_, loss) in losses.items()})


SEPARATELY = Separately()


class LossTerm(Generic[Settings]):
    """Computation of one term of a recipe. An object of it stands in the table under the term's name.

    Attributes:
        sees_states: whether the student must give its hidden states.
        listens: whether the queries and keys of its attention must be seen.
        has_layers: whether it compares pairs of layers.
        what: it learns from, in words, where a pair of layers is missing; empty: what its kind holds.
        keep: options of a build that keeps what it learns from.
        setting: that decides what :meth:`check` may refuse; empty where it refuses nothing.
        computation: way in which it is computed, together with whichever terms have the same.
    """

    sees_states: ClassVar[bool] = False
    listens: ClassVar[bool] = False
    has_layers: ClassVar[bool] = False
    what: ClassVar[str] = ""
    keep: ClassVar[Mapping[str, str]] = {}
    setting: ClassVar[str] = ""
    computation: ClassVar[Computation] = SEPARATELY

    def pairs(self, settings: Settings, matches: Matches) -> tuple[LayerPair, ...]:
        """The pairs of layers that the term compares."""
        return matches.of(settings.kind) if self.has_layers and settings.kind is not None else ()

    def check(self, settings: Settings, matches: Matches, num_heads: int) -> None:
        """Raise MismatchError unless a student of so many attention heads can be compared as asked."""

    def check_student(self, student: PreTrainedModel, matches: Matches) -> None:
        """Raise MismatchError unless a student shows what the term compares."""

    def loss(self, settings: Settings, seen: Seen) -> Tensor:
        """The term without its weight: a scalar in float32 of a slice, such that slices of a global batch add up.

        Asked of terms that are computed separately.
        """
        raise NotImplementedError


def total(losses: Sequence[Tensor], what: str) -> Tensor:
    """The sum over the layers. Raises MismatchError if there are none."""
    if not losses:
        raise MismatchError(f"a loss learns from {what} and no pair of layers is given; match some, or leave it out")
    return torch.stack(list(losses)).sum()


def present(target: Target | None, what: str) -> Target:
    """A target of a batch. Raises MismatchError if it has none."""
    if target is None:
        raise MismatchError(f"a loss learns from {what} and the batch has none; load them, or leave the loss out")
    return target
