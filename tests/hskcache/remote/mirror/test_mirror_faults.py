"""What goes wrong in the threads that fetch ahead reaches who reads, and nobody waits for a thread that has ended."""

import os
import resource
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from forked import in_child
from mirrored import NUM_SHARDS, SHARD_BYTES, read_all
from unsteady import Unsteady

from hskcache.cache import Cache
from hskcache.errors import CacheError
from hskcache.remote import mirror as mirrors
from hskcache.remote.mirror import open_mirror

ALL = [("logits", shard) for shard in range(NUM_SHARDS)]


@pytest.fixture
def ahead(server: Unsteady, tmp_path: Path) -> Cache:
    """A mirror that has fetched nothing."""
    return open_mirror(server.url, tmp_path / "local")


def refused_in_child(server: Unsteady, local: Path, disturb: Callable[[], object]) -> None:
    """In a child, disturb what fetches ahead, and read: the reader is told in one line, and soon."""

    def work() -> None:
        mirror = open_mirror(server.url, local)
        disturb()
        mirror.ahead(ALL)
        begun = time.monotonic()
        with pytest.raises(CacheError, match=r"cannot write .*; mend that and run the same command again") as told:
            read_all(mirror)
        assert "\n" not in str(told.value)
        assert time.monotonic() - begun < 20

    assert in_child(work) == 0


def test_a_disk_that_takes_no_more_is_told(server: Unsteady, tmp_path: Path) -> None:
    size = SHARD_BYTES // 2
    refused_in_child(server, tmp_path, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)))


def test_a_folder_that_is_removed_is_told(server: Unsteady, tmp_path: Path) -> None:
    refused_in_child(server, tmp_path / "local", lambda: shutil.rmtree(tmp_path / "local"))


def test_a_folder_that_may_not_be_written_any_more_is_told(server: Unsteady, tmp_path: Path) -> None:
    local = tmp_path / "local"

    def lose_rights() -> None:
        for folder in (local, local / "shards"):
            folder.chmod(0o555)
        if os.getuid() == 0:
            # Root may write anywhere; somebody else is to reach the folder, and no more.
            for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
                folder.chmod(0o755)
            os.setuid(65534)

    refused_in_child(server, local, lose_rights)


def test_a_forked_child_is_told_to_open_its_own_and_waits_for_no_thread_of_its_parent(
    ahead: Cache, server: Unsteady, tmp_path: Path
) -> None:
    """The fork comes while other threads fetch, and one has the lock that all of them need."""
    server.pause_s = 0.05
    ahead.ahead(ALL)

    def use() -> None:
        begun = time.monotonic()
        for use in (lambda: ahead.read("logits", 0), lambda: ahead.ahead(ALL), lambda: ahead.tokenizer_path):
            with pytest.raises(CacheError, match="open it after the fork, or spawn processes instead"):
                use()
        assert time.monotonic() - begun < 10
        assert open_mirror(server.url, tmp_path / "own").read("logits", 0)

    with ahead.shelf._mutex:
        assert in_child(use) == 0
    server.pause_s = 0.0
    assert len(read_all(ahead)) == 2 * NUM_SHARDS


@pytest.mark.parametrize("error", [MemoryError("no more"), ValueError("not a number")])
def test_whatever_else_ends_a_thread_is_raised_where_shards_are_read(
    ahead: Cache, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, real = threading.current_thread(), mirrors.fetch_part

    def fails(*arguments: object) -> None:
        if threading.current_thread() is not here:
            raise error
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(mirrors, "fetch_part", fails)
    ahead.ahead(ALL)
    deadline = time.monotonic() + 20
    while any(thread.name == "hskcache-fetch" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(type(error), match=str(error)):
        read_all(ahead)


def test_where_no_thread_is_to_be_had_who_reads_fetches(
    ahead: Cache, original: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under a limit on a container's processes."""

    def full(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        (full if thread.name.startswith("hskcache") else real)(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    ahead.ahead(ALL)
    assert read_all(ahead) == read_all(original)


def test_what_a_power_cut_left_in_a_lock_is_no_reservation(ahead: Cache, original: Cache) -> None:
    from hskcache.locks import locked

    lock = ahead.shelf.folder.files / f"{'0' * 64}.lock"
    lock.write_bytes(b"\0\0\0")
    with locked(lock):
        assert read_all(ahead) == read_all(original)
