"""A server that refuses is told of at once, a silent one while it is waited for; what cannot mend is final."""

import os
import pty
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import free_port
from sharing import refused

from hskcache.depot import waiting
from hskcache.depot.retry import OutOfReachError, patiently
from hskcache.depot.waiting import Waiting

COMMAND = [sys.executable, "-m", "hskcache", "info"]


@pytest.fixture
def silent() -> Iterator[str]:
    """URL of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_a_refusal_is_told_before_it_is_tried_again_and_the_error_comes_last() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    begun = time.monotonic()
    environment = os.environ | {"HSKCACHE_RETRY_S": "2"}
    with subprocess.Popen([*COMMAND, url], stderr=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stderr is not None
        first = child.stderr.readline()
        told_after = time.monotonic() - begun
        rest = child.stderr.read()
        lasted = time.monotonic() - begun
    why = f"{url}/manifest.json is out of reach (Connection refused); "
    assert first == f"{why}trying again for 2 s (HSKCACHE_RETRY_S)\n"
    assert rest.startswith(f"error: {why}nothing is lost")
    assert rest.count("\n") == 1
    assert child.returncode == 2
    assert lasted - told_after > 1


def test_a_silent_server_is_told_of_now_and_then(silent: str) -> None:
    """With the seconds between two lines made fewer; the process is ended, as nobody would answer it."""
    hasten = "from hskcache.depot import waiting; waiting.EVERY_S, waiting._TICK_S = 1.0, 0.1; "
    program = f"{hasten}import sys; sys.argv = ['hskcache', 'info', {silent!r}]; from hskcache.cli import main; main()"
    with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        lines = [child.stderr.readline() for _ in range(2)]
        child.kill()
    words = rf"{silent}/manifest.json has not answered for \d s; waiting up to 5\d s more\n"
    assert all(re.fullmatch(words, line) for line in lines)
    assert lines[0] != lines[1]


def test_on_a_terminal_a_line_counts_down_and_is_cleared() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    ours, theirs = pty.openpty()
    environment = os.environ | {"HSKCACHE_RETRY_S": "3", "COLUMNS": "60"}
    child = subprocess.Popen([*COMMAND, url], stderr=theirs, env=environment)
    os.close(theirs)
    seen = b""
    while True:
        try:
            seen += os.read(ours, 4096)
        except OSError:
            break
    os.close(ours)
    assert child.wait() == 2
    shown = [part for part in seen.decode().split("\r\x1b[2K") if part.startswith("trying again")]
    assert len({part[:20] for part in shown}) > 1
    assert all(len(part) < 60 for part in shown)
    assert seen.decode().rpartition("\r\x1b[2K")[2].startswith("error: ")


def test_threads_that_fail_together_are_told_of_once_and_again_after_a_while(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "EVERY_S", 0.3)
    told = Waiting()
    for _ in range(3):
        with told.another_attempt("gone", 5.0):
            pass
    assert capsys.readouterr().err == "gone; trying again for 5 s (HSKCACHE_RETRY_S)\n"
    time.sleep(0.4)
    with told.another_attempt("gone", 5.0):
        pass
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_server_that_gives_all_the_time_is_not_called_silent(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "EVERY_S", 0.3)
    monkeypatch.setattr(waiting, "_TICK_S", 0.05)
    told = Waiting()
    with told.answer("it") as wait:
        for _ in range(5):
            time.sleep(0.1)
            wait.rests()
            wait.goes_on()
        wait.rests()
        time.sleep(0.5)
        assert capsys.readouterr().err == ""
        wait.goes_on()
        time.sleep(0.5)
    assert capsys.readouterr().err.startswith("it has not answered for 0 s; waiting up to 60 s more\n")


def test_nobody_is_left_to_tell_once_nothing_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_TICK_S", 0.05)
    before = set(threading.enumerate())
    told = Waiting()
    for _ in range(20):
        with told.answer("it"):
            teller = set(threading.enumerate()) - before
            assert len(teller) == 1
    for thread in teller:
        thread.join(10)
        assert not thread.is_alive()


def test_the_first_success_after_a_failure_ends_the_waiting() -> None:
    answers = iter([OutOfReachError("gone"), None])

    def ask() -> str:
        if (error := next(answers)) is not None:
            raise error
        return "here"

    assert patiently(ask, 5.0) == "here"


def test_offline_the_hub_is_not_asked_and_not_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HSKCACHE_RETRY_S", "30")
    begun = time.monotonic()
    for command in (["info"], ["pull"]):
        where = [tmp_path / "c"] if command == ["pull"] else []
        said = refused(*command, "hf://datasets/some/name", *where)
        assert "HF_HUB_OFFLINE=1 says not to ask; unset it, or give a folder" in said
    assert time.monotonic() - begun < 10
