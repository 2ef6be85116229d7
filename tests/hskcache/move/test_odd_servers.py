"""Servers that are odd, as they may be or not: pages in place of files, other ranges, signed redirects, strangers."""

import gzip
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from asyncssh import generate_private_key
from fsspec.config import conf
from noise import NUM_SHARDS
from noise import files as files_of
from servers import PASSWORD, Server, sftp_server
from sharing import done, hskcache, reach, refused

from hskcache.cache import Cache
from hskcache.remote.remote import open_remote

PAGE = b"<!doctype html><title>Not here</title>"
SECRET = "top-secret-signature"


class Odd(ThreadingHTTPServer):
    """Serves a folder; ``manner`` says how."""

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.manner = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/c.hsk"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Odd

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        manner = self.server.manner
        if manner in {"signed", "expired"} and not query:
            self._answer(302, b"", Location=f"{path}?Signature={SECRET}")
        elif manner == "expired":
            self._answer(403, b"")
        elif not (file := self.server.root / path.lstrip("/")).is_file():
            self._answer(200 if manner == "pages" else 404, PAGE)
        elif manner == "gzip":
            self._answer(200, gzip.compress(file.read_bytes()), **{"Content-Encoding": "gzip"})
        else:
            self._range(file.read_bytes(), manner)

    def _range(self, data: bytes, manner: str) -> None:
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"])
        assert found is not None
        start, stop = int(found[1]), min(int(found[2]) + 1, len(data))
        if start >= len(data):
            self._answer(416, b"")
            return
        if manner == "short":
            stop = min(stop, start + 700)
        start += manner == "shifted" and stop - start > 1
        self._answer(206, data[start:stop], **{"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"})

    def _answer(self, status: int, data: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Nothing is said."""


@pytest.fixture
def odd(original: Cache) -> Iterator[Odd]:
    server = Odd(original.root.parent)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HSKCACHE_RETRY_S", "0")


@pytest.mark.parametrize("manner", ["pages", "gzip", "signed"])
def test_a_cache_comes_whole_from_a_server_with_habits_of_its_own(
    odd: Odd, original: Cache, tmp_path: Path, manner: str
) -> None:
    """Of the names that tokenizers have, a server that answers with pages seems to have every one."""
    odd.manner = manner
    done("pull", odd.url, tmp_path / "back")
    assert files_of(tmp_path / "back") == files_of(original.root)


def test_a_server_that_gives_only_so_much_at_a_time_is_asked_for_the_rest(odd: Odd, original: Cache) -> None:
    odd.manner = "short"
    remote, name = open_remote(odd.url), original.manifest.shards["logits"][1].path
    data = (original.root / name).read_bytes()
    assert len(data) > 10_000
    assert remote.read(name, len(data)) == data
    assert remote.read(name, 2000, 5, 2005) == data[5:2005]


def test_another_range_than_was_asked_for_is_no_content(odd: Odd, tmp_path: Path) -> None:
    odd.manner = "shifted"
    line = refused("pull", odd.url, tmp_path / "back")
    assert "bytes from 1 were sent where those from 0 were asked for" in line


def test_a_page_in_place_of_a_manifest_is_told(odd: Odd, tmp_path: Path) -> None:
    odd.manner = "pages"
    line = refused("pull", odd.url.replace("c.hsk", "none.hsk"), tmp_path / "back")
    assert "is no manifest" in line
    assert "<!doctype html>" in line
    assert not (tmp_path / "back").exists()


def test_a_signed_url_that_a_server_sends_us_to_is_not_printed(odd: Odd, tmp_path: Path) -> None:
    odd.manner = "expired"
    line = refused("pull", odd.url, tmp_path / "back")
    assert "is refused to you" in line
    assert SECRET not in line


def test_an_escaped_name_names_the_folder_as_people_write_it(
    odd: Odd, original: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd.root = tmp_path / "served"
    (odd.root / "my caches").mkdir(parents=True)
    (odd.root / "my%20caches").symlink_to(odd.root / "my caches")
    (odd.root / "my caches" / "a%20b.hsk").symlink_to(original.root)
    monkeypatch.chdir(tmp_path)
    url = odd.url.replace("c.hsk", "my%20caches/a%20b.hsk#top")
    assert done("pull", url, "--rows", 5)["cache"] == "a b.hsk"
    assert "could name a folder" in refused("pull", odd.url.replace("c.hsk", "..%2Fup"))


@pytest.mark.parametrize("url", ["file:///", "s3://", "s3:///", "http://", "https:///x", "sftp:///x"])
def test_a_url_that_names_no_place_is_refused(original: Cache, url: str) -> None:
    assert "names no place" in refused("push", original.root, url)


def test_the_letters_of_a_scheme_may_be_large(original: Cache, tmp_path: Path) -> None:
    assert done("pull", f"FILE://{original.root}", tmp_path / "back")["cache_id"] == original.id


@pytest.fixture
def sftp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    (tmp_path / "served").mkdir()
    with sftp_server(tmp_path / "served") as server:
        reach(server, monkeypatch)
        yield server


def test_a_host_that_is_not_known_gets_no_password(
    sftp: Server, original: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = tmp_path / "none"
    sftp.environment["FSSPEC_SFTP_KNOWN_HOSTS"] = str(known)
    reach(sftp, monkeypatch)
    line = refused("push", original.root, f"{sftp.url}/c.hsk")
    assert f"is not in {known}, so nobody knows whether it is what it says" in line
    assert "ssh-ed25519 SHA256:" in line
    assert f"ssh-keyscan -p {sftp.port} 127.0.0.1 >> {known}" in line
    assert PASSWORD not in line
    sftp.environment["FSSPEC_SFTP_HOST_KEY_POLICY"] = "auto_add"
    reach(sftp, monkeypatch)
    assert done("push", original.root, f"{sftp.url}/c.hsk")["num_sent"] == 3 * NUM_SHARDS + 1


def test_a_host_with_another_key_than_it_had_is_refused_whatever_the_policy(
    sftp: Server, original: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = generate_private_key("ssh-ed25519").export_public_key().decode()
    Path(sftp.environment["FSSPEC_SFTP_KNOWN_HOSTS"]).write_text(f"[127.0.0.1]:{sftp.port} {other}")
    for policy in ("reject", "auto_add"):
        sftp.environment["FSSPEC_SFTP_HOST_KEY_POLICY"] = policy
        reach(sftp, monkeypatch)
        assert "shows another host key" in refused("push", original.root, f"{sftp.url}/c.hsk")


@pytest.mark.parametrize(
    ("manner", "said"),
    [
        ("die", "is out of reach"),
        ("hang", "is out of reach"),
        ("stop", "is out of reach"),
        ("busy", "is out of reach"),
        ("no", "is refused to you (Authentication failed.)"),
    ],
)
def test_a_server_that_says_no_is_told_from_one_that_says_nothing(
    original: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, manner: str, said: str
) -> None:
    with sftp_server(tmp_path, at_sign_in=manner) as server:
        reach(server, monkeypatch)
        if manner in {"hang", "stop"}:
            for step in ("auth_timeout", "channel_timeout"):
                monkeypatch.setitem(conf["sftp"], step, 2)
        line = refused("push", original.root, f"{server.url}/c.hsk", "--jobs", 1)
    assert said in line


def test_a_server_that_takes_no_more_keys_and_hangs_up_ends_it_in_one_line(
    original: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "key"
    generate_private_key("ssh-ed25519").write_private_key(str(key))
    with sftp_server(tmp_path, at_sign_in="bye") as server:
        reach(server, monkeypatch)
        monkeypatch.setitem(conf["sftp"], "key_filename", str(key))
        line = refused("push", original.root, f"{server.url}/c.hsk", "--jobs", 1)
    assert "is out of reach" in line


def test_what_is_removed_over_sftp_is_what_has_the_name(sftp: Server, tmp_path: Path) -> None:
    """Whatever a pattern of that name would find."""
    served = tmp_path / "served"
    for name in ("x1", "x[12]"):
        (served / name).mkdir()
        (served / name / "a").write_bytes(b"a")
    open_remote(f"{sftp.url}/x[12]").remove("a")
    assert (served / "x1" / "a").exists()
    assert not (served / "x[12]" / "a").exists()


def test_a_path_over_sftp_may_hold_what_urls_have_other_uses_for(sftp: Server, original: Cache, tmp_path: Path) -> None:
    done("push", original.root, f"{sftp.url}/a b%20#1/ü.hsk")
    assert (tmp_path / "served" / "a b%20#1" / "ü.hsk" / "manifest.json").exists()
    assert "has no query" in refused("push", original.root, f"{sftp.url}/a?b")
    assert hskcache("pull", f"{sftp.url}/a b%20#1/ü.hsk", tmp_path / "back").exit_code == 0
