"""Kill every command that writes a cache at every step that it takes on the disk, and give it again."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchmarks.harness import options
from benchmarks.harness.fault_suite import Recoveries, chosen, conclude, import_from_tests, recoveries
from benchmarks.harness.folders import emptied

if TYPE_CHECKING:
    from scenarios import Scenario

UNIT = "kills"


def try_all(scenario: "Scenario", folder: Path, every: int, name: str) -> Recoveries:
    """Kill a scenario at its moments, by kind of step."""
    from scenarios import recover, undisturbed
    from steps import moments

    whole = undisturbed(scenario, folder)
    kills = (
        (
            "half of a write" if moment.half else moment.step.verb,
            f"killed {moment}",
            partial(recover, scenario, whole, moment),
        )
        for moment in moments(whole.steps)[::every]
    )
    return recoveries(name, UNIT, kills)


@click.command()
@click.option("--scenario", "names", multiple=True, metavar="NAME", help="Only this one; may be given again.")
@options.count("--every", 1, "Try one moment of so many.")
@options.work
@options.as_json
def main(work: Path, as_json: bool, names: tuple[str, ...], every: int) -> None:
    """Count the moments at which commands were killed by SIGKILL, and those after which they ended as undisturbed.

    A moment is right before a step on the disk (open, write, sync, rename, remove, mkdir, lock), or half-way through a
    write. Recovered: nothing took what was left for a whole cache, and the same command ended with the same bytes.
    """
    import_from_tests()
    import torch
    from material import Material
    from scenarios import SCENARIOS

    # Threads of a library do not survive the forks that the suite is made of.
    torch.set_num_threads(1)
    wanted, folder = chosen(names, SCENARIOS, "scenario"), emptied(work / "faults")
    material = Material(emptied(folder / "material"))
    material.warm()
    found = {name: try_all(SCENARIOS[name](material), folder / name.replace(" ", "_"), every, name) for name in wanted}
    conclude("moments of a kill", UNIT, found, as_json)
