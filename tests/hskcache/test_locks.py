"""Locks keep processes apart where the file system has them, and threads where it has none."""

import errno
import fcntl
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from forked import heard, in_child, start

from hskcache import locks
from hskcache.errors import CacheError
from hskcache.locks import WRITING, LockFile, is_locked, lock_bytes, locked, sole_writer

WITHOUT = [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL]


@pytest.fixture(params=WITHOUT, ids=[errno.errorcode[code] for code in WITHOUT])
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No such file system is at hand, so the calls say what one says."""
    monkeypatch.setattr(locks.missing, "_said", set())
    refuse(monkeypatch, request.param)


def refuse(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refused(*_arguments: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refused)
    monkeypatch.setattr(fcntl, "lockf", refused)


def test_who_waits_for_a_lock_that_is_removed_holds_one_that_others_find(tmp_path: Path) -> None:
    """Children that add to a number under the lock never lose one, though each removes the lock file."""
    lock, number = tmp_path / "lock", tmp_path / "number"
    number.write_text("0")

    def count() -> None:
        for _ in range(50):
            with locked(lock, remove=True):
                number.write_text(str(int(number.read_text()) + 1))

    children = [start(count) for _ in range(4)]
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4
    assert number.read_text() == "200"
    assert not lock.exists()


def test_whether_a_lock_is_held_is_told_without_making_one(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_locked(path)
    assert not path.exists()
    with locked(path):
        assert is_locked(path)
    assert not is_locked(path)
    with path.open("r+b") as shared:
        fcntl.flock(shared, fcntl.LOCK_SH)
        assert is_locked(path)


@pytest.mark.usefixtures("no_locks")
def test_threads_keep_apart_where_the_file_system_knows_no_locks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each makes a folder, which can be made once, and removes it before it lets go; one line is said of it."""
    lock, taken = tmp_path / "lock", tmp_path / "taken"
    failed = []

    def work() -> None:
        try:
            for _ in range(40):
                with locked(lock, remove=True):
                    taken.mkdir()
                    taken.rmdir()
        except OSError as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed
    assert not any(thread.is_alive() for thread in threads)
    assert list(tmp_path.iterdir()) == []
    said = f"the file system of {tmp_path} knows no locks: only one process may work on it\n"
    assert capsys.readouterr().err == said


@pytest.mark.usefixtures("no_locks")
def test_without_locks_a_second_holder_in_the_process_is_turned_away_and_shared_ones_are_not(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path), locked(path, wait=False) as again:
        assert not again
        assert is_locked(path)
    assert not is_locked(path)
    files = [LockFile(path, os.open(path, os.O_RDONLY)) for _ in range(3)]
    assert [file.take(shared=True, wait=False) for file in files[:2]] == [True, True]
    assert not files[2].take(wait=False)
    for file in files[:2]:
        file.close()
    assert files[2].take(wait=False)
    files[2].close()
    assert not is_locked(path)


@pytest.mark.usefixtures("no_locks")
def test_without_locks_several_processes_are_refused_but_for_one_that_works_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(CacheError, match=r"knows no locks, by which 2 processes .* start one process"):  # noqa: SIM117
        with locked(tmp_path / "lock", remove=True):
            pass
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path / "lock", for_all=True) as held:
        assert held
    assert not is_locked(tmp_path / "lock")


@pytest.mark.usefixtures("no_locks")
def test_without_locks_a_forked_child_waits_for_no_thread_of_its_parent(tmp_path: Path) -> None:
    def work() -> None:
        with locked(tmp_path / "lock", wait=False) as held:
            assert held

    with locked(tmp_path / "lock"):
        assert in_child(work) == 0


def test_a_child_that_is_forked_while_a_lock_is_held_does_not_keep_it(tmp_path: Path) -> None:
    """Neither from its parent, nor from itself: it might be another thread of its parent that held it."""
    path, (reading, writing) = tmp_path / "lock", os.pipe()

    def work() -> None:
        os.read(reading, 1)
        with locked(path, wait=False) as held:
            assert held

    with locked(path):
        child = start(work)
    with locked(path, wait=False) as held:
        assert held
    os.write(writing, b"x")
    assert os.waitpid(child, 0)[1] == 0


def test_a_forked_child_lets_go_of_no_lock_of_its_parent(tmp_path: Path) -> None:
    file = LockFile(tmp_path / "lock", os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT))
    assert file.take()
    assert in_child(file.close) == 0
    assert is_locked(tmp_path / "lock")
    file.close()
    assert not is_locked(tmp_path / "lock")


@pytest.mark.parametrize("code", [errno.EACCES, errno.EAGAIN])
def test_whichever_way_a_conflict_is_told_it_is_one(tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lock"
    path.touch()
    refuse(monkeypatch, code)
    assert is_locked(path)
    with locked(path, wait=False, remove=True) as held:
        assert not held
    assert path.exists()
    with path.open("r+b") as file:
        assert not lock_bytes(file.fileno(), 1, 3, wait=False)


@pytest.mark.parametrize("code", [errno.EIO, errno.EBADF])
def test_a_disk_that_fails_is_no_file_system_without_locks(
    tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, code)
    with pytest.raises(OSError, match=os.strerror(code)), locked(tmp_path / "lock"):
        pass


def test_a_lock_file_that_cannot_be_removed_while_it_is_open_stays_and_is_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on SMB, where an open file has its name until it is closed."""

    def busy(*_arguments: Any, **_named: Any) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr(os, "unlink", busy)
    for _ in range(2):
        with locked(tmp_path / "lock", remove=True) as held:
            assert held
    monkeypatch.undo()
    assert not is_locked(tmp_path / "lock")


@pytest.mark.parametrize("is_file", [False, True], ids=["folder", "file"])
def test_a_second_writer_is_told_of_the_first_until_that_is_gone_however_it_ends(is_file: bool, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    reading, writing = os.pipe()

    def hold() -> None:
        with sole_writer(out, is_file):
            os.write(writing, b"!")
            time.sleep(60)

    child = start(hold)
    try:
        assert heard(reading) == b"!"
        told = rf"out is being written by another process \({child} on .+\); wait for it, or give another --out"
        with pytest.raises(CacheError, match=told), sole_writer(out, is_file):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with sole_writer(out, is_file):
        assert [path.name for path in out.parent.rglob("*.writing")] == [".out.writing" if is_file else ".writing"]
    assert not list(tmp_path.rglob("*.writing"))


def test_a_writer_that_writes_nothing_leaves_nothing(tmp_path: Path) -> None:
    for is_file in (False, True):
        with sole_writer(tmp_path / "deep" / "out", is_file):
            pass
    assert not list(tmp_path.iterdir())
    with sole_writer(tmp_path / "out"):
        (tmp_path / "out" / "run.json").touch()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["run.json"]


def test_who_cannot_write_is_no_second_writer() -> None:
    """A finished folder on a disk that can only be read is told to be finished."""
    with sole_writer(Path("/proc/self/out")):
        pass


@pytest.mark.usefixtures("no_locks")
def test_without_locks_a_writer_goes_on_and_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with sole_writer(tmp_path / "out"):
        assert (tmp_path / "out" / WRITING).is_file()
    assert "knows no locks" in capsys.readouterr().err
