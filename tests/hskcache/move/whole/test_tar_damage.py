"""Of a damaged tar, or a stranger's, nothing is taken that is not known to belong to its cache."""

import io
import random
import subprocess
import tarfile
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from handwritten import contents
from hypothesis import given, settings
from hypothesis import strategies as st
from stored import plain

from hskcache.errors import DamageError
from hskcache.move.arrival import Landed
from hskcache.move.pack import unpack


def take(data: bytes, root: Path) -> Landed:
    return unpack(io.BytesIO(data), "c.tar", root)


def refusal(data: bytes) -> str:
    """The one line that a tar ends in, and no cache with it."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "in" / "c"
        with pytest.raises(DamageError) as error:
            take(data, root)
        assert not (root / "manifest.json").exists()
        # Nothing was written beside the folder, whatever the names were.
        assert {path.name for path in Path(folder).iterdir()} <= {"in"}
        assert not any(path.is_symlink() for path in Path(folder).rglob("*"))
    assert "\n" not in str(error.value)
    return str(error.value)


def members(data: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [(info, tar.extractfile(info).read()) for info in tar.getmembers()]  # type: ignore[union-attr]


def written(parts: list[tuple[tarfile.TarInfo, bytes]], kind: int = tarfile.USTAR_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as tar:
        for info, data in parts:
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def test_no_flipped_bit_gives_another_cache(whole: Path, packed: Path, tmp_path: Path) -> None:
    """One in the padding or the manifest's file is harmless or found; both leave no other bytes in the cache."""
    data, draw = packed.read_bytes(), random.Random(0)
    small = [at for info, content in members(data) if len(content) < 5000 for at in (_place(data, info), len(data) - 1)]
    refused = 0
    for attempt in range(40):
        damaged = bytearray(data)
        at = draw.choice(small) + draw.randrange(-512, 600) if attempt % 2 else draw.randrange(len(data))
        damaged[at % len(data)] ^= 1 << draw.randrange(8)
        out = tmp_path / f"{attempt}"
        try:
            take(bytes(damaged), out)
            assert contents(out) == contents(whole)
        except DamageError:
            assert not (out / "manifest.json").exists()
            refused += 1
    assert refused >= 25


def _place(data: bytes, info: tarfile.TarInfo) -> int:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getmember(info.name).offset_data


def inserted(info: tarfile.TarInfo, content: bytes = b"") -> Callable[[list[Any]], None]:
    """Put a member behind the manifest."""
    info.size = len(content)
    return lambda parts: parts.insert(1, (info, content))


def of_type(kind: bytes, name: str, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def renamed(index: int, name: str) -> Callable[[list[Any]], None]:
    def change(parts: list[Any]) -> None:
        parts[index][0].name = name

    return change


def resized(parts: list[Any]) -> None:
    info, content = parts[SHARD]
    info.size += 1
    parts[SHARD] = (info, content + b"x")


def swapped(parts: list[Any]) -> None:
    """Contents of two shards of one size, each with the other's name."""
    (one, first), (two, second) = parts[SHARD], parts[SHARD + 1]
    one.size, two.size = len(second), len(first)
    parts[SHARD], parts[SHARD + 1] = (one, second), (two, first)


def other_page(parts: list[Any]) -> None:
    parts[PAGE] = (parts[PAGE][0], parts[PAGE][1].replace(b'"shard":0', b'"shard":1'))


def other_copy(parts: list[Any]) -> None:
    parts[COPY] = (parts[COPY][0], parts[COPY][1].replace(b'"width": 1', b'"width": 2'))


COPY, PAGE, SHARD = 3, 4, 8
"""Where these begin: behind the manifest and the two files of the tokenizer, a page for each of four fields."""


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (inserted(of_type(tarfile.SYMTYPE, "tokenizer/a", "/etc/passwd")), "no plain file"),
        (inserted(of_type(tarfile.LNKTYPE, "tokenizer/a", "manifest.json")), "no plain file"),
        (inserted(of_type(tarfile.CHRTYPE, "tokenizer/a")), "no plain file"),
        (inserted(of_type(tarfile.FIFOTYPE, "tokenizer/a")), "no plain file"),
        (inserted(of_type(tarfile.DIRTYPE, "tokenizer")), "no plain file"),
        (inserted(tarfile.TarInfo("tokenizer/../../escaped"), b"x"), "no name within a folder"),
        (inserted(tarfile.TarInfo("tokenizer//escaped"), b"x"), "no name within a folder"),
        (inserted(tarfile.TarInfo("tokenizer/vocab.txt"), b"x"), "twice"),
        (inserted(tarfile.TarInfo("tokenizer/vocab.txt/a"), b"x"), "twice"),
        (inserted(tarfile.TarInfo("tokenizer/more.txt"), b"x"), "other tokenizer files"),
        (inserted(tarfile.TarInfo("/escaped"), b"x"), "in the place of"),
        (inserted(tarfile.TarInfo("../escaped"), b"x"), "in the place of"),
        (renamed(0, "./manifest.json"), "in the place of manifest.json"),
        (renamed(SHARD, "/attention/000000.zarr.zip"), "in the place of"),
        (lambda parts: parts.pop(0), "in the place of manifest.json"),
        (lambda parts: parts.pop(2), "other tokenizer files"),
        (lambda parts: parts.pop(SHARD + 1), "in the place of attention/000001.zarr.zip"),
        (lambda parts: parts.pop(PAGE), "in the place of inputs/index/000000.jsonl"),
        (lambda parts: parts.pop(COPY), "in the place of manifest.copy.json"),
        (lambda parts: parts.insert(SHARD + 1, parts[SHARD]), "in the place of attention/000001.zarr.zip"),
        (lambda parts: parts.append((tarfile.TarInfo("extra"), b"")), "does not belong"),
        (resized, "bytes where"),
        (swapped, "attention/000000.zarr.zip"),
        (other_page, "inputs/index/000000.jsonl has another content"),
        (other_copy, "manifest.copy.json differs"),
    ],
)
def test_members_that_pack_does_not_write_are_refused(packed: Path, change: Callable[[Any], object], what: str) -> None:
    parts = members(packed.read_bytes())
    change(parts)
    assert what in plain(refusal(written(parts)))


def test_extended_headers_are_refused_before_memory_is_taken(packed: Path) -> None:
    """A header that says that the next member's name has a gigabyte, as GNU's and POSIX' formats may."""
    parts = members(packed.read_bytes())
    parts[1][0].pax_headers = {"comment": "x"}
    assert "no plain file but of type 'x'" in refusal(written(parts, tarfile.PAX_FORMAT))
    for kind in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_SPARSE):
        info = of_type(kind, "long")
        info.size = 1 << 30
        assert "no plain file" in refusal(info.tobuf(tarfile.USTAR_FORMAT) + packed.read_bytes())


class Endless(io.RawIOBase):
    """A tar whose first member has the length it says, of whatever length that is."""

    def __init__(self, name: str, size: int) -> None:
        super().__init__()
        info = tarfile.TarInfo(name)
        info.size = size
        self._begin = info.tobuf(tarfile.GNU_FORMAT)

    def read(self, size: int = -1) -> bytes:
        begin, self._begin = self._begin[:size], self._begin[size:]
        return begin or bytes(size)


@pytest.mark.parametrize("size", [1 << 30, 1 << 40])
def test_a_manifest_of_any_size_is_refused_before_memory_is_taken(size: int, tmp_path: Path) -> None:
    tracemalloc.start()
    with pytest.raises(DamageError, match="of at most"):
        unpack(Endless("manifest.json", size), "c.tar", tmp_path / "c")  # type: ignore[arg-type]
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()


def test_what_is_no_tar_or_of_another_program_is_told(whole: Path, tmp_path: Path) -> None:
    assert "ends before manifest.json" in refusal(b"")
    assert "cut short or no tar" in refusal(b"notes of mine" * 1000)
    subprocess.run(["tar", "-cf", tmp_path / "c.tar", "-C", whole.parent, "c"], check=True)
    assert "no tar of hskcache pack" in refusal((tmp_path / "c.tar").read_bytes())


@given(st.binary(max_size=3000))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_one_line(data: bytes) -> None:
    refusal(data)
    info = tarfile.TarInfo("manifest.json")
    info.size = len(data)
    refusal(written([(info, data)]))
