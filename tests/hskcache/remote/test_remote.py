"""Files at a URL: what servers say becomes one line or another attempt, for any number of threads and processes."""

import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from forked import in_child
from hypothesis import given
from hypothesis import strategies as st
from noise import NUM_SHARDS, write_cache
from noise import files as files_of
from paramiko import SSHException
from servers import Faults, Server, http_server, make_bucket, misbehave, s3_server, sftp_server
from sharing import done, reach, refused

from hskcache.depot.retry import OutOfReachError, patiently, retry_seconds
from hskcache.errors import CacheError, DamageError, SpecError
from hskcache.move.parallel import in_parallel
from hskcache.remote import objects, sftp
from hskcache.remote.folders import SftpFiles
from hskcache.remote.objects import PIECE_BYTES
from hskcache.remote.place import is_url
from hskcache.remote.remote import Remote, open_remote
from hskcache.remote.systems import open_system
from hskcache.verify import verify

NUM_FILES = 3 * NUM_SHARDS + 1
CHILD = """
import os, signal, sys
from hskcache.cli import main
from hskcache.move.parallel import in_parallel
from hskcache.remote import objects, sftp
from hskcache.remote.folders import SftpFiles
from hskcache.remote.objects import PIECE_BYTES
from hskcache.remote.remote import Remote
name, left = sys.argv[1], int(sys.argv[2])
work = getattr(Remote, name)
def dying(*args):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return work(*args)
setattr(Remote, name, dying)
main(sys.argv[3:])
"""


@pytest.fixture
def served(tmp_path: Path) -> Path:
    (tmp_path / "served").mkdir()
    return tmp_path / "served"


@pytest.fixture
def server(served: Path, tmp_path: Path) -> Iterator[Server]:
    with http_server(served, tmp_path / "state") as running:
        yield running


def killed(name: str, left: int, *args: object) -> int:
    """Exit code of a command that is killed at the n-th call of a method of Remote."""
    command = [sys.executable, "-c", CHILD, name, str(left), *map(str, args)]
    return subprocess.run(command, capture_output=True).returncode


@pytest.mark.parametrize(
    ("text", "told"),
    [("s3://b/c", True), ("hf://datasets/a/b", True), ("c.hsk", False), ("/a://b", False), ("s3:/b", False)],
)
def test_urls_are_told_from_paths(text: str, told: bool) -> None:
    assert is_url(text) is told


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf", ""])
def test_a_time_that_is_none_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HSKCACHE_RETRY_S", text)
    with pytest.raises(SpecError, match="is not a number of seconds; give one such as 60"):
        retry_seconds()


def test_attempts_end_with_the_time_and_nothing_else_is_tried_twice() -> None:
    attempts: list[float] = []

    def fail(error: Exception) -> None:
        attempts.append(time.monotonic())
        raise error

    with pytest.raises(OutOfReachError, match="gone"):
        patiently(lambda: fail(OutOfReachError("gone")), 0.5)
    assert len(attempts) > 2
    attempts.clear()
    with pytest.raises(OutOfReachError, match="gone"):
        patiently(lambda: fail(OutOfReachError("gone")), 0.0)
    with pytest.raises(FileNotFoundError):
        patiently(lambda: fail(FileNotFoundError()), 10.0)
    assert len(attempts) == 2


def test_a_long_silence_is_followed_by_another_attempt() -> None:
    def work() -> Iterator[str]:
        time.sleep(0.6)
        yield "silence"
        yield "answer"

    answers = work()

    def ask() -> str:
        if (answer := next(answers)) == "silence":
            raise OutOfReachError(answer)
        return answer

    assert patiently(ask, 0.5) == "answer"


def test_an_interrupt_while_work_is_handed_out_ends_what_waits() -> None:
    given_up = threading.Event()

    def items() -> Iterator[int]:
        yield from range(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        in_parallel(lambda _item: given_up.wait(60), items(), 2, given_up.set)
    assert given_up.is_set()


@given(
    user=st.from_regex(r"[a-zA-Z0-9._%-]{1,12}", fullmatch=True),
    password=st.from_regex(r"[A-Za-z0-9!$&'()*+,;=._~%-]{4,20}", fullmatch=True),
)
def test_no_user_and_no_password_is_in_what_people_read(user: str, password: str) -> None:
    remote = Remote(f"sftp://{user}:{password}@example.org:22/data/c.hsk/", 0.0)
    assert remote.url == "sftp://example.org:22/data/c.hsk"
    assert remote.describe("a/b") == "sftp://example.org:22/data/c.hsk/a/b"
    said = remote._redact(f"cannot connect to {user}:{password}@example.org with {password}")
    assert password not in said.replace("example.org", "").replace("cannot connect to", "")


def test_an_at_sign_in_a_path_is_no_secret() -> None:
    assert Remote("hf://datasets/me/it@main/c.hsk", 0.0).url == "hf://datasets/me/it@main/c.hsk"
    assert Remote("https://h/c.hsk?key=abc", 0.0).url == "https://h/c.hsk"


def test_a_file_is_read_in_parts_and_no_more_of_it_than_may_be(server: Server, served: Path) -> None:
    (served / "a").write_bytes(b"0123456789")
    (served / "empty").write_bytes(b"")
    remote = open_remote(server.url, retry_s=0)
    assert (remote.read("a", 10), remote.read("a", 2, 3, 5)) == (b"0123456789", b"34")
    assert (remote.size("a"), remote.size("empty"), remote.size("none")) == (10, 0, None)
    with pytest.raises(DamageError, match="a is larger than the 9 bytes"):
        remote.read("a", 9)
    with pytest.raises(FileNotFoundError):
        remote.read("none", 9)
    with pytest.raises(CacheError, match="its server only gives"):
        remote.write("b", b"")
    assert remote.names("") is None


def test_a_local_file_is_written_whole_in_folders_that_are_made(tmp_path: Path) -> None:
    remote = open_remote(f"file://{tmp_path}/a b/ü", retry_s=0)
    for data in (b"one", b"the other"):
        remote.write("x/y/z.json", data)
        assert (tmp_path / "a b" / "ü" / "x" / "y" / "z.json").read_bytes() == data
    assert remote.names("x") == ["y/z.json"]
    assert remote.size("x") is None, "a folder is no file"
    remote.remove("x/y/z.json")
    remote.remove("x/y/z.json")
    assert (remote.names("x"), remote.names("none")) == ([], [])


def test_threads_share_a_remote(served: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = {f"{number}": os.urandom(1000 + number) for number in range(40)}
    with sftp_server(served) as other:
        reach(other, monkeypatch)
        remote = open_remote(other.url, retry_s=5)
        with ThreadPoolExecutor(6) as threads:
            list(threads.map(lambda name: remote.write(name, contents[name]), contents))
        for one in (remote, open_remote(server.url, retry_s=5)):
            with ThreadPoolExecutor(6) as threads:
                found = list(threads.map(lambda name: one.read(name, 2000), contents))  # noqa: B023
            assert found == list(contents.values())


def test_a_forked_child_is_told_to_open_its_own_and_its_parent_reads_on(served: Path, server: Server) -> None:
    (served / "a").write_bytes(b"abc")
    remote = open_remote(server.url, retry_s=60)

    def use() -> None:
        begun = time.monotonic()
        uses = [lambda: remote.read("a", 9), lambda: remote.size("a"), lambda: next(remote.pieces("a", 0, 3))]
        for use in (*uses, lambda: remote.write("a", b""), lambda: remote.remove("a")):
            with pytest.raises(CacheError, match="open it after the fork, or spawn processes instead") as told:
                use()
            assert "\n" not in str(told.value)
        assert time.monotonic() - begun < 10
        assert open_remote(server.url, retry_s=60).read("a", 9) == b"abc"

    assert in_child(use) == 0, "before anything was asked for"
    for _ in range(3):
        assert remote.read("a", 9) == b"abc"
        assert in_child(use) == 0


def test_a_child_that_clears_away_what_it_inherited_takes_no_answer_of_its_parent(served: Path, server: Server) -> None:
    """What its parent has forgotten, too, but may meet again."""
    (served / "a").write_bytes(b"abc")
    for _ in range(3):
        assert open_remote(server.url, retry_s=0).read("a", 9) == b"abc"
        assert in_child(gc.collect) == 0


def test_a_server_that_comes_back_is_found_again(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (served / "a").write_bytes(b"abc")
    with sftp_server(served) as server:
        reach(server, monkeypatch)
        remote = open_remote(server.url, retry_s=20)
        assert remote.read("a", 9) == b"abc"
        server.kill()
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(remote.read, "a", 9)
            server.start()
            assert waiting.result() == b"abc"


def test_items_are_taken_little_before_their_turn_and_results_keep_their_order() -> None:
    taken, gate = list[int](), threading.Event()

    def items() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            if number == 100:
                gate.set()
            yield number

    def work(number: int) -> int:
        # The first answers last.
        if number == 0:
            assert gate.wait(20)
        assert taken[-1] - number <= 20 or number == 0
        return number * 2

    assert in_parallel(work, items(), 2, gate.set) == [2 * number for number in range(1000)]


def test_an_sftp_connection_that_is_lost_is_no_end_of_a_file(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which it is to paramiko where it cannot ask for more; and where nothing comes any more it waits."""
    monkeypatch.setattr(sftp, "SILENCE_S", 1.0)
    (served / "a").write_bytes(bytes(2 * PIECE_BYTES))
    with sftp_server(served) as server:
        reach(server, monkeypatch)
        files = open_system("sftp", server.url)
        assert isinstance(files, SftpFiles)
        pieces = files.pieces("a", 0, 2 * PIECE_BYTES)
        next(pieces)
        files._client.get_transport().sock.shutdown(socket.SHUT_WR)
        with pytest.raises((OSError, SSHException)):
            list(pieces)


def test_sftp_tells_of_threads_that_fail_but_of_none_that_lost_a_connection(
    served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (served / "a").write_bytes(bytes(2 * PIECE_BYTES))
    code = f"""
import threading
from hskcache.remote import sftp
from hskcache.remote.systems import open_system
sftp.SILENCE_S = 1.0
files = open_system("sftp", {{url!r}})
pieces = files.pieces("a", 0, {2 * PIECE_BYTES})
next(pieces)
files._client.get_transport().sock.shutdown(1)
try:
    list(pieces)
except Exception:
    print("lost")
thread = threading.Thread(target=lambda: open("/nowhere"))
thread.start()
thread.join()
"""
    with sftp_server(served) as server:
        reach(server, monkeypatch)
        ended = subprocess.run([sys.executable, "-c", code.format(url=server.url)], capture_output=True, text=True)
    assert ended.stdout == "lost\n"
    assert ended.stderr.count("Traceback") == 1
    assert "/nowhere" in ended.stderr


def test_an_s3_server_that_takes_no_more_of_a_file_ends_the_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server() as server:
        reach(server, monkeypatch)
        remote = open_remote(server.url, retry_s=0)
        remote.write("a", b"")
        # Only now: on a busy machine to connect alone takes longer.
        monkeypatch.setattr(objects, "SILENCE_S", 1.0)
        monkeypatch.setattr(objects, "_SLOWEST_BYTES_PER_S", 1e8)
        server.process.send_signal(signal.SIGSTOP)
        with pytest.raises(OutOfReachError, match="FSTimeoutError"):
            remote.write("a", bytes(1 << 26))


def test_an_sftp_server_that_takes_no_more_of_a_file_ends_the_attempt(
    served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the system keeps so little of what is sent that the server's own window is never full."""
    monkeypatch.setattr(sftp, "SILENCE_S", 1.0)
    fill = SftpFiles._fill

    def frozen(files: SftpFiles, file: Any, data: bytes) -> None:
        files._client.get_transport().sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        server.process.send_signal(signal.SIGSTOP)
        fill(files, file, data)

    monkeypatch.setattr(SftpFiles, "_fill", frozen)
    with sftp_server(served) as server:
        reach(server, monkeypatch)
        with pytest.raises(OutOfReachError):
            open_remote(server.url, retry_s=0).write("a", bytes(1 << 26))


def test_what_may_pass_is_tried_again_and_what_may_not_is_not(server: Server, served: Path) -> None:
    (served / "a").write_bytes(b"abc")
    remote = open_remote(server.url, retry_s=5)
    misbehave(server, Faults(unavailable=2))
    assert remote.read("a", 9) == b"abc"
    assert len(server.requests()) == 3
    misbehave(server, Faults(denied=True))
    with pytest.raises(CacheError, match="is refused to you"):
        remote.read("a", 9)
    assert len(server.requests()) == 4


def test_a_server_that_dies_in_the_middle_of_a_push_is_told_and_the_push_goes_on(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, work, written = write_cache(tmp_path / "c.hsk"), Remote.write, []
    monkeypatch.setenv("HSKCACHE_RETRY_S", "1")
    with sftp_server(served) as server:
        reach(server, monkeypatch)

        def write(remote: Remote, name: str, data: bytes) -> None:
            written.append(name)
            if len(written) == 20:
                server.kill()
            work(remote, name, data)

        with monkeypatch.context() as patched:
            patched.setattr(Remote, "write", write)
            line = refused("push", cache.root, f"{server.url}/c.hsk", "--jobs", 2)
        assert "is out of reach" in line
        server.start()
        assert done("push", cache.root, f"{server.url}/c.hsk", "--verify")["num_there"] >= 8
    assert verify(served / "c.hsk").ok


def test_without_fsspec_the_extra_is_named(tmp_path: Path) -> None:
    script = "import sys; sys.modules['fsspec'] = None; from hskcache.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", script, "pull", "s3://bucket/c.hsk", str(tmp_path / "c")]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "error: fsspec is not installed; install the extra: pip install 'hskcache[share]'\n"


def test_without_credentials_those_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    reach(Server("s3://bucket", [], 0, {"AWS_EC2_METADATA_DISABLED": "true"}), monkeypatch)
    line = refused("pull", "s3://bucket/c.hsk", tmp_path / "c")
    assert "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or FSSPEC_S3_ANON=true" in line


def test_commands_on_s3_that_are_killed_go_on_and_a_server_that_dies_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, back = write_cache(tmp_path / "c.hsk"), tmp_path / "back"
    monkeypatch.setenv("HSKCACHE_RETRY_S", "1")
    with s3_server() as server:
        reach(server, monkeypatch)
        url = f"{server.url}/c.hsk"
        assert killed("write", 10, "push", cache.root, url, "--jobs", 2) == -signal.SIGKILL
        assert "has no manifest.json" in refused("pull", url, back)
        assert 8 <= done("push", cache.root, url)["num_there"] <= 10
        assert killed("pieces", 14, "pull", url, back, "--jobs", 2) == -signal.SIGKILL
        whole = {path: path.stat().st_mtime_ns for path in back.glob("*/*.zarr.zip")}
        assert len(whole) >= 6
        assert done("pull", url, back)["num_there"] == len(whole)
        assert {path: path.stat().st_mtime_ns for path in whole} == whole
        assert files_of(back) == files_of(cache.root)
        server.kill()
        lines = [refused("push", cache.root, url), refused("pull", url, back)]
        assert all("is out of reach" in line and "when the server is back" in line for line in lines)
        server.start()
        make_bucket(server)
        assert done("push", cache.root, url)["num_sent"] == NUM_FILES
