"""Heads and neurons that a sparsity level removes: the lowest of all layers, heads and neurons apart [StarK 3.3].

Single weights are ranked likewise. In the names of this room's arrays L counts transformer layers, H heads of a layer,
F neurons of its feed-forward network, and P the weights of a layer's matrices.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hskcache.errors import SpecError

Method = Literal["knowledge", "magnitude", "random"]
"""Method that ranks heads and neurons: both kinds of scores, the size of their weights, or chance."""

Scope = Literal["global", "layer"]
"""Scope in which single weights are compared: all layers together, or each layer by itself."""

MOST_PERCENT = 99
_ELLIPSIS = "..."
_PERCENT = re.compile(r"[0-9]{1,2}")


@dataclass(frozen=True)
class Ranking:
    """Method that ranks heads and neurons, or single weights, and its settings.

    ``balance``: share of the expressive scores, from 0 to 1; for ``knowledge`` alone. ``seed``: for ``random`` alone.
    ``scope``: of single weights; None ranks heads and neurons.
    """

    method: Method
    balance: float | None = None
    seed: int | None = None
    scope: Scope | None = None


def check_balance(balance: float, flag: str = "--balance") -> None:
    """Raise SpecError unless a share of expressive scores, lambda [StarK 3.2], is a number from 0 to 1."""
    # Of nan every comparison is false.
    if not 0 <= balance <= 1:
        raise SpecError(f"{flag} {balance:g} is not a number from 0 to 1; leave it out, or give one")


@dataclass(frozen=True, eq=False)
class Importance:
    """Worth of heads and neurons, to be compared across layers: float64 [L, H] and [L, F], finite."""

    heads_LH: NDArray[np.float64]
    neurons_LF: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class KeptUnits:
    """The heads and neurons that stay. ``heads_LH``: bool [L, H]; ``neurons_LF``: bool [L, F]."""

    heads_LH: NDArray[np.bool_]
    neurons_LF: NDArray[np.bool_]


def num_removed(total: int, percent: int) -> int:
    """``percent`` of ``total``, halves rounded to even."""
    return round(Fraction(total * percent, 100))


def kept_at(importance: Importance, percent: int) -> KeptUnits:
    """Heads and neurons that stay where the lowest ``percent`` of all heads and of all neurons go.

    Of equals the one of the lower layer stays, in a layer the one of the lower number; so a level keeps nothing that a
    lower level removes.
    """
    return KeptUnits(_kept(importance.heads_LH, percent), _kept(importance.neurons_LF, percent))


def kept_weights(values_LP: NDArray[np.floating], percent: int, scope: Scope) -> NDArray[np.bool_]:
    """The weights that stay where the lowest ``percent`` go, of all or of each layer: bool [L, P].

    Of equals the first stays, as with heads and neurons.
    """
    if scope == "global":
        return _kept(values_LP, percent)
    return np.stack([_kept(values_P, percent) for values_P in values_LP])


def _kept(values: NDArray[np.floating], percent: int) -> NDArray[np.bool_]:
    flat, count = values.ravel(), num_removed(values.size, percent)
    if count == 0:
        return np.ones(values.shape, np.bool_)
    # Found without sorting them all: of single weights there are many millions.
    threshold = np.partition(flat, count - 1)[count - 1]
    kept = flat >= threshold
    equals = np.flatnonzero(flat == threshold)
    # Those below go, and of those that equal the threshold the last ones, as many as are still to go.
    kept[equals[len(equals) - (count - int((~kept).sum())) :]] = False
    found: NDArray[np.bool_] = kept.reshape(values.shape)
    return found


def level_name(percent: int) -> str:
    """The name of a level's folder, and of its field in a cache: ``s30``."""
    return f"s{percent}"


def parse_levels(text: str, flag: str = "--sparsity") -> tuple[int, ...]:
    """Read ``0,10,30``, or ``0,10,...,90`` for equal steps.

    ``text``: whole percents between commas, rising; ``...`` goes on with the step of the two before it. Raises
    SpecError if not of these forms, not rising, or outside 0 to 99.
    """
    levels: list[int] = []
    parts = text.split(",")
    for place, part in enumerate(parts):
        if part == _ELLIPSIS:
            levels += _between(f"{flag} {text!r}", levels, parts[place + 1 : place + 2])
        elif _PERCENT.fullmatch(part):
            levels.append(int(part))
        else:
            raise SpecError(
                f"{flag} {text!r}: {part!r} is not a percentage; give whole numbers from 0 to {MOST_PERCENT} such as "
                "0,10,30 or 0,10,...,90"
            )
    for lower, higher in pairwise(levels):
        if higher <= lower:
            raise SpecError(f"{flag} {text!r}: {higher} comes after {lower}; give each level once, the lowest first")
    return tuple(levels)


def _between(what: str, before: list[int], after: list[str]) -> range:
    """The levels that an ellipsis stands for."""
    if len(before) < 2 or not after or not _PERCENT.fullmatch(after[0]):
        raise SpecError(f"{what}: '...' stands between two levels and the last one; write it as in 0,10,...,90")
    step, last = before[-1] - before[-2], int(after[0])
    if step <= 0 or last <= before[-1] or (last - before[-1]) % step:
        raise SpecError(f"{what}: steps of {step} from {before[-1]} do not come to {last}; write it as in 0,10,...,90")
    return range(before[-1] + step, last, step)
