"""Every command that writes works where the file system knows neither locks nor how to sync, for one process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SAYS_NO = """
import errno, fcntl, os

def no(name):
    code = getattr(errno, name)
    def refused(*_arguments, **_named):
        raise OSError(code, os.strerror(code))
    return refused

fcntl.flock = fcntl.lockf = no(os.environ["LOCK_SAYS"])
os.fsync = no(os.environ["SYNC_SAYS"])
"""
RUN = """
import json, sys
from click.testing import CliRunner
from hskcache.cli import main

for command in json.load(sys.stdin):
    done = CliRunner().invoke(main, command, catch_exceptions=False)
    print(json.dumps([command[0], done.exit_code, done.stderr]))
"""


def run(folder: Path, commands: list[list[str]], **environment: str) -> list[tuple[str, int, str]]:
    """Name, exit code and words of commands that are run one after the other by a process that the system refuses."""
    (folder / "sitecustomize.py").write_text(SAYS_NO)
    given = os.environ | {"PYTHONPATH": str(folder), "HSKCACHE_LOCAL": str(folder / "local")} | environment
    ended = subprocess.run(
        [sys.executable, "-c", RUN], input=json.dumps(commands), capture_output=True, text=True, env=given, cwd=folder
    )
    assert ended.returncode == 0, ended.stderr
    return [tuple(json.loads(line)) for line in ended.stdout.splitlines()]


@pytest.mark.parametrize(("locks", "syncs"), [("ENOSYS", "EINVAL"), ("ENOLCK", "ENOSYS"), ("EOPNOTSUPP", "ENOTSUP")])
def test_caches_are_moved_and_mended(locks: str, syncs: str, tmp_path: Path) -> None:
    golden = str(Path(__file__).resolve().parents[2] / "golden" / "tiny.hsk")
    commands = [
        ["pull", f"file://{golden}", "c.hsk"],
        ["push", "c.hsk", f"file://{tmp_path}/pushed.hsk"],
        ["export", "c.hsk", "c.h5"],
        ["import", "c.h5", "imported.hsk"],
        ["pack", "c.hsk", "c.tar"],
        ["unpack", "c.tar", "unpacked.hsk"],
        ["repair", "unpacked.hsk", "--from", "c.hsk"],
        ["info", f"file://{tmp_path}/pushed.hsk"],
        *(["verify", name] for name in ("c.hsk", "pushed.hsk", "imported.hsk", "unpacked.hsk")),
    ]
    done = run(tmp_path, commands, LOCK_SAYS=locks, SYNC_SAYS=syncs)
    assert [(name, code) for name, code, _ in done] == [(command[0], 0) for command in commands]
    said = f"the file system of {tmp_path}/c.hsk knows no locks: only one process may work on it"
    assert "".join(words for _, _, words in done).count("knows no locks") == 1
    assert said in done[0][2]
    assert not list(tmp_path.rglob("*.lock"))


def test_caches_are_built_and_grow_and_several_processes_are_refused(
    tmp_path: Path, tiny_teacher_dir: Path, tsv_file: Path
) -> None:
    lines = tsv_file.read_text().splitlines(keepends=True)
    (tmp_path / "a.tsv").write_text("".join(lines[:20]))
    (tmp_path / "b.tsv").write_text("".join([lines[0], *lines[20:30]]))
    job = ["--teacher", str(tiny_teacher_dir), "--task", "sst2", "--device", "cpu"]
    build = ["build", *job, "--data", "a.tsv", "--keep", "none", "--shard-rows", "8", "--out"]
    commands = [
        [*build, "c.hsk"],
        ["append", "c.hsk", *job, "--data", "b.tsv"],
        ["build", "--add-field", "logits", "--name", "more", *job[:2], "--device", "cpu", "--out", "c.hsk"],
        ["verify", "c.hsk"],
    ]
    refuse = {"LOCK_SAYS": "ENOSYS", "SYNC_SAYS": "EINVAL"}
    done = run(tmp_path, commands, **refuse)
    assert [code for _, code, _ in done] == [0] * 4, done
    together = run(tmp_path, [[*build, "two.hsk"], ["export", "c.hsk", "c.h5"]], **refuse, WORLD_SIZE="2", RANK="0")
    for _, code, words in together:
        assert code == 2
        assert "knows no locks, by which 2 processes would divide the work; start one process" in words
    assert not list(tmp_path.glob("c.h5*"))
