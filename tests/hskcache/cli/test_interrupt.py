"""Ctrl-C in a real process: one line, exit code 130, whole shards, and the same command goes on."""

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import in_child

from hskcache.cache import open_cache
from hskcache.cli import main
from hskcache.errors import MismatchError
from hskcache.store.ledger import Ledger
from hskcache.store.reading import read_shard


def exit_code(args: tuple[object, ...], shards: int) -> int:
    """Run a command in a child process that gets SIGINT when it is about to commit one shard more than ``shards``."""
    commits = 0

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal commits
        # Files appear by a rename, which Python reports to audit hooks before it happens.
        if event == "os.rename" and re.search(r"/hidden/[0-9]+\.json$", str(arguments[1])):
            commits += 1
            if commits == shards + 1:
                os.kill(os.getpid(), signal.SIGINT)

    def run() -> None:
        # Whoever starts the tests in the background may have turned the signal off.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            main([*map(str, args)])
        except SystemExit as end:
            os._exit(end.code if isinstance(end.code, int) else 1)

    return in_child(run, count)


@pytest.mark.parametrize("shards", [0, 6])
def test_an_interrupted_build_ends_in_one_line_with_whole_shards(
    shards: int, sources: Any, run: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    args = ("build", *sources, "--task", "sst2", "--keep", "4t_0.25h", "--shard-rows", 8, "--out")
    ledger = Ledger(tmp_path / "c")
    code = exit_code((*args, tmp_path / "c"), shards)
    log = capfd.readouterr().err
    assert code == 130, log
    request = ledger.request()
    assert request is not None
    kept = f"{ledger.num_committed(request)} of 12 shards are kept"
    assert log.splitlines()[-1] == f"error: interrupted; the same command goes on from there: {kept}"
    assert "Traceback" not in log
    with pytest.raises(MismatchError, match="cut off"):
        open_cache(tmp_path / "c")
    # The shard that was being written is finished, not left half done.
    assert ledger.is_committed("hidden", shards)
    assert list((tmp_path / "c").rglob("*.tmp")) == []
    written = {path: ledger.record(path.parent.name, int(path.name[:6])) for path in (tmp_path / "c").rglob("0*.zip")}
    assert run(*args, tmp_path / "c").exit_code == 0
    fields = open_cache(tmp_path / "c").fields
    for path, record in written.items():
        read_shard(path, record, fields[record.field])
    assert run(*args, tmp_path / "undisturbed").exit_code == 0
    assert open_cache(tmp_path / "c").id == open_cache(tmp_path / "undisturbed").id
