"""Commands in this process, and the flags of a build of small shards with components that are fitted to a sample."""

import json
from typing import Any

from click.testing import CliRunner, Result

from hskcache.cli import main

KEEP = ("--keep", "2l_4t_0.25h", "--width", "pca", "--student-layers", "2", "--max-length", "48")
SMALL = ("--shard-rows", "20", "--token-budget", "200")


def run(*args: object) -> Result:
    return CliRunner().invoke(main, list(map(str, args)), catch_exceptions=False)


def refused(*args: object) -> str:
    result = run(*args)
    assert result.exit_code == 2, result.output
    return result.stderr.splitlines()[-1].removeprefix("error: ")


def parsed(*args: object, code: int = 0) -> Any:
    result = run(*args, "--json")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)
