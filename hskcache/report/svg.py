"""Drawings as SVG within a page: scales, axes and marks, with the colours of the page's own style sheet.

Every text goes through ``escape``; what is drawn tells its numbers in a title, and the whole has one that is read out.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count

from markupsafe import Markup, escape

_NUMBERS = count(1)


@dataclass(frozen=True)
class Scale:
    """A line of numbers [low, high] on a line of the drawing [start, stop]; the lower number comes first.

    ``is_log``: whether steps are factors; both ends must be above 0 then.
    """

    low: float
    high: float
    start: float
    stop: float
    is_log: bool = False

    def __call__(self, number: float) -> float:
        """Place of a number."""
        low, high, at = (math.log(one) if self.is_log else one for one in (self.low, self.high, number))
        share = (at - low) / (high - low) if high > low else 0.5
        return round(self.start + share * (self.stop - self.start), 1)

    def ticks(self, most: int = 6) -> list[float]:
        """Round numbers within the scale, at most about so many."""
        return log_ticks(self.low, self.high, most) if self.is_log else even_ticks(self.low, self.high, most)


def even_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten in [low, high]."""
    if not high > low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    steps = [factor * power for factor in (0.5, 1, 2, 5, 10)]
    chosen = next(place for place, step in enumerate(steps) if step >= rough)
    # A short interval may lie between two multiples of a step, but not of the next smaller one as well.
    return _multiples(low, high, steps[chosen]) or _multiples(low, high, steps[chosen - 1])


def _multiples(low: float, high: float, step: float) -> list[float]:
    """Multiples of a step in [low, high]."""
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(place * step, 12) for place in range(first, last + 1)]


def log_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Powers of ten in [low, high], and where these are few twice and five times them."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [factor * 10.0**exponent for exponent in exponents for factor in factors]
        found = [one for one in found if low * (1 - 1e-9) <= one <= high * (1 + 1e-9)]
        if len(found) <= most + 1:
            break
    return found


@dataclass
class Drawing:
    """An SVG that grows with its figure.

    Attributes:
        width, height: of the drawing, in its own units; text is 12 of them high.
        title: read out in place of it.
        about: more of that; empty where the title says all.
        left, right, top, bottom: what is left for axes around the marks.
    """

    width: float
    height: float
    title: str
    about: str = ""
    left: float = 46
    right: float = 14
    top: float = 12
    bottom: float = 40
    _parts: list[str] = field(default_factory=list)

    def across(self, low: float, high: float, is_log: bool = False) -> Scale:
        """Scale from left to right."""
        return Scale(low, high, self.left, self.width - self.right, is_log)

    def up(self, low: float, high: float) -> Scale:
        """Scale from the bottom to the top."""
        return Scale(low, high, self.height - self.bottom, self.top)

    def mark(self, tag: str, title: str = "", **attributes: object) -> None:
        """Add an element, such as ``mark("rect", x=1, y=2)``; ``class_`` is its class, ``_`` in names is ``-``."""
        names = {name: name.rstrip("_").replace("_", "-") for name in attributes}
        told = "".join(f' {names[name]}="{escape(str(value))}"' for name, value in attributes.items())
        self._parts.append(f"<{tag}{told}><title>{escape(title)}</title></{tag}>" if title else f"<{tag}{told}/>")

    def text(self, x: float, y: float, words: str, anchor: str = "middle", class_: str = "tx") -> None:
        """Add a line of text."""
        self._parts.append(f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" class="{class_}">{escape(words)}</text>')

    def axis_below(self, scale: Scale, words: str, told: Callable[[float], str], ticks: Sequence[float] = ()) -> None:
        """Add ticks, their numbers and what they are of below the marks."""
        base = self.height - self.bottom
        self.mark("path", class_="ax", d=f"M{self.left:g} {base:g}H{self.width - self.right:g}")
        for number in ticks or scale.ticks():
            self.mark("path", class_="ax", d=f"M{scale(number):g} {base:g}v4")
            self.text(scale(number), base + 17, told(number))
        self.text((self.left + self.width - self.right) / 2, self.height - 5, words, class_="tl")

    def axis_left(self, scale: Scale, words: str, told: Callable[[float], str], most: int = 5) -> None:
        """Add lines across the marks, their numbers, and above them what they are of."""
        for number in scale.ticks(most):
            self.mark("path", class_="gr", d=f"M{self.left:g} {scale(number):g}H{self.width - self.right:g}")
            self.text(self.left - 6, scale(number) + 4, told(number), "end")
        if words:
            self.text(2, self.top - 8, words, "start", "tl")

    def svg(self) -> Markup:
        """The element."""
        number = next(_NUMBERS)
        about = f'<desc id="d{number}">{escape(self.about)}</desc>' if self.about else ""
        described = f' aria-describedby="d{number}"' if self.about else ""
        return Markup(  # noqa: S704  (all text in it is escaped)
            f'<svg viewBox="0 0 {self.width:g} {self.height:g}" role="img" aria-labelledby="t{number}"{described}>'
            f'<title id="t{number}">{escape(self.title)}</title>{about}{"".join(self._parts)}</svg>'
        )


def plain(number: float) -> str:
    """A number of an axis."""
    return f"{number:,.10g}"


def alike(numbers: Sequence[float]) -> Callable[[float], str]:
    """Spelling of the numbers of an axis with as many digits each."""
    digits = max((len(f"{number:.10g}".partition(".")[2]) for number in numbers), default=0)
    return lambda number: f"{number:,.{digits}f}"


def percent(share: float) -> str:
    """A share of an axis."""
    return f"{100 * share:.10g} %"
