"""Options, table, targets and exit code of every benchmark."""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import click

ROOT = Path(__file__).resolve().parents[3]

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout instead of a table.")
work = click.option(
    "--work",
    type=click.Path(path_type=Path, file_okay=False),
    default=ROOT / "runs" / "bench",
    help="Folder for what is made on the way and used again.  [default: runs/bench in the checkout]",
)
device = click.option("--device", default="cpu", show_default=True, help="auto, cpu, cuda or cuda:N.")
rounds = click.option("--repetitions", type=click.IntRange(min=1), default=15, show_default=True, help="Of each side.")
keep = click.option("--keep", default="1l_10t_0.1h", show_default=True, help="What the cache keeps.")


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
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(line[i]) for line in [list(header), *cells]) for i in range(len(header))]
    lines = []
    for line in [list(header), *cells]:
        first, rest = (
            line[0].ljust(widths[0]),
            (cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
        )
        lines.append("  ".join([first, *rest]).rstrip())
    return "\n".join([title, *(f"  {line}" for line in lines)])


def conclude(facts: dict[str, Any], texts: Iterable[str], targets: Sequence[Target], json_wanted: bool) -> NoReturn:
    """Print what was found and exit: 0 if every target is met, else 1."""
    ok = all(target.met for target in targets)
    if json_wanted:
        verdicts = [{**target._asdict(), "met": target.met} for target in targets]
        click.echo(json.dumps({**facts, "targets": verdicts, "ok": ok}, indent=2))
    else:
        click.echo("\n\n".join([*texts, *(["\n".join(map(str, targets))] if targets else [])]))
    sys.exit(0 if ok else 1)
