"""Rows that are longer than they may be: how many, how much they lost, and what would keep it."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from hskcache.counted import counted
from hskcache.remarks import remark

Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class Cut:
    """Rows that lost tokens.

    ``num_tokens``: that they lost; ``num_whole_tokens``: of the same rows before they were cut, special tokens
    included; ``longest``: tokens of the longest of them, uncut.
    """

    num_rows: Count = 0
    num_tokens: Count = 0
    num_whole_tokens: Count = 0
    longest: Count = 0

    def __add__(self, other: "Cut") -> "Cut":
        return Cut(
            self.num_rows + other.num_rows,
            self.num_tokens + other.num_tokens,
            self.num_whole_tokens + other.num_whole_tokens,
            max(self.longest, other.longest),
        )

    def told(self, total: int) -> str:
        """A sentence without its end, for people: how many of ``total`` rows lost how much."""
        share = 100 * self.num_tokens / max(1, self.num_whole_tokens)
        amount = f"{share:.0f} %" if share >= 1 else "less than 1 %"
        whose = "its" if self.num_rows == 1 else "their"
        return f"{self.num_rows:,} of {total:,} rows lost {amount} of {whose} tokens"


NOTHING = Cut()


@dataclass(frozen=True)
class Reach:
    """Limit on the length of rows.

    ``max_length``: tokens of a row at most, as asked for. ``most``: that the model can read; None where that has no
    end. ``keep``: what to do in order to keep all of the longest row, to be read before the number. ``beyond``: what
    lets the model read more.
    """

    max_length: int
    most: int | None
    model: str
    keep: str = "--max-length"
    beyond: str = ""


def tell_cut(cut: Cut, total: int, source: str, reach: Reach) -> None:
    """Say in one line how many rows lost how much, and what keeps all; nothing where none did."""
    if cut.num_rows:
        remark(f"{source}: {cut.told(total)}; {_remedy(cut, reach)}")


def tell_beyond(longest: int, trained: int | None, source: str, model: str) -> None:
    """Say in one line that rows are longer than those a model was trained on; nothing where none is.

    ``trained``: see :func:`~hskcache.encoder.trained_length`.
    """
    if trained is not None and longest > trained:
        remark(
            f"{source} has rows of up to {counted(longest, 'token')} and {model} was trained on at most "
            f"{trained:,}; it reads "
            f"them, how well is not known: --max-length {trained} keeps within"
        )


def _remedy(cut: Cut, reach: Reach) -> str:
    if reach.most is None or cut.longest <= reach.most:
        return f"{reach.keep} {cut.longest} keeps all"
    longest = f"the longest has {cut.longest:,} and {reach.model} reads at most {reach.most:,}"
    ways = [] if reach.max_length >= reach.most else [f"{reach.keep} {reach.most} keeps the most"]
    ways += [reach.beyond] if reach.beyond else []
    return f"{longest}: {', '.join(ways)}" if ways else longest
