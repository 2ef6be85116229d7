"""Tables, figures, targets and the exit code of every benchmark."""

import json
import sys
from collections.abc import Iterable, Sequence
from statistics import stdev
from typing import Any, NamedTuple, NoReturn

import click


class Target(NamedTuple):
    """A figure and the bound that it has to keep."""

    name: str
    value: float
    bound: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        """True where the figure keeps the bound."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def __str__(self) -> str:
        sign = ">=" if self.at_least else "<="
        return f"{'ok    ' if self.met else 'MISSED'}  {self.name}: {self.value:.4g}, target {sign} {self.bound:.4g}"


def table(title: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table as plain text: the first column to the left, all others to the right."""
    lines = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    texts = [title]
    for first, *rest in lines:
        cells = (cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
        texts.append("  ".join(["", first.ljust(widths[0]), *cells]).rstrip())
    return "\n".join(texts)


def deviation(values: Sequence[float]) -> str:
    """The standard deviation of runs as a cell; a dash for a single one."""
    return f"{stdev(values):.2f}" if len(values) > 1 else "-"


def pyplot() -> Any:
    """Matplotlib's pyplot, which draws into files alone."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    return plt


def conclude(facts: dict[str, Any], texts: Iterable[str], targets: Sequence[Target], json_wanted: bool) -> NoReturn:
    """Print what was found and exit: 0 if every target is met, else 1."""
    ok = all(target.met for target in targets)
    if json_wanted:
        verdicts = [{**target._asdict(), "met": target.met} for target in targets]
        click.echo(json.dumps({**facts, "targets": verdicts, "ok": ok}, indent=2, default=str))
    else:
        click.echo("\n\n".join([*texts, *(["\n".join(map(str, targets))] if targets else [])]))
    sys.exit(0 if ok else 1)
