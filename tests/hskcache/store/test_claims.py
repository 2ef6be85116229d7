"""Processes that share a folder divide its shards among themselves, whenever they come, leave or die."""

import errno
import fcntl
import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from forked import heard, in_child, start

from hskcache.errors import CacheError
from hskcache.store.claims import CLAIMS, UNSHARED, claiming


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / CLAIMS


def child_holding(path: Path, work: Callable[[Any], object]) -> tuple[int, int]:
    """A child that did ``work`` with its claims and keeps them until a byte is written to the pipe that is returned."""
    ready, go = os.pipe(), os.pipe()

    def hold() -> None:
        with claiming(path) as claims, ExitStack() as stack:
            held = work(claims)
            if hasattr(held, "__enter__"):
                stack.enter_context(held)
            os.write(ready[1], b"x")
            os.read(go[0], 1)

    child = start(hold)
    heard(ready[0])
    return child, go[1]


def let_go(child: int, go: int) -> int:
    os.write(go, b"x")
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_shard_is_claimed_by_one_process_until_it_lets_go(path: Path) -> None:
    child, go = child_holding(path, lambda claims: claims.claim(5))
    with claiming(path) as claims:
        assert [claims.claim(shard) for shard in (4, 5, 6)] == [True, False, True]
        assert let_go(child, go) == 0
        assert claims.claim(5)


def test_a_claim_ends_with_its_process_however_that_ends(path: Path) -> None:
    child, _ = child_holding(path, lambda claims: claims.claim(5))
    with claiming(path) as claims:
        assert not claims.claim(5)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert claims.claim(5)


def test_a_released_shard_is_free_and_others_stay_claimed(path: Path) -> None:
    def take(claims: Any) -> None:
        claims.claim(1)
        claims.claim(2)
        claims.release(1)

    child, go = child_holding(path, take)
    with claiming(path) as claims:
        assert [claims.claim(1), claims.claim(2)] == [True, False]
    assert let_go(child, go) == 0


def test_the_last_to_leave_removes_the_file_and_nobody_else(path: Path) -> None:
    child, go = child_holding(path, lambda _claims: None)
    with claiming(path):
        pass
    assert path.exists()
    assert let_go(child, go) == 0
    assert not path.exists()


def test_a_file_that_a_killed_process_left_is_used_and_removed(path: Path) -> None:
    child, _ = child_holding(path, lambda claims: claims.claim(1))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert path.exists()
    with claiming(path) as claims:
        assert claims.claim(1)
    assert not path.exists()


def test_many_that_come_and_go_never_claim_the_same_shard_at_once_and_leave_nothing(path: Path, tmp_path: Path) -> None:
    """Whoever has claimed it makes a folder, which can be made once, and removes it before letting go."""
    taken = tmp_path / "taken"

    def work() -> None:
        for _ in range(60):
            with claiming(path) as claims:
                if claims.claim(3):
                    taken.mkdir()
                    taken.rmdir()
                    claims.release(3)

    children = [start(work) for _ in range(6)]
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 6
    assert list(tmp_path.iterdir()) == []


def test_being_alone_waits_for_another_and_being_idle_for_its_claims_too(path: Path, tmp_path: Path) -> None:
    child, go = child_holding(path, lambda claims: claims.claim(3))

    def quick() -> None:
        with claiming(path) as claims, claims.alone():
            pass

    assert in_child(quick) == 0

    def idle() -> None:
        with claiming(path) as claims, claims.alone(idle=True):
            (tmp_path / "idle").touch()

    waiting = start(idle)
    with claiming(path) as claims:
        # Until it has the lock it stands in the queue, in which a claim of ours would not make it wait longer.
        assert not claims.claim(3)
        assert not (tmp_path / "idle").exists()
        assert let_go(child, go) == 0
        assert os.waitstatus_to_exitcode(os.waitpid(waiting, 0)[1]) == 0
    assert (tmp_path / "idle").exists()


def test_two_are_never_alone_at_once(path: Path, tmp_path: Path) -> None:
    taken = tmp_path / "taken"

    def work() -> None:
        for _ in range(50):
            with claiming(path) as claims, claims.alone():
                taken.mkdir()
                taken.rmdir()

    children = [start(work) for _ in range(4)]
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_serves_one_process_and_is_refused_to_several(
    path: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No such file system is at hand, so the call that would fail is made to."""

    def refuse(*_arguments: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with claiming(path) as claims:
        assert claims is UNSHARED
        assert claims.claim(1)
        claims.release(1)
        with claims.alone(idle=True):
            pass
    assert not path.exists()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(CacheError, match=r"knows no locks, .* start one process"), claiming(path):
        pass
    assert not path.exists()


def test_a_folder_that_cannot_be_written_is_no_folder_without_locks(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), claiming(tmp_path / "missing" / CLAIMS):
        pass
