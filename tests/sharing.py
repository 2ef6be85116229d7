"""What the tests of push and pull have in common: the commands in this process, and servers that they can reach."""

import json
from typing import Any

import fsspec
import pytest
from click.testing import CliRunner, Result
from fsspec.config import conf, set_conf_env
from servers import Server
from stored import plain

from hskcache.cli import main


def hskcache(*args: object) -> Result:
    return CliRunner().invoke(main, list(map(str, args)), catch_exceptions=False)


def done(*args: object) -> Any:
    """What a command that succeeds prints for programs."""
    result = hskcache(*args, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def refused(*args: object) -> str:
    """The line in which a command ends that exits with 2."""
    result = hskcache(*args)
    assert result.exit_code == 2, result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert result.stderr.splitlines()[-1:] == errors
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return plain(errors[0].removeprefix("error: "))


def reach(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give this process what clients of a server need; fsspec keeps what it has read and whom it has met."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    for protocol in ("s3", "sftp"):
        monkeypatch.delitem(conf, protocol, raising=False)
        fsspec.get_filesystem_class(protocol).clear_instance_cache()
    found: dict[str, Any] = {}
    set_conf_env(found, server.environment)
    for protocol, options in found.items():
        monkeypatch.setitem(conf, protocol, options)
