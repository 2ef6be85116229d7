"""A sample of the moments at which connections to real servers are cut; tools/bench/cuts tries them all."""

from collections.abc import Iterator
from itertools import cycle

import pytest
from cuts import COMMANDS, Way, way
from cutting import MANNERS

KINDS = ("s3", "sftp", "http")
# Of each command: while it signs in, if it does, and then all along.
FIRST, NUM_MOMENTS = (2, 9), 3


@pytest.fixture(scope="module", params=KINDS)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Way]]:
    with way(request.param, tmp_path_factory.mktemp(request.param)) as found:
        assert found is not None
        yield request.param, found


@pytest.mark.parametrize("command", ["push", "pull"])
def test_a_cut_connection_is_one_line_and_the_command_goes_on(command: str, running: tuple[str, Way]) -> None:
    kind, through = running
    for known in COMMANDS[kind]:
        if known == command:
            num_messages = through.num_messages(known)
            rest = range(num_messages // (NUM_MOMENTS + 1), num_messages, num_messages // NUM_MOMENTS)
            for moment, manner in zip([*FIRST, *rest], cycle(MANNERS), strict=False):
                through.recover(known, moment, manner)
