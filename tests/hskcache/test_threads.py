"""Threads of torch sleep soon where they wait for each other, unless the user chose, or torch is loaded already."""

import os
import subprocess
import sys

import pytest

from hskcache.threads import BOUNDED, CHOSEN_BY, bound_waiting

ENTRY = "from {}.cli import main; main()"
# Commands that load torch and then find no file.
LOADING = {
    "hskcache": ("audit", "no-such-cache", "--teacher", "no-such-teacher"),
    "trainer": ("evaluate", "--model", "no-such-model", "--data", "no-such-rows", "--task", "sst2"),
}


def told(package: str, chosen: dict[str, str]) -> str:
    """What torch's own OpenMP says of its settings when a command loads it."""
    plain = {name: value for name, value in os.environ.items() if name not in CHOSEN_BY}
    done = subprocess.run(
        [sys.executable, "-c", ENTRY.format(package), *LOADING[package]],
        env=plain | {"OMP_DISPLAY_ENV": "verbose"} | chosen,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "error: " in done.stderr
    return done.stderr


@pytest.mark.parametrize("package", LOADING)
def test_a_command_bounds_the_wait_before_torch_is_loaded(package: str) -> None:
    assert f"GOMP_SPINCOUNT = '{BOUNDED['GOMP_SPINCOUNT']}'" in told(package, {})


def test_what_the_user_chose_reaches_torch() -> None:
    assert "OMP_WAIT_POLICY = 'ACTIVE'" in told("trainer", {"OMP_WAIT_POLICY": "active"})


@pytest.mark.parametrize("name", CHOSEN_BY)
def test_a_choice_stays_alone(name: str) -> None:
    environment = {name: "1"}
    bound_waiting(environment)
    assert environment == {name: "1"}


def test_where_torch_is_loaded_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch  # noqa: F401

    for name in CHOSEN_BY:
        monkeypatch.delenv(name, raising=False)
    before = dict(os.environ)
    bound_waiting()
    assert os.environ == before
