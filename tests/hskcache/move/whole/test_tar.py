"""A cache that went through a tar is the same cache; of a damaged tar, or a stranger's, nothing is taken unverified."""

import io
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pytest
from forked import in_child, start
from handwritten import CACHES, Shape, contents, killer, write_cache
from hypothesis import given, settings
from hypothesis import strategies as st
from stored import plain, written

from hskcache.cache import open_cache
from hskcache.errors import CacheError, DamageError, MismatchError
from hskcache.move.arrival import Landed
from hskcache.move.pack import pack, pack_to, unpack
from hskcache.verify import verify


def take(data: bytes, root: Path) -> Landed:
    return unpack(io.BytesIO(data), "c.tar", root)


def members(data: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [(info, tar.extractfile(info).read()) for info in tar.getmembers()]  # type: ignore[union-attr]


@pytest.mark.parametrize("golden", CACHES, ids=lambda path: path.stem)
def test_an_unpacked_cache_is_the_packed_one(golden: Path, tmp_path: Path) -> None:
    done = pack(golden, tmp_path / "c.tar")
    landed = take((tmp_path / "c.tar").read_bytes(), tmp_path / "c")
    assert landed.manifest.cache_id == done.manifest.cache_id
    assert contents(tmp_path / "c") == contents(golden)
    assert verify(tmp_path / "c").ok


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=9),
    appended=st.lists(st.integers(1, 9), max_size=3),
    shard_rows=st.integers(1, 4),
    columns=st.sampled_from(["all", "shared", "bitmask"]),
)
@settings(max_examples=6, deadline=None)
def test_caches_of_any_shape_pass_through_a_pipe(
    lengths: list[int], appended: list[int], shard_rows: int, columns: Any
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        whole, back = Path(folder) / "whole", Path(folder) / "back"
        write_cache(whole, Shape(lengths, appended, shard_rows, columns=columns))
        begin, end = os.pipe()

        def pack_into_pipe(begin: int = begin, end: int = end, whole: Path = whole) -> None:
            os.close(begin)
            with os.fdopen(end, "wb") as stream:
                pack_to(whole, stream)

        child = start(pack_into_pipe)
        os.close(end)
        with os.fdopen(begin, "rb") as stream:
            unpack(stream, "stdin", back)
        assert os.waitpid(child, 0)[1] == 0
        assert contents(back) == contents(whole)


def test_the_tar_says_nothing_of_when_and_who_and_any_tar_program_unpacks_it(
    whole: Path, packed: Path, tmp_path: Path
) -> None:
    (tmp_path / "copy").mkdir()
    copy = shutil.copytree(whole, tmp_path / "copy" / "c", copy_function=shutil.copyfile)
    pack(copy, tmp_path / "c.tar")
    assert (tmp_path / "c.tar").read_bytes() == packed.read_bytes()
    (tmp_path / "plain").mkdir()
    subprocess.run(["tar", "-xf", tmp_path / "c.tar", "-C", tmp_path / "plain"], check=True)
    assert contents(tmp_path / "plain") == contents(whole)
    names = [info.name for info, _ in members(packed.read_bytes())]
    assert names[:3] == ["manifest.json", "tokenizer/extra/config.json", "tokenizer/vocab.txt"]
    assert names[3] == "manifest.copy.json"
    assert [plain(name) for name in names[4:9]] == [
        *(f"{field}/index/000000.jsonl" for field in ("inputs", "logits", "hidden", "attention")),
        "attention/000000.zarr.zip",
    ]


def test_a_readme_travels_along(tmp_path: Path) -> None:
    write_cache(tmp_path / "c", Shape())
    (tmp_path / "c" / "README.md").write_text("# From the study of films\n")
    pack(tmp_path / "c", tmp_path / "c.tar")
    take((tmp_path / "c.tar").read_bytes(), tmp_path / "back")
    assert contents(tmp_path / "back") == contents(tmp_path / "c")


def test_a_finished_tar_is_left_alone_and_another_is_not_replaced_unasked(
    whole: Path, packed: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copy(packed, tmp_path / "c.tar"))
    before = written(out)
    assert pack(whole, out).was_there
    with pytest.raises(MismatchError, match="--force"):
        pack(CACHES[0], out)
    assert written(out) == before
    assert not pack(CACHES[0], out, force=True).was_there
    out.write_text("notes")
    with pytest.raises(MismatchError, match="no such copy"):
        pack(whole, out)


@pytest.mark.parametrize("file", ["hidden/000001-*.zip", "hidden/index/*", "tokenizer/vocab.txt"])
def test_a_damaged_cache_is_not_packed_and_the_file_is_named(file: str, tmp_path: Path) -> None:
    write_cache(tmp_path / "c", Shape())
    (path,) = (tmp_path / "c").glob(file)
    for content in (b"x" + path.read_bytes()[1:], path.read_bytes()[:-1], None):
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(DamageError, match=file.partition("/")[0]):
            pack(tmp_path / "c", tmp_path / "out" / "c.tar")
        assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())
        path.touch()


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.01, 0.1, 0.3, 0.6, 0.9, 0.99])
def test_what_was_whole_of_a_tar_that_was_cut_short_is_kept(
    whole: Path, packed: Path, tmp_path: Path, share: float
) -> None:
    data, out = packed.read_bytes(), tmp_path / "c"
    with pytest.raises(DamageError, match=r"cut short|ends before") as error:
        take(data[: int(len(data) * share)], out)
    assert not (out / "manifest.json").exists()
    assert not any(out.rglob("*.tmp"))
    records = list(open_cache(whole).manifest.records)
    committed = [one for one in records if (out / one.path).exists()]
    if share > 0.2:
        assert any(f"{record.field}/" in str(error.value) for record in records)
        assert len(committed) > 1
    landed = take(data, out)
    assert landed.num_kept == len(committed)
    assert contents(out) == contents(whole)


@pytest.mark.parametrize("times", [1, 2, 3, 9, 20, 27])
def test_a_killed_unpack_goes_on(whole: Path, packed: Path, tmp_path: Path, times: int) -> None:
    data, out = packed.read_bytes(), tmp_path / "c"
    assert in_child(lambda: take(data, out), killer("os.rename", times)) == -signal.SIGKILL
    assert not (out / "manifest.json").exists()
    take(data, out)
    assert contents(out) == contents(whole)


@pytest.mark.parametrize("last", [False, True])
def test_a_killed_pack_starts_over(whole: Path, packed: Path, tmp_path: Path, last: bool) -> None:
    done = 0

    def die(count: int, total: int) -> None:
        nonlocal done
        done += count
        if done == total or not last:
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(lambda: pack(whole, tmp_path / "c.tar", on_progress=die)) == -signal.SIGKILL
    assert not (tmp_path / "c.tar").exists()
    pack(whole, tmp_path / "c.tar")
    assert [path.name for path in tmp_path.iterdir()] == ["c.tar"]
    assert (tmp_path / "c.tar").read_bytes() == packed.read_bytes()


def test_a_folder_of_something_else_is_left_alone(packed: Path, tmp_path: Path) -> None:
    other = shutil.copytree(CACHES[0], tmp_path / "other")
    with pytest.raises(MismatchError, match="holds the cache"):
        take(packed.read_bytes(), other)
    assert contents(other) == contents(CACHES[0])
    (tmp_path / "notes").write_text("a")
    for folder in (tmp_path, tmp_path / "notes"):
        with pytest.raises(CacheError, match=r"not a cache's|is a file; choose a folder"):
            take(packed.read_bytes(), folder)
