"""A shard is hashed once a process, and again as soon as its file may be another one."""

import os
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from forked import in_child
from stored import shard_file

from hskcache.cache import Cache, open_cache
from hskcache.errors import DamageError
from hskcache.store import reading
from hskcache.verify import verify

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "tiny.hsk"


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of what was hashed, in order."""
    sizes: list[int] = []
    original = reading.sha256_hex

    def count(data: bytes) -> str:
        sizes.append(len(data))
        return original(data)

    monkeypatch.setattr(reading, "sha256_hex", count)
    return sizes


@pytest.fixture
def settled(tmp_path: Path) -> Cache:
    """A cache whose files were last written longer ago than the times of a file advance in steps."""
    cache = open_cache(shutil.copytree(GOLDEN, tmp_path / "c"))
    time.sleep(2.1)
    return cache


def shard_of(cache: Cache) -> Path:
    return shard_file(cache.root, "logits", 0)


def flipped(path: Path) -> bytes:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    return bytes(data)


def write_in_place(path: Path) -> None:
    data = flipped(path)
    with path.open("r+b") as file:
        file.write(data)


def write_in_place_and_put_the_time_back(path: Path) -> None:
    before = path.stat()
    write_in_place(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def put_another_in_its_place(path: Path) -> None:
    before = path.stat()
    other = path.with_suffix(".new")
    other.write_bytes(flipped(path))
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)


@pytest.mark.parametrize("change", [write_in_place, write_in_place_and_put_the_time_back, put_another_in_its_place])
def test_a_file_is_hashed_once_and_again_when_it_changes(
    settled: Cache, hashed: list[int], change: Callable[[Path], None]
) -> None:
    expected = settled.read("logits", 0)["logits"].tolist()
    for _ in range(3):
        assert settled.read("logits", 0)["logits"].tolist() == expected
    assert len(hashed) == 1
    change(shard_of(settled))
    with pytest.raises(DamageError, match="SHA-256 differs"):
        settled.read("logits", 0)


def test_a_file_that_was_just_written_is_hashed_every_time(tmp_path: Path, hashed: list[int]) -> None:
    """Another write in the same step of the clock would leave its times as they are."""
    cache = open_cache(shutil.copytree(GOLDEN, tmp_path / "c"))
    cache.read("logits", 0)
    cache.read("logits", 0)
    assert len(hashed) == 2


def test_a_record_of_another_digest_is_not_vouched_for(settled: Cache) -> None:
    settled.read("logits", 0)
    records = settled.manifest.shards["logits"]
    other = records[0].model_copy(update={"sha256": records[1].sha256})
    with pytest.raises(DamageError, match="SHA-256 differs"):
        settled.shelf.read(other, settled.fields["logits"], None)


def test_verify_hashes_what_was_read_before(settled: Cache, hashed: list[int]) -> None:
    for shard in range(len(settled.shards)):
        settled.read("logits", shard)
    del hashed[:]
    assert verify(settled.root).ok
    assert len(hashed) >= len(list(settled.manifest.records))


def test_threads_and_a_child_forked_among_them_read_and_see_damage(settled: Cache) -> None:
    stop = threading.Event()
    numbers = range(len(settled.shards))

    def read_on() -> None:
        while not stop.is_set():
            for shard in numbers:
                settled.read("logits", shard)

    def in_the_child() -> None:
        for shard in numbers:
            settled.read("logits", shard)
        with pytest.raises(DamageError):
            damaged.read("logits", 0)

    damaged = open_cache(shutil.copytree(settled.root, settled.root.with_name("damaged")))
    write_in_place(shard_of(damaged))
    with ThreadPoolExecutor(4) as pool:
        tasks = [pool.submit(read_on) for _ in range(4)]
        codes = [in_child(in_the_child) for _ in range(5)]
        stop.set()
        for task in tasks:
            task.result()
    assert codes == [0] * 5
