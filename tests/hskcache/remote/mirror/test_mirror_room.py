"""A mirror's folder stays within its bound, whoever shares it and whoever is killed."""

import os
import shutil
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import forked
import numpy as np
import pytest
from forked import until
from mirrored import (
    ARRAYS,
    NUM_SHARDS,
    PLENTY,
    SHARD_BYTES,
    read_all,
    size_of,
)
from unsteady import Unsteady

from hskcache.cache import Cache
from hskcache.errors import SpecError
from hskcache.locks import locked
from hskcache.remote.fetch import partial_path
from hskcache.remote.mirror import open_mirror
from hskcache.remote.parts import parts_of
from hskcache.store.publishing import write_index, write_manifest


class Watch:
    """The most bytes that a folder held at any time."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.most, self._ended = folder, 0, threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.is_set():
            self.most = max(self.most, size_of(self.folder))
            time.sleep(0.001)


@pytest.mark.parametrize("announced", [False, True])
def test_the_folder_never_holds_more_than_it_may(
    announced: bool, original: Cache, server: Unsteady, tmp_path: Path
) -> None:
    """Room for three shards of eight, which are read twice in orders of their own."""
    server.pause_s = 0.001
    expected = read_all(original)
    bound = 3 * SHARD_BYTES + 40_000
    mirror = open_mirror(server.url, tmp_path, bound)
    with Watch(tmp_path) as watch:
        for epoch in range(2):
            order = np.random.default_rng(epoch).permutation(NUM_SHARDS).tolist()
            if announced:
                mirror.ahead((field, shard) for shard in order for field in ARRAYS)
            for shard in order:
                assert read_all(mirror, range(shard, shard + 1)) == expected[2 * shard : 2 * shard + 2]
    assert 2 * SHARD_BYTES < watch.most <= bound


def test_what_was_used_least_recently_goes_first(server: Unsteady, tmp_path: Path) -> None:
    mirror = open_mirror(server.url, tmp_path, 3 * SHARD_BYTES + 40_000)
    for shard in (0, 1, 2, 0, 3, 0):
        mirror.read("logits", shard)
    assert server.shards_begun == {f"logits/{shard:06d}.zarr.zip": 1 for shard in range(4)}
    mirror.read("logits", 1)
    assert server.shards_begun["logits/000001.zarr.zip"] == 2


def test_a_bound_that_no_shard_fits_into_is_refused_with_the_one_that_is_needed(
    server: Unsteady, tmp_path: Path
) -> None:
    mirror = open_mirror(server.url, tmp_path, SHARD_BYTES)
    with pytest.raises(SpecError, match=r"--local-bytes: .* 6\d\.\d+ kB; give 1MB or more"):
        mirror.read("logits", 0)


def read_in_order(url: str, local: Path, bound: int, seed: int, expected: list[bytes]) -> None:
    mirror = open_mirror(url, local, bound)
    for epoch in range(2):
        order = np.random.default_rng((seed, epoch)).permutation(NUM_SHARDS).tolist()
        mirror.ahead((field, shard) for shard in order for field in ARRAYS)
        for shard in order:
            assert read_all(mirror, range(shard, shard + 1)) == expected[2 * shard : 2 * shard + 2]


def wait_for(children: list[int]) -> list[int]:
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def test_processes_share_what_each_has_fetched(original: Cache, server: Unsteady, tmp_path: Path) -> None:
    """Three runs in orders of their own: every file comes once."""
    server.pause_s = 0.002
    expected = read_all(original)
    children = [
        forked.start(lambda seed=seed: read_in_order(server.url, tmp_path, PLENTY, seed, expected)) for seed in range(3)
    ]
    assert wait_for(children) == [0, 0, 0]
    assert len(server.shards_begun) == 2 * NUM_SHARDS
    assert set(server.shards_begun.values()) == {1}


def test_processes_in_want_of_room_take_turns_and_stay_within_the_bound(
    original: Cache, server: Unsteady, tmp_path: Path
) -> None:
    """Three processes want shards of their own at once where there is room for two: none of them waits forever."""
    expected = read_all(original)
    bound = 2 * SHARD_BYTES + 40_000
    with Watch(tmp_path) as watch:
        children = [
            forked.start(lambda seed=seed: read_in_order(server.url, tmp_path, bound, seed, expected))
            for seed in range(3)
        ]
        assert wait_for(children) == [0, 0, 0]
    assert watch.most <= bound
    assert not list((tmp_path / "shards").glob("*.lock"))


def test_a_process_that_is_killed_while_it_fetches_leaves_nothing_that_stands_in_the_way(
    original: Cache, server: Unsteady, tmp_path: Path
) -> None:
    """Its lock is free, what had arrived is not sent again, and where its room is needed it goes."""
    server.pause_s = 0.05
    bound = 2 * SHARD_BYTES + 40_000
    name = "logits/000000.zarr.zip"
    child = forked.start(lambda: open_mirror(server.url, tmp_path, bound).read("logits", 0))
    until(lambda: any(path.stat().st_size > 20_000 for path in (tmp_path / "shards").glob("*.tmp")))
    os.kill(child, signal.SIGKILL)
    assert wait_for([child]) == [-signal.SIGKILL]
    server.pause_s = 0.0
    left = shutil.copytree(tmp_path, tmp_path.with_name("left"))

    mirror = open_mirror(server.url, tmp_path, bound)
    assert mirror.read("logits", 0)["logits"].tobytes() == read_all(original)[1]
    assert server.shards_begun[name] == 1
    assert [path.name[64:] for path in (tmp_path / "shards").iterdir()] == [".zarr.zip"]

    other = open_mirror(server.url, left, bound)
    for shard in (1, 2, 3):
        other.read("logits", shard)
    assert [path.name[64:] for path in (left / "shards").iterdir()] == [".zarr.zip"] * 2


def test_those_who_wait_for_room_with_a_part_each_do_not_wait_for_each_other(
    original: Cache, server: Unsteady, tmp_path: Path
) -> None:
    """As after a kill of all: the parts leave no room for any of the files, and everybody wants another one."""
    mirrors = [open_mirror(server.url, tmp_path, 2 * SHARD_BYTES + 40_000) for _ in range(3)]
    folder = mirrors[0].shelf.folder
    for record in original.manifest.shards["logits"][:3]:
        whole = (original.root / record.path).read_bytes()
        partial_path(folder.files / f"{record.sha256}.zarr.zip", record.sha256).write_bytes(whole[:-1000])
    with ThreadPoolExecutor(3) as threads:
        with locked(folder.root / ".lock"):
            reads = [threads.submit(mirror.read, "logits", shard) for shard, mirror in enumerate(mirrors)]
            until(lambda: len(list(folder.files.glob("*.lock"))) == 3)
        expected = read_all(original)
        for shard, read in enumerate(reads):
            assert read.result(60)["logits"].tobytes() == expected[2 * shard + 1]


def test_what_is_being_read_is_not_removed_and_whoever_needs_its_room_waits(
    original: Cache, server: Unsteady, tmp_path: Path
) -> None:
    bound, held = SHARD_BYTES + 40_000, tmp_path.with_name("held")

    def read_another() -> None:
        other = open_mirror(server.url, tmp_path, bound)
        until(held.exists)
        other.read("logits", 1)

    child = forked.start(read_another)
    mirror = open_mirror(server.url, tmp_path, bound)
    record = original.manifest.shards["logits"][0]
    with mirror.shelf.holding(parts_of(record, None)[0]) as path:
        held.touch()
        until(lambda: any((tmp_path / "shards").glob("*.lock")))
        mirror.ahead([("logits", 2)])
        time.sleep(0.2)
        assert path.stat().st_size == record.num_bytes
        assert set(server.shards_begun) == {"logits/000000.zarr.zip"}
    assert wait_for([child]) == [0]
    assert not path.exists()


def test_caches_of_the_same_bytes_share_them(original: Cache, server: Unsteady, tmp_path: Path) -> None:
    """As one does with itself when a field is added to it."""
    part = original.manifest.subset(["logits"], range(2, NUM_SHARDS))
    read_all(open_mirror(server.url, tmp_path))
    folder = tmp_path / "part.hsk"
    shutil.copytree(original.tokenizer_path, folder / "tokenizer")
    write_index(folder, part)
    write_manifest(folder, part)
    mirror = open_mirror(f"file://{folder}", tmp_path)
    assert mirror.id != original.id
    assert read_all(mirror, range(NUM_SHARDS - 2)) == read_all(original)[4:]
