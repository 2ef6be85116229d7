"""A cache goes to each kind of server and comes back the same, against real servers on loopback."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from noise import NUM_SHARDS
from noise import files as files_of
from servers import BUCKET, PASSWORD, Server, http_server, nginx_server, s3_server, sftp_server, sshd_server
from sharing import done, hskcache, reach, refused
from stored import both_manifests

from hskcache.cache import Cache, open_cache
from hskcache.remote import parts
from hskcache.remote.mirror import open_mirror
from hskcache.remote.parts import parts_of
from hskcache.remote.remote import open_remote

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "tiny-2.hsk"
NUM_FILES = 3 * NUM_SHARDS + 1


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HSKCACHE_RETRY_S", "2")


@pytest.fixture(scope="module")
def s3() -> Iterator[Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def writable(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that takes files, in a folder of its own."""
    if request.param == "s3":
        server = request.getfixturevalue("s3")
        reach(server, monkeypatch)
        yield server
        return
    root = tmp_path / "served"
    root.mkdir()
    with sftp_server(root) if request.param == "asyncssh" else sshd_server(root, tmp_path / "sshd") as server:
        if server is None:
            pytest.skip("sshd is not installed, or may not run here")
        reach(server, monkeypatch)
        yield server


@pytest.mark.parametrize("writable", ["s3", "asyncssh", "sshd"], indirect=True)
def test_what_is_pushed_and_pulled_back_is_the_same_and_goes_once(
    writable: Server, original: Cache, tmp_path: Path
) -> None:
    url = f"{writable.url}/deep/c.hsk"
    first = done("push", original.root, url, "--verify", "--jobs", 3)
    assert (first["num_sent"], first["num_there"], first["bytes_verified"]) == (NUM_FILES, 0, first["num_bytes"])
    assert done("push", original.root, url)["num_sent"] == 0
    pulled = done("pull", url, tmp_path / "back", "--jobs", 3)
    assert (pulled["num_fetched"], pulled["cache_id"]) == (NUM_FILES, original.id)
    assert files_of(tmp_path / "back") == files_of(original.root)
    assert hskcache("verify", tmp_path / "back").exit_code == 0
    assert done("pull", url, tmp_path / "back")["num_fetched"] == 0


@pytest.mark.parametrize("writable", ["s3", "asyncssh", "sshd"], indirect=True)
def test_some_fields_and_rows_go_and_the_rest_follows(writable: Server, original: Cache, tmp_path: Path) -> None:
    url = f"{writable.url}/part.hsk"
    done("push", original.root, url, "--fields", "logits", "--rows", "10")
    assert done("push", original.root, url)["num_there"] == 2 * 2
    assert done("pull", url, tmp_path / "back", "--fields", "logits", "--rows", "5:10")["num_fetched"] == 2
    assert done("pull", url, tmp_path / "back", "--rows", "5:")["num_there"] == 2
    assert hskcache("verify", tmp_path / "back").exit_code == 0


@pytest.mark.parametrize("writable", ["s3", "asyncssh", "sshd"], indirect=True)
def test_of_a_layer_only_its_bytes_are_fetched(
    writable: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "REQUEST_BYTES", 128)  # as if these shards were large
    local, view = open_cache(GOLDEN), "1l,fields=hidden"
    done("push", GOLDEN, f"{writable.url}/layers.hsk")
    mirror = open_mirror(f"{writable.url}/layers.hsk", tmp_path / "local")
    expected = []
    for shard, record in enumerate(local.manifest.shards["hidden"]):
        ours, theirs = local.view(view).read("hidden", shard), mirror.view(view).read("hidden", shard)
        assert {name: array.tolist() for name, array in theirs.items()} == {
            name: array.tolist() for name, array in ours.items()
        }
        names = [name for name in record.arrays if name.startswith("layer_04/") or name == "position_offsets"]
        (part,) = parts_of(record, names)
        assert part.num_bytes < record.num_bytes / 2
        expected.append(part.num_bytes)
    fetched = [path.stat().st_size for path in (tmp_path / "local" / "shards").glob("*.zarr.zip")]
    assert sorted(fetched) == sorted(expected)


@pytest.mark.parametrize("kind", ["aiohttp", "nginx"])
def test_a_folder_that_was_copied_to_an_http_server_is_pulled(kind: str, original: Cache, tmp_path: Path) -> None:
    """Nobody pushed it; the manifest lists the tokenizer's files."""
    root = tmp_path / "served"
    shutil.copytree(original.root, root / "c.hsk")
    make = http_server if kind == "aiohttp" else nginx_server
    with make(root, tmp_path / "state") as server:
        if server is None:
            pytest.skip("nginx is not installed")
        assert done("pull", f"{server.url}/c.hsk", tmp_path / "back")["num_fetched"] == NUM_FILES
        assert files_of(tmp_path / "back") == files_of(original.root)
        before = len(server.requests())
        assert done("pull", f"{server.url}/c.hsk/", tmp_path / "back")["num_fetched"] == 0
        assert len(server.requests()) == before + 1
        assert "http servers only give" in refused("push", original.root, f"{server.url}/d.hsk")
        line = refused("pull", f"{server.url}/none.hsk", tmp_path / "none")
        assert "has no manifest.json" in line
        assert not (tmp_path / "none").exists()


def test_a_pushed_cache_with_an_unusual_tokenizer_is_pulled_over_http(original: Cache, tmp_path: Path) -> None:
    """Its names are those of the manifest, as the server lists nothing."""
    from hskcache.store.ledger import Ledger
    from hskcache.store.tokenizer import tokenizer_digest, tokenizer_files

    root = tmp_path / "unusual"
    shutil.copytree(original.root, root)
    (root / "tokenizer" / "deep").mkdir()
    (root / "tokenizer" / "deep" / "rules.bin").write_bytes(b"\x00\xff")
    manifest = Ledger(root).manifest()
    own = manifest.request.tokenizer.model_copy(update={"sha256": tokenizer_digest(root / "tokenizer")})
    asked = manifest.request.model_copy(update={"tokenizer": own})
    changes = {"request": asked, "request_digest": asked.digest, "tokenizer": tokenizer_files(root / "tokenizer")}
    both_manifests(root, manifest.model_copy(update=changes).signed().to_json())
    done("push", root, f"file://{tmp_path}/served/c.hsk")
    with http_server(tmp_path / "served", tmp_path / "state") as server:
        done("pull", f"{server.url}/c.hsk", tmp_path / "back")
        assert files_of(tmp_path / "back") == files_of(root)
        (tmp_path / "served" / "c.hsk" / "tokenizer" / "deep" / "rules.bin").unlink()
        line = refused("pull", f"{server.url}/c.hsk", tmp_path / "again")
        assert "tokenizer is missing, or holds other files" in line
        assert not (tmp_path / "again" / "manifest.json").exists()


def test_a_password_is_neither_printed_nor_kept(
    original: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "served").mkdir()
    with sftp_server(tmp_path / "served") as server:
        reach(server, monkeypatch)
        assert PASSWORD in server.url
        said = [hskcache("push", original.root, f"{server.url}/c.hsk", "--json").output]
        said.append(hskcache("pull", f"{server.url}/c.hsk", tmp_path / "back", "--json").output)
        said.append(refused("pull", f"{server.url}/none", tmp_path / "none"))
        wrong = server.url.replace(PASSWORD, "wrong-horse")
        said.append(refused("pull", f"{wrong}/c.hsk", tmp_path / "none"))
        assert "is refused to you" in said[-1]
    said.append(refused("pull", f"{server.url}/c.hsk", tmp_path / "none"))
    assert "is out of reach" in said[-1]
    kept = [path.read_bytes() for path in [*tmp_path.rglob("*")] if path.is_file()]
    for secret in (PASSWORD, "wrong-horse"):
        assert all(secret not in text for text in said)
        assert all(secret.encode() not in data for data in kept)


def test_a_bucket_that_is_not_there_is_told(s3: Server, original: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    reach(s3, monkeypatch)
    assert "bucket is not there" in refused("push", original.root, "s3://no-such-bucket/c.hsk")
    assert "has no manifest.json" in refused("pull", f"s3://{BUCKET}/none.hsk", "none")


def test_an_object_of_an_s3_server_is_read_in_part_and_never_past_its_end(
    s3: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    reach(s3, monkeypatch)
    remote = open_remote(f"{s3.url}/parts")
    remote.write("a", b"0123456789")
    assert remote.read("a", 100, start=4, stop=6) == b"45"
    assert remote.read("a", 100, start=8, stop=50) == b"89"
    assert remote.read("a", 100, start=10, stop=50) == b""
    remote.write("empty", b"")
    assert (remote.read("empty", 100), remote.size("empty"), remote.size("no")) == (b"", 0, None)


def test_a_plain_path_is_a_place_like_a_url(original: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert done("push", original.root, "shelf/c.hsk")["num_sent"] == NUM_FILES
    assert done("pull", tmp_path / "shelf" / "c.hsk", "back")["cache_id"] == original.id
    assert files_of(tmp_path / "back") == files_of(original.root)
    assert "is not a URL" in refused("push", original.root, "s3:/c.hsk")
