"""A cache at a URL reads as the one it is a copy of, whatever servers and copies do."""

import time
from pathlib import Path

import pytest
from mirrored import (
    NUM_SHARDS,
    read_all,
    shards_in,
    write_cache,
)
from stored import plain
from unsteady import Unsteady, serving

from hskcache.cache import Cache
from hskcache.errors import CacheError, DamageError, MismatchError
from hskcache.remote.mirror import open_mirror
from hskcache.remote.place import open_any


def test_every_byte_is_that_of_the_original_and_each_file_is_fetched_once(
    original: Cache, server: Unsteady, tmp_path: Path
) -> None:
    expected = read_all(original)
    mirror = open_mirror(server.url, tmp_path)
    assert (mirror.id, mirror.identity(("logits",))) == (original.id, original.identity(("logits",)))
    assert server.begun == {"manifest.json": 1}
    assert read_all(mirror) == expected
    assert read_all(mirror) == expected
    assert read_all(open_mirror(server.url, tmp_path)) == expected
    assert server.shards_begun == {
        plain(path.relative_to(original.root).as_posix()): 1 for path in original.root.rglob("*.zarr.zip")
    }
    for path in original.tokenizer_path.iterdir():
        assert (mirror.tokenizer_path / path.name).read_bytes() == path.read_bytes()


def test_a_cache_is_opened_by_path_or_url_alike(
    original: Cache, server: Unsteady, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HSKCACHE_LOCAL", str(tmp_path))
    for place in (original.root, str(original.root), f"file://{original.root}", server.url):
        cache = open_any(place)
        assert read_all(cache) == read_all(original)
        with pytest.raises(MismatchError, match=f"^{place} has no shard 9 of logits"):
            cache.read("logits", 9)


def test_what_is_announced_is_fetched_in_the_background_several_at_a_time(
    original: Cache, server: Unsteady, tmp_path: Path
) -> None:
    server.pause_s = 0.02
    mirror = open_mirror(server.url, tmp_path)
    mirror.ahead(("logits", shard) for shard in range(NUM_SHARDS))
    most, deadline = 0, time.monotonic() + 20
    while len(shards_in(tmp_path)) < NUM_SHARDS:
        assert time.monotonic() < deadline
        most = max(most, len(list((tmp_path / "shards").glob("*.lock"))))
        time.sleep(0.002)
    assert most > 1
    assert [mirror.read("logits", shard)["logits"].tobytes() for shard in range(NUM_SHARDS)] == read_all(original)[1::2]
    assert set(server.shards_begun.values()) == {1}


def test_a_server_that_fails_a_few_times_is_asked_again(original: Cache, server: Unsteady, tmp_path: Path) -> None:
    server.num_failures = 2
    mirror = open_mirror(server.url, tmp_path)
    for shard in range(NUM_SHARDS):
        server.num_failures = 1
        read_all(mirror, range(shard, shard + 1))
    assert read_all(mirror) == read_all(original)


def test_a_server_that_is_gone_ends_the_run_in_one_line(original: Cache, tmp_path: Path) -> None:
    with serving(original.root) as running:
        mirror = open_mirror(running.url, tmp_path)
        read_all(mirror, range(1))
        url = running.url
    mirror.ahead([("logits", 3)])
    assert read_all(mirror, range(1)) == read_all(original, range(1)), "what is here is read"
    with pytest.raises(CacheError, match=rf"{url}/logits/000001-\w+.zarr.zip is out of reach") as told:
        mirror.read("logits", 1)
    assert "\n" not in str(told.value)


def test_a_cache_that_was_fetched_whole_needs_no_server(
    original: Cache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(original.root) as running:
        url = running.url
        read_all(open_mirror(url, tmp_path))
    assert capsys.readouterr().err == ""
    assert read_all(open_mirror(url, tmp_path)) == read_all(original)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert url in said[0]
    assert f"going on with cache {original.id[:12]}" in said[0]
    with pytest.raises(CacheError, match="out of reach"):
        open_mirror(url, tmp_path / "elsewhere")


def test_bytes_other_than_the_manifests_are_refused_and_not_kept(
    original: Cache, server: Unsteady, tmp_path: Path
) -> None:
    server.altered = {"logits/000002.zarr.zip"}
    mirror = open_mirror(server.url, tmp_path)
    mirror.ahead([("logits", 2)])
    with pytest.raises(DamageError, match=r"logits/000002-\w+.zarr.zip has another content than its manifest says"):
        mirror.read("logits", 2)
    assert not shards_in(tmp_path)
    server.altered = set()
    assert read_all(mirror) == read_all(original)


def test_a_copy_that_was_damaged_here_is_fetched_again(original: Cache, server: Unsteady, tmp_path: Path) -> None:
    mirror = open_mirror(server.url, tmp_path)
    expected = read_all(mirror)
    for number, path in enumerate(shards_in(tmp_path)):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data if number % 2 else data[:-1])
    tokenizer = next(mirror.tokenizer_path.iterdir())
    tokenizer.write_bytes(b"{}")
    again = open_mirror(server.url, tmp_path)
    assert read_all(again) == expected == read_all(original)
    assert set(server.shards_begun.values()) == {2}
    assert again.tokenizer_path == tokenizer.parent
    assert tokenizer.read_bytes() == (original.tokenizer_path / tokenizer.name).read_bytes()


def test_a_cache_that_changes_at_the_url_changes_nothing_for_who_has_opened_it(
    original: Cache, server: Unsteady, tmp_path: Path
) -> None:
    mirror = open_mirror(server.url, tmp_path / "local")
    first = read_all(mirror, range(4))
    server.root = write_cache(tmp_path / "other.hsk", seed=1).root
    with pytest.raises(DamageError, match="is missing"):
        mirror.read("logits", 5)
    assert read_all(mirror, range(4)) == first == read_all(original, range(4))
    assert open_mirror(server.url, tmp_path / "local").id != original.id


def test_a_folder_that_cannot_be_written_is_told_in_one_line(server: Unsteady, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(CacheError, match=r"cannot write .*file"):
        open_mirror(server.url, tmp_path / "file" / "local")


def test_a_view_of_a_cache_at_a_url_fetches_what_it_reads(original: Cache, server: Unsteady, tmp_path: Path) -> None:
    starts = [start for start, _ in original.shards]
    rows = (starts[2], starts[3] + 1)
    view = open_mirror(server.url, tmp_path).view(fields=["logits"], rows=rows)
    expected = original.view(fields=["logits"], rows=rows)
    view.ahead([("logits", 0), ("logits", 1)])
    for shard in range(2):
        assert view.read("logits", shard)["logits"].tobytes() == expected.read("logits", shard)["logits"].tobytes()
    assert (view.name, view.id) == (f"the view rows={rows[0]}:{rows[1]},fields=logits of {server.url}", expected.id)
    assert set(server.shards_begun) == {f"logits/{shard:06d}.zarr.zip" for shard in (2, 3)}
    assert view.tokenizer_path.is_dir()
