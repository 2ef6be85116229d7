"""Which of the processes that were started together this is."""

import pytest

from hskcache import processes


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (1, 0, 0, True)),
        ({"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1"}, (4, 3, 1, False)),
        ({"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}, (1, 0, 0, True)),
        # Of others, who mean something else by these names.
        ({"WORLD_SIZE": "large", "RANK": "captain"}, (1, 0, 0, True)),
        ({"RANK": "7"}, (1, 0, 0, True)),
        ({"WORLD_SIZE": "2"}, (2, 0, 0, True)),
    ],
)
def test_processes_find_out_from_their_environment_how_many_they_are(
    environment: dict[str, str], expected: tuple[int, int, int, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert (processes.count(), processes.rank(), processes.local_rank(), processes.is_first()) == expected
