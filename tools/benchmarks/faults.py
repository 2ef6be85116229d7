"""Kill every command that writes a cache at every step that it takes on the disk, and give it again."""

from collections import Counter
from pathlib import Path
from typing import Any

import click

from benchmarks.harness import report
from benchmarks.harness.fault_suite import emptied
from hskcache import console


def try_all(scenario: Any, folder: Path, every: int, name: str) -> dict[str, Any]:
    """Kill a scenario at its moments; what was tried, by kind of step, and every failure in words."""
    from scenarios import recover, undisturbed
    from steps import moments

    whole = undisturbed(scenario, folder)
    found = moments(whole.steps)[::every]
    failures: list[str] = []
    with console.progress("kills") as bar:
        task = bar.add_task(name, total=len(found))
        for moment in found:
            try:
                recover(scenario, whole, moment)
            except AssertionError as error:
                failures.append(f"{name}, killed {moment}: {error}")
            bar.advance(task)
    verbs = Counter("half of a write" if moment.half else moment.step.verb for moment in found)
    return {"tried": len(found), "recovered": len(found) - len(failures), "steps": verbs, "failures": failures}


@click.command()
@click.option("--scenario", "names", multiple=True, metavar="NAME", help="Only this one; may be given again.")
@click.option("--every", type=click.IntRange(min=1), default=1, show_default=True, help="Try one moment of so many.")
@report.work
@report.as_json
def main(work: Path, as_json: bool, names: tuple[str, ...], every: int) -> None:
    """Count the moments at which commands were killed by SIGKILL, and those after which they ended as undisturbed.

    A moment is right before a step on the disk (open, write, sync, rename, remove, mkdir, lock), or half-way through a
    write. Recovered: nothing took what was left for a whole cache, and the same command ended with the same bytes.
    """
    import torch
    from material import Material
    from scenarios import SCENARIOS

    # Threads of a library do not survive the forks that the suite is made of.
    torch.set_num_threads(1)
    if unknown := set(names) - SCENARIOS.keys():
        raise click.UsageError(f"there is no scenario {min(unknown)!r}; there are {', '.join(SCENARIOS)}")
    folder = emptied(work / "faults")
    (folder / "material").mkdir()
    material, found = Material(folder / "material"), {}
    material.warm()
    for name in names or SCENARIOS:
        place = folder / name.replace(" ", "_")
        found[name] = try_all(SCENARIOS[name](material), place, every, name)
    verbs = sorted({verb for facts in found.values() for verb in facts["steps"]})
    rows = [
        [name, facts["tried"], facts["recovered"], *(facts["steps"][verb] for verb in verbs)]
        for name, facts in found.items()
    ]
    texts = [report.table("moments of a kill", ("command", "tried", "recovered", *verbs), rows)]
    texts += [failure for facts in found.values() for failure in facts["failures"]]
    tried, recovered = (sum(facts[key] for facts in found.values()) for key in ("tried", "recovered"))
    targets = [report.Target(f"recovered of {tried} kills", recovered, tried, at_least=True)]
    report.conclude({"scenarios": found}, texts, targets, as_json)
