"""The way to the fault suites of the tests, of which benchmarks run in full what the tests run a sample of."""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import click

from benchmarks.harness import report
from benchmarks.harness.folders import ROOT
from hskcache import console
from hskcache.nearest import meant


@dataclass
class Recoveries:
    """Faults of one command.

    Attributes:
        kinds: how many faults were tried, by kind.
        failures: after which all was not well, in words.
    """

    kinds: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    @property
    def tried(self) -> int:
        """All faults."""
        return sum(self.kinds.values())

    @property
    def recovered(self) -> int:
        """Faults after which all was well."""
        return self.tried - len(self.failures)

    def facts(self) -> dict[str, Any]:
        """Everything, for ``--json``."""
        return {"tried": self.tried, "recovered": self.recovered, "kinds": self.kinds, "failures": self.failures}


def import_from_tests() -> None:
    """Let the modules of the suites be imported, which import each other and the tests' own by name."""
    sys.path[:0] = [str(ROOT / "tests" / folder) for folder in ("faults", "hskcache/move", ".")]


def chosen(given: Sequence[str], known: Iterable[str], what: str) -> list[str]:
    """The names that were given, or all there are.

    Raises:
        UsageError: one of them is none.
    """
    names = list(known)
    for name in given:
        if name not in names:
            near = meant(name, names) or f"; there are {', '.join(names)}"
            raise click.UsageError(f"there is no {what} {name!r}{near}")
    return list(given) or names


def recoveries(name: str, unit: str, faults: Iterable[tuple[str, str, Callable[[], object]]]) -> Recoveries:
    """Try one fault after the other.

    Args:
        name: of the command.
        unit: of the bar.
        faults: kind, description, and what raises where not all is well afterwards.
    """
    found, every = Recoveries(), list(faults)
    with console.progress(unit) as bar:
        task = bar.add_task(name, total=len(every))
        for kind, description, attempt in every:
            found.kinds[kind] = found.kinds.get(kind, 0) + 1
            try:
                attempt()
            except Exception as error:  # noqa: BLE001  (whatever comes of a fault is what is looked for)
                found.failures.append(f"{name}, {description}: {type(error).__name__}: {error}")
            bar.advance(task)
    return found


def conclude(title: str, unit: str, found: dict[str, Recoveries], as_json: bool) -> NoReturn:
    """Print how many faults every command recovered from, a column for each kind where they have several, and exit.

    Args:
        title: of the table.
        unit: the name of the faults.
        found: by command.
        as_json: for programs.
    """
    kinds = sorted({kind for one in found.values() for kind in one.kinds} - {unit})
    rows = [
        [name, one.tried, one.recovered, *(one.kinds.get(kind, 0) for kind in kinds)] for name, one in found.items()
    ]
    texts = [report.table(title, ("command", "tried", "recovered", *kinds), rows)]
    texts += [failure for one in found.values() for failure in one.failures]
    tried, recovered = sum(one.tried for one in found.values()), sum(one.recovered for one in found.values())
    targets = [report.Target(f"recovered of {tried} {unit}", recovered, tried, at_least=True)]
    report.conclude({"commands": {name: one.facts() for name, one in found.items()}}, texts, targets, as_json)
