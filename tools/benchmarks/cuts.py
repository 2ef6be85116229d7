"""Cut the connections of push and pull at every message, over each kind of server, and give the command again."""

from itertools import cycle
from pathlib import Path
from typing import Any

import click

from benchmarks.harness import report
from benchmarks.harness.fault_suite import emptied
from hskcache import console


def try_all(through: Any, command: Any, every: int, name: str) -> dict[str, Any]:
    """Cut a command off at its messages; how many were tried, and every failure in words."""
    from cutting import MANNERS

    moments = range(0, through.num_messages(command), every)
    failures: list[str] = []
    with console.progress("cuts") as bar:
        task = bar.add_task(name, total=len(moments))
        for moment, manner in zip(moments, cycle(MANNERS), strict=False):
            try:
                through.recover(command, moment, manner)
            except Exception as error:  # noqa: BLE001  (a traceback is what is looked for)
                failures.append(f"{name}, message {moment}, {manner}: {error!r}")
            bar.advance(task)
    return {"tried": len(moments), "recovered": len(moments) - len(failures), "failures": failures}


def try_server(kind: str, folder: Path, every: int) -> dict[str, Any]:
    """Every command over a kind of server; nothing where it is not installed."""
    from cuts import COMMANDS, way

    with way(kind, folder) as through:
        if through is None:
            console.say(f"{kind} is not installed, so it is left out")
            return {}
        names = {command: f"{command}, {kind}" for command in COMMANDS[kind]}
        return {name: try_all(through, command, every, name) for command, name in names.items()}


@click.command()
@click.option("--server", "kinds", multiple=True, metavar="KIND", help="Only this one; may be given again.")
@click.option("--every", type=click.IntRange(min=1), default=1, show_default=True, help="Try one message of so many.")
@report.work
@report.as_json
def main(work: Path, as_json: bool, kinds: tuple[str, ...], every: int) -> None:
    """Count the messages at which connections were cut, and those after which all was well.

    A proxy closes or resets every connection before a message is passed on, or after half of it. Recovered: where
    nobody answers any more, the command ends in one line that says so; given again and cut off once more, it goes on
    by itself; and what then stands at the other end is the cache, byte for byte.
    """
    from cuts import COMMANDS

    if unknown := set(kinds) - COMMANDS.keys():
        raise click.UsageError(f"there is no server {min(unknown)!r}; there are {', '.join(COMMANDS)}")
    folder, found = emptied(work / "cuts"), dict[str, dict[str, Any]]()
    for kind in kinds or COMMANDS:
        (folder / kind).mkdir()
        found |= try_server(kind, folder / kind, every)
    rows = [[name, facts["tried"], facts["recovered"]] for name, facts in found.items()]
    texts = [report.table("messages before which connections were cut", ("command", "tried", "recovered"), rows)]
    texts += [failure for facts in found.values() for failure in facts["failures"]]
    tried, recovered = (sum(facts[key] for facts in found.values()) for key in ("tried", "recovered"))
    targets = [report.Target(f"recovered of {tried} cuts", recovered, tried, at_least=True)]
    report.conclude({"commands": found}, texts, targets, as_json)
