"""Fields of a cache that a student learns from: its own, or others that further teachers added over the same rows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from hskcache.cache import Cache
from hskcache.counted import counted
from hskcache.errors import MismatchError, SpecError
from hskcache.nearest import meant
from hskcache.store.kinds import INPUTS, KINDS, kind_of, knowledge
from trainer.loading.kinds import LOADED


@dataclass(frozen=True)
class Choice:
    """Fields to learn from, by kind; of a kind with none, the cache's own is meant, where it has one.

    Several logits fields are an ensemble, whose logits are the weighted mean sum_i w_i z_i of theirs. Its distribution
    softmax(sum_i w_i z_i / T) is at every temperature T the weighted geometric mean of the teachers' distributions,
    normalised: the geometric one of the two ensembles of "Distilling the Knowledge in a Neural Network" (Hinton et al.,
    2015, arXiv 1503.02531, section 1). Of a regression it is the mean of the scores.

    Attributes:
        weights: by kind, the weight of each field; those that :func:`choice_of` made stand in the order of the names
            and add up to 1.
    """

    weights: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def of(self, kind: str) -> tuple[str, ...]:
        """The fields of a kind."""
        return tuple(self.weights.get(kind, ()))

    def share(self, kind: str) -> list[tuple[str, float]]:
        """The fields of a kind, each with its weight."""
        return list(self.weights.get(kind, {}).items())

    @property
    def names(self) -> tuple[str, ...]:
        """All fields, in the order of the kinds."""
        return tuple(name for kind in knowledge() for name in self.of(kind))


OWN = Choice()
"""The cache's own fields."""


def parse_choice(cache: Cache, texts: Sequence[str]) -> Choice:
    """The choice that ``s30``, or ``s30=0.7`` and ``s50=0.3``, mean.

    Args:
        cache: that has the fields.
        texts: each the name of a field, logits with a weight after ``=`` or all of them without one.

    Raises:
        SpecError, MismatchError: not of that form, and whatever :func:`choice_of` refuses.
    """
    names, weights = [], {}
    for text in texts:
        name, equals, weight = text.partition("=")
        if not name:
            raise SpecError(f"--field {text!r} names no field; give NAME, or NAME=WEIGHT")
        if equals:
            try:
                weights[name] = float(weight)
            except ValueError:
                raise SpecError(f"--field {text}: {weight!r} is not a weight; give a number such as 0.7") from None
        names.append(name)
    return choice_of(cache, names, weights)


def choice_of(cache: Cache, names: Sequence[str], weights: Mapping[str, float] | None = None) -> Choice:
    """The choice of exactly these fields.

    Args:
        cache: that has them.
        names: of the fields, in any order.
        weights: above 0, one for each logits field, brought to a sum of 1; None or empty weighs them alike.

    Raises:
        MismatchError: the cache has no such field, or logits of several widths are to be averaged.
        SpecError: a field is given twice, holds no knowledge, is one of several that cannot be averaged, or has a
            weight that is none.
    """
    kinds = {name: _kind(cache, name) for name in names}
    if twice := [name for place, name in enumerate(names) if name in names[:place]]:
        raise SpecError(f"field {twice[0]} is given twice; name each field once")
    by_kind = {kind: sorted(name for name in names if kinds[name] == kind) for kind in knowledge()}
    weights = weights or {}
    for kind, same in by_kind.items():
        if not LOADED[kind].is_averaged:
            _check_single(kind, same, weights)
    if unknown := weights.keys() - set(names):
        raise SpecError(f"field {min(unknown)} has a weight and is not among the fields to load; name it there, too")
    chosen = {}
    for kind, same in by_kind.items():
        _check_widths(cache, same)
        if same:
            chosen[kind] = _shares(kind, same, weights if LOADED[kind].is_averaged else {})
    return Choice(chosen)


def resolved(cache: Cache, choice: Choice = OWN) -> Choice:
    """The choice checked against a cache, with the cache's own field of every kind of which it has none.

    Raises:
        SpecError, MismatchError: as :func:`choice_of`.
    """
    for kind in knowledge():
        for name in choice.of(kind):
            if (stored := _kind(cache, name)) != kind:
                raise SpecError(
                    f"field {name} holds {KINDS[stored].words}; choose it for those, not for {KINDS[kind].words}"
                )
    own = [kind for kind in knowledge() if not choice.of(kind) and kind in cache.manifest.own_fields]
    weights = {name: weight for kind in knowledge() if LOADED[kind].is_averaged for name, weight in choice.share(kind)}
    return choice_of(cache, [*choice.names, *own], weights)


def identity_of(cache: Cache, choice: Choice = OWN, num_rows: int | None = None) -> str:
    """Digest that names the knowledge of a run: the content of its fields, their weights, and its rows.

    A field that is added to the cache later leaves it as it is. Without any choice it is the id that the cache was
    built with.

    Args:
        cache: the cache.
        choice: what is learned from; of the other kinds the own fields count, whether a stage loads them or not.
        num_rows: how many of the rows, the first ones; None: all.
    """
    chosen = resolved(cache, choice)
    others = [name for name in cache.manifest.own_fields if name not in knowledge()]
    identity = cache.identity([*others, *chosen.names])
    for kind in knowledge():
        if len(shares := chosen.share(kind)) > 1:
            identity += f"({','.join(f'{name}={weight:.9g}' for name, weight in shares)})"
    return identity if num_rows is None else f"{identity}[:{num_rows}]"


def _kind(cache: Cache, name: str) -> str:
    stored = cache.fields.get(name)
    if stored is not None and stored.kind == INPUTS:
        raise SpecError(f"field {name} holds the rows, which are always loaded; name a field of what a teacher knows")
    if stored is None:
        known = [name for name, one in cache.fields.items() if one.kind != INPUTS]
        raise MismatchError(
            f"{cache.name} has no field {name} to load; it has {', '.join(known) or 'none'}{meant(name, known)}"
        )
    return stored.kind


def _check_single(kind: str, names: Sequence[str], weights: Mapping[str, float]) -> None:
    """Raise where several fields are chosen of a kind that is not averaged, or one has a weight."""
    words = KINDS[kind].words
    if len(names) > 1:
        raise SpecError(f"fields {names[0]} and {names[1]} both hold {words}, which are not averaged; choose one")
    for name in names:
        if name in weights:
            raise SpecError(f"field {name} holds {words}, which have no weight; leave the weight out")


def _check_widths(cache: Cache, names: Sequence[str]) -> None:
    widths = {name: kind_of(cache.fields[name]).num_answers(cache.fields[name]) for name in names}
    for name, width in widths.items():
        if width != widths[names[0]]:
            raise MismatchError(
                f"fields {names[0]} and {name} hold logits of {widths[names[0]]} and "
                f"{counted(width or 0, 'output')}, which cannot be "
                "averaged; choose fields of the same task"
            )


def _shares(kind: str, names: Sequence[str], weights: Mapping[str, float]) -> dict[str, float]:
    """The weights of the fields of a kind, brought to a sum of 1."""
    if not weights:
        return {name: 1 / len(names) for name in names}
    for name in names:
        if name not in weights:
            raise SpecError(f"field {name} has no weight and another has one; give all {kind} fields one, or none")
        if not 0 < weights[name] < math.inf:
            raise SpecError(f"field {name} has the weight {weights[name]:g}; give a number above 0")
    # As fractions no sum is too large, and weights that add up to 1 stay what they are.
    total = sum(Fraction(weights[name]) for name in names)
    return {name: float(Fraction(weights[name]) / total) for name in names}
