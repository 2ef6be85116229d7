"""Order in which knowledge is added while there is room, where no study tells: tokens, then columns, then layers.

It is a rule of thumb, after the joint example of Liu et al., 2021, ``1l_10t_0.1h``: one layer and a tenth of the
columns, of which the tokens of the highest attention are kept.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import count
from typing import TypeVar

from hskcache.spec import SCORES, Hidden, Keep

Step = TypeVar("Step")

_GUESSES = 5
_SHARES = tuple(place / 10 for place in range(1, 11))


def ladder(hidden: Hidden, num_layers: int, longest: int) -> list[Keep]:
    """Choices from the least to everything, each of which holds all that the one before it does.

    ``hidden``: what is said of it beside how much. ``num_layers``: that can be kept. ``longest``: tokens of a row.
    """
    admitted, shares = SCORES[hidden.length.score], _SHARES
    if hidden.width.scheme == "all":
        shares = (1.0,)
    tokens: list[int | None] = [*range(1, longest), None]
    if admitted.first_alone:
        tokens = [1]
    elif admitted.without_choice:
        tokens = [None]
    steps = [Keep(1, count, shares[0]) for count in tokens]
    steps += [Keep(1, tokens[-1], share) for share in shares[1:]]
    steps += [Keep(layers, tokens[-1], shares[-1]) for layers in range(2, num_layers)]
    return [*steps, Keep(None, tokens[-1], shares[-1])] if num_layers > 1 else steps


def last_that_fits(
    steps: Sequence[Step], fits: Callable[[Step], bool], is_likely: Callable[[Step], bool]
) -> int | None:
    """Place of the last step that fits, of steps that take more and more; None where not even the first does.

    ``fits`` is asked as seldom as may be: about the last step of which it is likely, then about the one after. When
    that went wrong some times, the steps are halved.
    """
    low, high = 0, len(steps)
    for turn in count():
        if low >= high:
            break
        place = (low + high) // 2
        if turn < _GUESSES:
            # Steps before this one are likely to fit.
            end = bisect_left(range(low, high), True, key=lambda step: not is_likely(steps[step])) + low
            place = max(low, end - 1)
        if fits(steps[place]):
            low = place + 1
        else:
            high = place
    # A sample is a little more or less than it should be.
    while low and not fits(steps[low - 1]):
        low -= 1
    return low - 1 if low else None
