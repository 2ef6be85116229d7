"""Ctrl-C in a real process: one line, exit code 130, whole shards, and the same command goes on."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from hskcache.cache import open_cache
from hskcache.cli import main
from hskcache.errors import MismatchError
from hskcache.store.ledger import Ledger, read_shard


def start(args: tuple[object, ...]) -> int:
    """Run a command in a child process as the shell would."""
    child = os.fork()
    if child == 0:
        try:
            # Whoever starts the tests in the background may have turned the signal off.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            main([*map(str, args)])
        except SystemExit as end:
            os._exit(end.code if isinstance(end.code, int) else 1)
        finally:
            os._exit(99)
    return child


@pytest.mark.parametrize("shards", [1, 6])
def test_an_interrupted_build_ends_in_one_line_with_whole_shards(
    shards: int, sources: Any, run: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    args = ("build", *sources, "--task", "sst2", "--keep", "4t_0.25h", "--shard-rows", 4, "--out")
    ledger = Ledger(tmp_path / "c")
    child = start((*args, tmp_path / "c"))
    while not ledger.is_committed("hidden", shards):
        time.sleep(0.0005)
    os.kill(child, signal.SIGINT)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130
    log = capfd.readouterr().err
    assert log.splitlines()[-1] == "error: interrupted; the same command continues from here"
    assert "Traceback" not in log
    with pytest.raises(MismatchError, match="cut off"):
        open_cache(tmp_path / "c")
    assert list((tmp_path / "c").rglob("*.tmp")) == []
    for path in (tmp_path / "c").rglob("[0-9]*.zarr.zip"):
        field, shard = path.parent.name, int(path.name[:6])
        read_shard(path, ledger.record(field, shard))
    assert run(*args, tmp_path / "c").exit_code == 0
    assert run(*args, tmp_path / "undisturbed").exit_code == 0
    assert open_cache(tmp_path / "c").id == open_cache(tmp_path / "undisturbed").id
