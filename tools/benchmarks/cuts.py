"""Cut the connections of push and pull at every message, over each kind of server, and give the command again."""

from functools import partial
from itertools import cycle
from pathlib import Path

import click

from benchmarks.harness import options
from benchmarks.harness.fault_suite import Recoveries, chosen, conclude, import_from_tests, recoveries
from benchmarks.harness.folders import emptied
from hskcache import console

UNIT = "cuts"


def try_server(kind: str, folder: Path, every: int) -> dict[str, Recoveries]:
    """Every command over a kind of server; none where it is not installed."""
    from cuts import COMMANDS, way
    from cutting import MANNERS

    found = {}
    with way(kind, folder) as through:
        if through is None:
            console.say(f"{kind} is not installed, so it is left out")
            return {}
        for command in COMMANDS[kind]:
            moments = zip(range(0, through.num_messages(command), every), cycle(MANNERS), strict=False)
            cuts = (
                (UNIT, f"message {moment}, {manner}", partial(through.recover, command, moment, manner))
                for moment, manner in moments
            )
            found[f"{command}, {kind}"] = recoveries(f"{command}, {kind}", UNIT, cuts)
    return found


@click.command()
@click.option("--server", "kinds", multiple=True, metavar="KIND", help="Only this one; may be given again.")
@options.count("--every", 1, "Try one message of so many.")
@options.work
@options.as_json
def main(work: Path, as_json: bool, kinds: tuple[str, ...], every: int) -> None:
    """Count the messages at which connections were cut, and those after which all was well.

    A proxy closes or resets every connection before a message is passed on, or after half of it. Recovered: where
    nobody answers any more, the command ends in one line that says so; given again and cut off once more, it goes on
    by itself; and what then stands at the other end is the cache, byte for byte.
    """
    import_from_tests()
    from cuts import COMMANDS

    servers, folder = chosen(kinds, COMMANDS, "server"), emptied(work / "cuts")
    found: dict[str, Recoveries] = {}
    for kind in servers:
        found |= try_server(kind, emptied(folder / kind), every)
    conclude("messages before which connections were cut", UNIT, found, as_json)
