"""Which fields of a cache a student learns from: its own, or others that further teachers added over the same rows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from hskcache.cache import Cache, InputsField, LogitsField
from hskcache.errors import MismatchError, SpecError
from hskcache.nearest import meant
from hskcache.store.kinds import KINDS, knowledge


@dataclass(frozen=True)
class Choice:
    """Fields to learn from, by kind; of a kind with none, the cache's own is meant, where it has one.

    Several logits fields are an ensemble, whose logits are the weighted mean sum_i w_i z_i of theirs. Its distribution
    softmax(sum_i w_i z_i / T) is at every temperature T the weighted geometric mean of the teachers' distributions,
    normalised: the geometric one of the two ensembles of "Distilling the Knowledge in a Neural Network" (Hinton et al.,
    2015, arXiv 1503.02531, section 1). Of a regression it is the mean of the scores.

    Attributes:
        logits: weight by field; one that :func:`choice_of` made has them in the order of the names and adding up to 1.
        hidden, attention: the field, or None.
    """

    logits: Mapping[str, float] = field(default_factory=dict)
    hidden: str | None = None
    attention: str | None = None

    def of(self, kind: str) -> tuple[str, ...]:
        """The fields of a kind."""
        if kind == "logits":
            return tuple(self.logits)
        name = {"hidden": self.hidden, "attention": self.attention}[kind]
        return () if name is None else (name,)

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
    for kind in ("hidden", "attention"):
        if len(same := by_kind[kind]) > 1:
            raise SpecError(
                f"fields {same[0]} and {same[1]} both hold {KINDS[kind].words}, which are not averaged; choose one"
            )
        for name in same:
            if name in (weights or {}):
                raise SpecError(f"field {name} holds {KINDS[kind].words}, which have no weight; leave the weight out")
    _check_widths(cache, by_kind["logits"])
    hidden, attention = (next(iter(by_kind[kind]), None) for kind in ("hidden", "attention"))
    return Choice(_shares(by_kind["logits"], weights or {}), hidden, attention)


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
    return choice_of(cache, [*choice.names, *own], choice.logits)


def identity_of(cache: Cache, choice: Choice = OWN, num_rows: int | None = None) -> str:
    """What names the knowledge of a run: the content of its fields, their weights, and its rows.

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
    if len(chosen.logits) > 1:
        identity += f"({','.join(f'{name}={weight:.9g}' for name, weight in chosen.logits.items())})"
    return identity if num_rows is None else f"{identity}[:{num_rows}]"


def _kind(cache: Cache, name: str) -> str:
    stored = cache.fields.get(name)
    if isinstance(stored, InputsField):
        raise SpecError(f"field {name} holds the rows, which are always loaded; name a field of what a teacher knows")
    if stored is None:
        known = [name for name, one in cache.fields.items() if not isinstance(one, InputsField)]
        raise MismatchError(
            f"{cache.name} has no field {name} to load; it has {', '.join(known) or 'none'}{meant(name, known)}"
        )
    return stored.kind


def _check_widths(cache: Cache, names: Sequence[str]) -> None:
    fields = {name: cache.fields[name] for name in names}
    widths = {name: one.num_labels for name, one in fields.items() if isinstance(one, LogitsField)}
    for name, width in widths.items():
        if width != widths[names[0]]:
            raise MismatchError(
                f"fields {names[0]} and {name} hold logits of {widths[names[0]]} and {width} outputs, which cannot be "
                "averaged; choose fields of the same task"
            )


def _shares(names: Sequence[str], weights: Mapping[str, float]) -> dict[str, float]:
    """The weights of logits fields, brought to a sum of 1."""
    if not weights:
        return {name: 1 / len(names) for name in names}
    if unknown := weights.keys() - set(names):
        raise SpecError(f"field {min(unknown)} has a weight and is not among the fields to load; name it there, too")
    for name in names:
        if name not in weights:
            raise SpecError(f"field {name} has no weight and another has one; give all logits fields one, or none")
        if not 0 < weights[name] < math.inf:
            raise SpecError(f"field {name} has the weight {weights[name]:g}; give a number above 0")
    # As fractions no sum is too large, and weights that add up to 1 stay what they are.
    total = sum(map(Fraction, weights.values()))
    return {name: float(Fraction(weights[name]) / total) for name in names}
