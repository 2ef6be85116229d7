"""``export``, ``import``, ``pack`` and ``unpack`` as they are typed: what they say, where, and how they end."""

import bz2
import gzip
import json
import lzma
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from stored import shard_file

from hskcache.verify import verify

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = ROOT / "tests" / "golden" / "tiny.hsk"
ID = "6eb1c9a13203"


def process(*args: object, given: bytes = b"", script: str = "") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", f"{script}\nfrom hskcache.cli import main; main()", *map(str, args)]
    return subprocess.run(command, cwd=ROOT, input=given, capture_output=True)


def files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_export_and_import_tell_programs_what_they_did(data: Callable[..., Any], tmp_path: Path) -> None:
    done = data("export", GOLDEN, tmp_path / "c.h5")
    assert done == {
        "file": str(tmp_path / "c.h5"),
        "cache_id": done["cache_id"],
        "num_rows": 5,
        "num_bytes": (tmp_path / "c.h5").stat().st_size,
        "was_there": False,
    }
    assert done["cache_id"].startswith(ID)
    assert data("export", GOLDEN, tmp_path / "c.h5")["was_there"]
    landed = data("import", tmp_path / "c.h5", tmp_path / "c")
    counts = {"num_rows": 5, "num_written": 13, "num_kept": 0}
    assert (
        landed == {"cache": str(tmp_path / "c"), "cache_id": done["cache_id"], "exported_id": done["cache_id"]} | counts
    )
    assert data("import", tmp_path / "c.h5", tmp_path / "c")["num_kept"] == 13
    assert files(tmp_path / "c") == files(GOLDEN)


def test_a_cache_of_a_teacher_goes_both_ways(cache: Path, run: Callable[..., Result], tmp_path: Path) -> None:
    for there, back, file in (("export", "import", "c.h5"), ("pack", "unpack", "c.tar")):
        assert run(there, cache, tmp_path / file).exit_code == 0
        done = run(back, tmp_path / file, tmp_path / back)
        assert done.exit_code == 0
        assert done.stderr.splitlines()[-1].startswith(f"{tmp_path / back} is complete: 96 rows, id ")
        assert done.stdout == ""
        assert "already complete" in run(back, tmp_path / file, tmp_path / back).stderr
        assert files(tmp_path / back) == files(cache)


def test_pack_and_unpack_tell_programs_what_they_did(data: Callable[..., Any], tmp_path: Path) -> None:
    done = data("pack", GOLDEN, tmp_path / "c.tar")
    assert (done["num_rows"], done["was_there"]) == (5, False)
    assert done["num_bytes"] == (tmp_path / "c.tar").stat().st_size
    landed = data("unpack", tmp_path / "c.tar", tmp_path / "c")
    assert (landed["cache_id"], landed["num_written"], landed["num_kept"]) == (done["cache_id"], 13, 0)


def test_a_pipe_carries_the_tar_and_nothing_else(tmp_path: Path) -> None:
    sent = process("pack", GOLDEN, "-")
    assert sent.returncode == 0
    assert process("pack", GOLDEN, tmp_path / "c.tar").returncode == 0
    assert sent.stdout == (tmp_path / "c.tar").read_bytes()
    got = process("unpack", "-", tmp_path / "c", given=sent.stdout)
    assert (got.returncode, got.stdout) == (0, b"")
    assert verify(tmp_path / "c").ok


def test_a_pipe_that_breaks_ends_in_one_line_and_the_same_command_goes_on(tmp_path: Path) -> None:
    sent = process("pack", GOLDEN, "-").stdout
    got = process("unpack", "-", tmp_path / "c", "--json", given=sent[:40000])
    assert (got.returncode, got.stdout) == (2, b"")
    *_, last = got.stderr.decode().splitlines()
    assert last.startswith("error: stdin is cut short: it ends within hidden")
    got = process("unpack", "-", tmp_path / "c", "--json", given=sent)
    assert json.loads(got.stdout)["num_kept"] > 0
    assert verify(tmp_path / "c").ok


def test_a_tar_that_somebody_compressed_is_told_by_its_packer(
    refused: Callable[..., str], run: Callable[..., Result], tmp_path: Path
) -> None:
    assert run("pack", GOLDEN, tmp_path / "c.tar").exit_code == 0
    for compress, packer in ((gzip.compress, "gzip"), (bz2.compress, "bzip2"), (lzma.compress, "xz")):
        (tmp_path / "c").write_bytes(compress((tmp_path / "c.tar").read_bytes()))
        assert f"is compressed by {packer}" in refused("unpack", tmp_path / "c", tmp_path / "back")
        assert not (tmp_path / "back").exists()


def test_what_cannot_be_done_ends_in_one_line(
    refused: Callable[..., str], run: Callable[..., Result], tmp_path: Path
) -> None:
    assert "--json prints where OUT - writes" in refused("pack", GOLDEN, "-", "--json")
    assert "does not exist" in refused("pack", tmp_path / "none", tmp_path / "c.tar")
    for name in ("c.tar.gz", "c.tgz", "c.TAR.ZST"):
        line = refused("pack", GOLDEN, tmp_path / name)
        assert "compressed already; give" in line
        assert line.lower().endswith("c.tar")
        assert not (tmp_path / name).exists()
    assert "does not exist" in refused("export", tmp_path / "none", tmp_path / "c.h5")
    assert "No such file" in refused("unpack", tmp_path / "none", tmp_path / "c")
    assert "is missing" in refused("import", tmp_path / "none", tmp_path / "c")
    (tmp_path / "text").write_text("no")
    assert "no tar" in refused("unpack", tmp_path / "text", tmp_path / "c")
    assert "no HDF5 file" in refused("import", tmp_path / "text", tmp_path / "c")
    assert "--force" in refused("export", GOLDEN, tmp_path / "text")
    assert "--force" in refused("pack", GOLDEN, tmp_path / "text")
    for command in ("export", "pack"):
        assert run(command, GOLDEN, tmp_path / "text", "--force").exit_code == 0
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("command", ["export", "pack"])
def test_a_damaged_cache_does_not_leave(command: str, refused: Callable[..., str], tmp_path: Path) -> None:
    root = shutil.copytree(GOLDEN, tmp_path / "c")
    shard_file(root, "logits", 1).write_bytes(b"")
    assert "000001.zarr.zip" in refused(command, root, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("args", [("export", GOLDEN, "c.h5"), ("import", GOLDEN / "manifest.json", "c")])
def test_a_missing_extra_is_named_by_export_and_import(args: tuple[object, ...], tmp_path: Path) -> None:
    done = process(*args[:-1], tmp_path / str(args[-1]), script="import sys; sys.modules['h5py'] = None")
    assert done.returncode == 2
    *_, last = done.stderr.decode().splitlines()
    assert last == "error: h5py is not installed; install the extra: pip install 'hskcache[share]'"
    assert list(tmp_path.iterdir()) == []


def test_a_tar_needs_neither_h5py_nor_torch(tmp_path: Path) -> None:
    script = "import sys; sys.modules['h5py'] = sys.modules['torch'] = sys.modules['fsspec'] = None"
    assert process("pack", GOLDEN, tmp_path / "c.tar", script=script).returncode == 0
    assert process("unpack", tmp_path / "c.tar", tmp_path / "c", script=script).returncode == 0


@pytest.mark.parametrize("command", ["export", "pack"])
def test_no_file_is_put_into_the_cache_or_over_it(command: str, run: Callable[..., Result], tmp_path: Path) -> None:
    cache = Path(shutil.copytree(GOLDEN, tmp_path / "c"))
    before = files(cache)
    for out, complaint in ((cache / "x", "within the cache"), (cache, "within the cache"), (tmp_path, "is a folder")):
        result = run(command, cache, out, "--force")
        assert result.exit_code == 2
        assert complaint in result.stderr.splitlines()[-1]
    assert (files(cache), [path.name for path in tmp_path.iterdir()]) == (before, ["c"])
