"""Whatever ends an export or an import, the same command ends with the same bytes, and nothing else is overwritten."""

import os
import resource
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from forked import in_child
from handwritten import CACHES, Shape, contents, killer, write_cache
from stored import shard_file, written

from hskcache.cache import open_cache
from hskcache.errors import CacheError, DamageError, MismatchError
from hskcache.move.hdf5 import COMPRESSIONS, export_hdf5, import_hdf5
from hskcache.store.ledger import Ledger


def inodes(root: Path) -> dict[str, int]:
    return {path.as_posix(): path.stat().st_ino for path in root.rglob("*.zarr.zip")}


def test_a_finished_file_is_left_alone_and_another_is_not_replaced_unasked(
    whole: Path, exported: Path, tmp_path: Path
) -> None:
    out = tmp_path / "c.h5"
    shutil.copy(exported, out)
    before = written(out)
    assert export_hdf5(whole, out).was_there
    assert written(out) == before
    with pytest.raises(MismatchError, match=r"holds the cache .* and not .* --force"):
        export_hdf5(CACHES[0], out)
    assert written(out) == before
    assert not export_hdf5(CACHES[0], out, force=True).was_there
    out.write_text("notes")
    with pytest.raises(MismatchError, match="no such copy"):
        export_hdf5(whole, out)
    assert out.read_text() == "notes"


def test_a_damaged_shard_ends_an_export_and_leaves_nothing(tmp_path: Path) -> None:
    write_cache(tmp_path / "c", Shape())
    shard = shard_file(tmp_path / "c", "hidden", 1)
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    with pytest.raises(DamageError, match="hidden shard 1"):
        export_hdf5(tmp_path / "c", tmp_path / "out" / "c.h5")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("moment", ["first", "last", "rename"])
def test_a_killed_export_starts_over_and_ends_with_the_same_file(
    whole: Path, exported: Path, tmp_path: Path, moment: str
) -> None:
    out = tmp_path / "c.h5"
    done = 0

    def die(count: int, total: int) -> None:
        nonlocal done
        done += count
        if moment == "first" or (moment == "last" and done == total):
            os.kill(os.getpid(), signal.SIGKILL)

    hook = killer("os.rename", 1) if moment == "rename" else None
    assert in_child(lambda: export_hdf5(whole, out, on_progress=die), hook) == -signal.SIGKILL
    assert not out.exists()
    export_hdf5(whole, out)
    assert out.read_bytes() == exported.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["c.h5"]


def test_two_exports_to_one_file_do_not_mix(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.h5"
    said: list[str] = []

    def again(_count: int, _total: int) -> None:
        if not said:
            with pytest.raises(CacheError, match="another process is writing") as refusal:
                export_hdf5(whole, out)
            said.append(str(refusal.value))

    export_hdf5(whole, out, on_progress=again)
    assert len(said) == 1
    assert import_hdf5(out, tmp_path / "c").num_kept == 0


@pytest.mark.parametrize("times", [1, 2, 5, 17, 25, 30])
def test_a_killed_import_goes_on_and_keeps_what_is_there(
    whole: Path, exported: Path, tmp_path: Path, times: int
) -> None:
    out = tmp_path / "c"
    assert in_child(lambda: import_hdf5(exported, out), killer("os.rename", times)) == -signal.SIGKILL
    assert not (out / "manifest.json").exists()
    committed = {
        (out / record.path).as_posix() for record in open_cache(whole).manifest.records if (out / record.path).exists()
    }
    before = {path: inode for path, inode in inodes(out).items() if path in committed}
    landed = import_hdf5(exported, out)
    assert contents(out) == contents(whole)
    assert landed.num_kept == len(committed)
    assert before.items() <= inodes(out).items()


def test_a_finished_import_is_not_run_again_and_mends_what_was_damaged(
    whole: Path, exported: Path, tmp_path: Path
) -> None:
    out = tmp_path / "c"
    import_hdf5(exported, out)
    before = inodes(out)
    assert import_hdf5(exported, out).num_written == 0
    assert inodes(out) == before
    shard_file(out, "logits", 2).write_bytes(b"")
    (out / "tokenizer" / "vocab.txt").unlink()
    assert import_hdf5(exported, out).num_written == 1
    assert contents(out) == contents(whole)


def test_a_folder_of_something_else_is_left_alone(whole: Path, exported: Path, tmp_path: Path) -> None:
    other = shutil.copytree(CACHES[0], tmp_path / "other")
    before = contents(other)
    with pytest.raises(MismatchError, match="holds the cache 6eb1c9a13203 and not"):
        import_hdf5(exported, other)
    assert contents(other) == before
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("a")
    with pytest.raises(MismatchError, match="not a cache's"):
        import_hdf5(exported, tmp_path / "notes")
    Ledger(tmp_path / "begun").begin(open_cache(whole).manifest.request)
    with pytest.raises(MismatchError, match="cut off"):
        import_hdf5(exported, tmp_path / "begun")
    assert in_child(lambda: import_hdf5(exported, tmp_path / "c"), killer("os.rename", 20)) == -signal.SIGKILL
    export_hdf5(CACHES[0], tmp_path / "tiny.h5")
    with pytest.raises(MismatchError, match="holds the cache"):
        import_hdf5(tmp_path / "tiny.h5", tmp_path / "c")


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_disk_that_is_full_at_any_byte_ends_in_one_line_and_never_in_a_crash(
    compression: Any, tmp_path: Path
) -> None:
    export_hdf5(CACHES[0], tmp_path / "c.h5", compression)
    size = (tmp_path / "c.h5").stat().st_size
    (tmp_path / "c.h5").unlink()

    def work() -> None:
        for limit in range(0, size, size // 23):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            with pytest.raises(
                CacheError, match=r"cannot write .*c\.h5: File too large; .* goes on from the beginning"
            ):
                export_hdf5(CACHES[0], tmp_path / "c.h5", compression)
            assert list(tmp_path.iterdir()) == []

    assert in_child(work) == 0
