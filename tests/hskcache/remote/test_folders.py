"""Files that are written into folders on disks, by many at once and after kills: whole, or not there."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import sftp_server
from sharing import reach

from hskcache.remote.folders import Files
from hskcache.remote.remote import open_remote

Place = tuple[str, Path]
DATA = bytes(range(256)) * 800
WRITER = """
import sys
from hskcache.remote.remote import open_remote
remote, data = open_remote(sys.argv[1], retry_s=5), bytes(range(256)) * 800
print("ready", flush=True)
sys.stdin.read()
for number in range(40):
    remote.write(f"x/{number}", data)
"""
DYING = f"""
import os, signal
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
from hskcache.remote.folders import LocalFiles, SftpFiles
LocalFiles._rename = SftpFiles._rename = die
{WRITER}
"""


@pytest.fixture(params=["file", "sftp"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A URL and the folder that it is."""
    folder = tmp_path / "served"
    folder.mkdir()
    if request.param == "file":
        yield f"file://{folder}", folder
        return
    with sftp_server(folder) as server:
        reach(server, monkeypatch)
        yield server.url, folder


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_many_who_write_the_same_are_all_done_and_show_no_part(place: Place) -> None:
    url, folder = place
    command, pipe = [sys.executable, "-c", WRITER, url], subprocess.PIPE
    writers = [subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) for _ in range(3)]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.close()
    sizes, are_writing = set(), True
    while are_writing:
        are_writing = any(writer.poll() is None for writer in writers)
        sizes |= {path.stat().st_size for path in folder.glob("x/*[0-9]")}
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stderr is not None
        with writer.stdout, writer.stderr:
            assert (writer.stderr.read(), writer.returncode) == (b"", 0)
    assert sizes == {len(DATA)}
    assert names(folder) == {f"x/{number}" for number in range(40)}


def test_who_is_overtaken_and_cleared_away_is_done_as_well(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    url, folder = place
    slow, quick = open_remote(url, retry_s=0), open_remote(url, retry_s=0)
    slow.write("warm", b"")
    kind = type(slow._idle[0])
    fill = kind._fill  # type: ignore[attr-defined]

    def overtaken(files: Files, file: Any, data: bytes) -> None:
        fill(files, file, data[:100])
        with monkeypatch.context() as unhindered:
            unhindered.setattr(kind, "_fill", fill)
            quick.write("a", data)
        assert (folder / "a").read_bytes() == DATA
        fill(files, file, data[100:])

    monkeypatch.setattr(kind, "_fill", overtaken)
    slow.write("a", DATA)
    assert (folder / "a").read_bytes() == DATA
    assert names(folder) == {"a", "warm"}


def test_what_kills_have_left_goes_with_the_next_attempt(place: Place) -> None:
    """Right before the file gets its name, again and again; each time by another process."""
    url, folder = place
    for _ in range(3):
        ended = subprocess.run([sys.executable, "-c", DYING, url], input=b"", capture_output=True)
        assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert len(names(folder)) == 3
    assert all(name.startswith("x/0.") for name in names(folder))
    ended = subprocess.run([sys.executable, "-c", WRITER, url], input=b"", capture_output=True)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert names(folder) == {f"x/{number}" for number in range(40)}
