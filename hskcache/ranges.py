"""Numbers on a command line that can be computed with."""

import math
from typing import Any

import click

from hskcache.errors import SpecError

_MOST = 2**32 - 1


class Whole(click.IntRange):
    """A whole number in a range that no library finds too large, whatever the range leaves open."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number. Raises SpecError if it is too large."""
        number = int(super().convert(value, param, ctx))
        if number > _MOST:
            raise SpecError(f"{_name(param)} {number} is too large; give at most {_MOST}")
        return number


class FiniteRange(click.FloatRange):
    """A number in a range, and neither NaN nor infinite, which are in all open ranges."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number. Raises SpecError if it is NaN or infinite."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            raise SpecError(f"{_name(param)} {value} is not a number to compute with; give another, or leave it out")
        return number


def _name(param: click.Parameter | None) -> str:
    return "the number" if param is None else param.opts[0]
