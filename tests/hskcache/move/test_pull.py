"""``hskcache pull``: every byte verified before it appears, only what is missing, whatever servers and kills do."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked import in_child
from noise import NUM_SHARDS
from noise import files as files_of
from servers import Faults, Server, http_server, misbehave
from sharing import done, hskcache, refused
from stored import shard_file

from hskcache.cache import Cache
from hskcache.locks import locked
from hskcache.move.pull import pull
from hskcache.move.selected import Subset
from hskcache.remote.remote import open_remote
from hskcache.verify import verify

NUM_FILES = 3 * NUM_SHARDS + 1
# What a script starts in the background hears no interrupt otherwise.
HEARING = """
import signal
from hskcache.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""


@pytest.fixture(scope="module")
def running(original: Cache, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with http_server(original.root.parent, tmp_path_factory.mktemp("state")) as server:
        yield server


@pytest.fixture
def server(running: Server) -> Iterator[Server]:
    """It misbehaves in one test at most."""
    yield running
    if running.process.poll() is not None:
        running.kill()
        running.start()
    misbehave(running, Faults())


@pytest.fixture
def back(tmp_path: Path) -> Path:
    return tmp_path / "back.hsk"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HSKCACHE_RETRY_S", "2")


def url(server: Server) -> str:
    return f"{server.url}/c.hsk"


def local(cache: Cache) -> str:
    return f"file://{cache.root}"


def shards_asked(server: Server) -> list[str]:
    return [line for line in server.requests() if ".zarr.zip" in line]


def test_a_pull_asks_for_every_shard_once_and_for_none_of_the_records(
    server: Server, original: Cache, back: Path
) -> None:
    before = len(server.requests())
    assert done("pull", url(server), back)["num_fetched"] == NUM_FILES
    asked = server.requests()[before:]
    assert len([line for line in asked if ".zarr.zip" in line]) == NUM_FILES
    assert not [line for line in asked if re.search(r"/[0-9]{6}\.json", line)]
    assert files_of(back) == files_of(original.root)


def test_a_server_that_is_busy_and_breaks_off_is_asked_again(server: Server, original: Cache, back: Path) -> None:
    misbehave(server, Faults(of="logits", unavailable=3, cut=4))
    assert done("pull", url(server), back)["num_fetched"] == NUM_FILES
    assert files_of(back) == files_of(original.root)


def test_a_connection_that_breaks_off_goes_on_in_the_middle(server: Server, original: Cache, back: Path) -> None:
    misbehave(server, Faults(of="logits/000001-", cut=1))
    before = len(server.requests())
    done("pull", url(server), back)
    size = original.manifest.shards["logits"][1].num_bytes
    asked = [line.split()[-1] for line in server.requests()[before:] if "logits/000001-" in line]
    assert asked == [f"bytes=0-{size - 1}", f"bytes={size // 2}-{size - 1}"]


def test_a_server_without_ranges_serves(server: Server, original: Cache, back: Path) -> None:
    misbehave(server, Faults(without_ranges=True))
    done("pull", url(server), back)
    assert files_of(back) == files_of(original.root)
    assert open_remote(url(server)).read("manifest.json", 10, start=2, stop=12) == b' "format":'


@pytest.mark.parametrize("of", ["logits/000002-", "hidden_uniform/constants", "manifest", "logits/index", "tokenizer/"])
def test_wrong_bytes_are_refused_and_never_appear(server: Server, back: Path, of: str) -> None:
    misbehave(server, Faults(of=of, wrong=True))
    line = refused("pull", url(server), back)
    assert of.rstrip("/-") in line
    assert not (back / "manifest.json").exists()
    assert not list(back.glob(f"{of}*.zarr.zip"))
    assert not (back / "tokenizer").exists() or of != "tokenizer/"
    misbehave(server, Faults())
    done("pull", url(server), back)
    assert verify(back).ok


@pytest.mark.parametrize("of", ["manifest.json", "logits/000000", "vocab.txt"])
def test_a_server_that_never_stops_sending_is_stopped(server: Server, back: Path, of: str) -> None:
    """Of a shard no more is taken than its size, of other files no more than they may have."""
    misbehave(server, Faults(of=of, endless=True))
    if of == "manifest.json":
        from hskcache.errors import DamageError

        with pytest.raises(DamageError, match="is larger than the 5000000 bytes"):
            open_remote(url(server)).read(of, 5_000_000)
        return
    line = refused("pull", url(server), back)
    assert "SHA-256 differs" in line or "larger than" in line


def test_a_server_that_is_gone_ends_in_a_line_and_the_same_command_goes_on(
    server: Server, original: Cache, back: Path
) -> None:
    misbehave(server, Faults(of=".zarr.zip", die_after=9))
    line = refused("pull", url(server), back, "--jobs", 2)
    assert "is out of reach" in line
    assert "run the same command again when the server is back" in line
    assert not (back / "manifest.json").exists()
    whole = list(back.glob("*/*.zarr.zip"))
    assert len(whole) >= 5
    server.kill()
    misbehave(server, Faults())
    server.start()
    before = len(shards_asked(server))
    facts = done("pull", url(server), back)
    assert facts["num_there"] >= len(whole)
    assert len(shards_asked(server)) - before == facts["num_fetched"] == NUM_FILES - facts["num_there"]
    assert files_of(back) == files_of(original.root)


def test_an_interrupt_ends_what_waits_for_a_server_that_is_gone(
    server: Server, original: Cache, back: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HSKCACHE_RETRY_S", "300")
    misbehave(server, Faults(of=".zarr.zip", die_after=2))
    command = [sys.executable, "-c", HEARING, "pull", url(server), str(back)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        server.process.wait(100)
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=300)
    assert child.returncode == 130
    assert said.splitlines()[-1] == "error: interrupted; the same command goes on from what has arrived"
    assert done("pull", local(original), back)["cache_id"] == original.id
    assert verify(back).ok


def test_a_server_that_says_no_is_not_asked_again(server: Server, back: Path) -> None:
    misbehave(server, Faults(denied=True))
    before = len(server.requests())
    assert "is refused to you" in refused("pull", url(server), back)
    assert len(server.requests()) == before + 1


@pytest.mark.parametrize("left", [0, 1, 5, 20, 29, 31])
def test_a_pull_that_is_killed_goes_on_and_fetches_nothing_twice(original: Cache, back: Path, left: int) -> None:
    """Killed before the n-th file gets its name; the first says what is pulled, the last is the manifest."""
    count = left

    def die(name: str, args: tuple[object, ...]) -> None:
        nonlocal count
        if name == "os.rename" and str(back) in str(args[0]):
            count -= 1
            if count < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    work = lambda: pull(open_remote(local(original)), back, Subset())  # noqa: E731
    assert in_child(work, die) == -signal.SIGKILL
    assert not (back / "manifest.json").exists()
    whole = {path: path.stat().st_mtime_ns for path in back.glob("*/*.zarr.zip")}
    facts = done("pull", local(original), back)
    assert facts["num_there"] == len(whole)
    assert {path: path.stat().st_mtime_ns for path in whole} == whole
    assert files_of(back) == files_of(original.root), "nothing that was begun is left"


def test_a_file_that_was_begun_goes_on_and_one_that_a_power_cut_spoilt_begins_anew(
    server: Server, original: Cache, back: Path
) -> None:
    from hskcache.remote.fetch import partial_path

    done("pull", url(server), back)
    record = original.manifest.shards["logits"][4]
    path = shard_file(back, "logits", 4)
    data = path.read_bytes()
    for begun, ranges in ((data[:1000], ["bytes=1000-"]), (bytes(1000), ["bytes=1000-", "bytes=0-"])):
        path.unlink()
        partial_path(path, record.sha256).write_bytes(begun)
        before = len(server.requests())
        assert done("pull", url(server), back)["num_fetched"] == 1
        asked = [line.split()[-1] for line in server.requests()[before:] if "logits/000004" in line]
        assert [one[: len(start)] for one, start in zip(asked, ranges, strict=True)] == ranges
        assert path.read_bytes() == data


def test_a_pull_over_a_damaged_copy_mends_it(original: Cache, back: Path) -> None:
    done("pull", local(original), back)
    data = bytearray(shard_file(back, "logits", 1).read_bytes())
    data[100] ^= 1
    shard_file(back, "logits", 1).write_bytes(data)
    linked = shard_file(back, "inputs", 2)
    linked.unlink()
    linked.symlink_to(shard_file(original.root, "inputs", 2))
    next((back / "hidden_uniform" / "index").iterdir()).write_text("{}")
    (back / "tokenizer" / "vocab.txt").write_text("other")
    (back / "tokenizer" / "extra.txt").write_text("extra")
    facts = done("pull", local(original), back)
    assert (facts["num_fetched"], facts["cache_id"]) == (2, original.id)
    assert files_of(back) == files_of(original.root)
    assert not linked.is_symlink()
    for spoil in (lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:-9])):
        spoil(back / "manifest.json")
        assert done("pull", local(original), back)["num_fetched"] == 0
        assert files_of(back) == files_of(original.root)


def test_two_pulls_do_not_meet(original: Cache, back: Path) -> None:

    back.mkdir()
    with locked(back / ".arriving.lock"):
        assert "another process is writing" in refused("pull", local(original), back)
    done("pull", local(original), back)
    assert not list(back.glob(".*"))


def test_a_disk_that_is_too_small_is_told_before_the_first_byte(
    original: Cache, back: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(original.root)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    assert "has 1.00 kB free; free space, choose another folder" in refused("pull", local(original), back)
    assert not list(back.rglob("*.zarr.zip*"))


def test_the_folder_is_named_after_the_url(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert done("pull", f"{url(server)}/?token=secret-token", "--fields", "inputs")["cache"] == "c.hsk"
    assert (tmp_path / "c.hsk" / "manifest.json").exists()
    output = hskcache("pull", f"{url(server)}?token=secret-token", "--json").output
    assert "secret-token" not in output
    assert any("/c.hsk/logits/000000-" in line for line in server.requests())
