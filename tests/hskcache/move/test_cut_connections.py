"""A sample of the moments at which connections to real servers are cut; tools/bench cuts tries them all."""

from collections.abc import Iterator
from itertools import cycle

import pytest
from cuts import COMMANDS, Command, Way, way
from cutting import MANNERS

CASES = [(kind, command) for kind in ("s3", "sftp", "http") for command in COMMANDS[kind]]
# Of each command: while it signs in, if it does, and then all along.
FIRST, NUM_MOMENTS = (2, 9), 3


@pytest.fixture(scope="module")
def through(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    with way(request.param, tmp_path_factory.mktemp(request.param)) as found:
        assert found is not None
        yield found


@pytest.mark.parametrize(("through", "command"), CASES, indirect=["through"])
def test_a_cut_connection_is_one_line_and_the_command_goes_on(through: Way, command: Command) -> None:
    num_messages = through.num_messages(command)
    rest = range(num_messages // (NUM_MOMENTS + 1), num_messages, num_messages // NUM_MOMENTS)
    for moment, manner in zip([*FIRST, *rest], cycle(MANNERS), strict=False):
        through.recover(command, moment, manner)
