"""The commands in this process, and a cache that they built."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from hskcache.cli import main

BUILD = ("--task", "sst2", "--keep", "2l_4t_0.25h", "--student-layers", "2", "--max-length", "48")
SMALL = ("--shard-rows", "20", "--token-budget", "200")


def hskcache(*args: object) -> Result:
    return CliRunner().invoke(main, list(map(str, args)), catch_exceptions=False)


@pytest.fixture(scope="session")
def run() -> Callable[..., Result]:
    """Run a command; a fault of ours raises."""
    return hskcache


@pytest.fixture(scope="session")
def data() -> Callable[..., Any]:
    """Run a command and read what it prints for programs."""

    def read(*args: object) -> Any:
        result = hskcache(*args, "--json")
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    return read


@pytest.fixture(scope="session")
def refused() -> Callable[..., str]:
    """Run a command that must end in one line and exit code 2; the line without ``error:``."""

    def read(*args: object) -> str:
        result = hskcache(*args)
        assert result.exit_code == 2, result.output
        errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        assert result.stderr.splitlines()[-1:] == errors
        assert result.stdout == ""
        return errors[0].removeprefix("error: ")

    return read


@pytest.fixture(scope="session")
def sources(tiny_teacher_dir: Path, tsv_file: Path) -> tuple[object, ...]:
    """The arguments that say which teacher and which rows."""
    return ("--teacher", tiny_teacher_dir, "--data", tsv_file, "--device", "cpu")


@pytest.fixture(scope="session")
def build_args(sources: tuple[object, ...]) -> tuple[object, ...]:
    """A build of 96 rows in 5 shards, but for --out."""
    return ("build", *sources, *BUILD, *SMALL)


@pytest.fixture(scope="session")
def cache(build_args: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "c"
    assert hskcache(*build_args, "--out", out).exit_code == 0
    return out
