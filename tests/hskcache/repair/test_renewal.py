"""A damaged manifest is written anew from what stands beside it, and never over shards of another build."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from folders import KEEP, contents, touched
from forked import start
from hskcache.repair.renewal import renew
from stored import shard_file

from hskcache.build.build import build
from hskcache.build.job import Job
from hskcache.cache import open_cache
from hskcache.errors import DamageError, MismatchError
from hskcache.store.manifest import Manifest
from hskcache.teacher.load import Teacher
from hskcache.verify import verify


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(whole, tmp_path / "c"))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def visible(found: dict[str, Any]) -> dict[str, Any]:
    """Without what readers leave alone."""
    return {name: value for name, value in found.items() if not name.startswith(".")}


def manifest_flipped(root: Path) -> None:
    flip(root / "manifest.json")


def manifest_cut(root: Path) -> None:
    path = root / "manifest.json"
    path.write_bytes(path.read_bytes()[:2000])


def manifest_edited(root: Path) -> None:
    document = json.loads((root / "manifest.json").read_text())
    document["shards"]["logits"][1]["sha256"] = "0" * 64
    (root / "manifest.json").write_text(json.dumps(document))


@pytest.mark.parametrize("damage", [manifest_flipped, manifest_cut, manifest_edited])
def test_a_damaged_manifest_is_written_anew_and_whole_shards_are_kept(
    job: Job, root: Path, damage: Callable[[Path], object]
) -> None:
    identity = open_cache(root).id
    damage(root)
    flip(shard_file(root, "logits", 6))
    before = touched(root)
    with pytest.raises(DamageError):
        open_cache(root)
    manifest, known = renew(job, root)
    assert (manifest.cache_id, known) == (identity, "as it was")
    after = touched(root)
    written = {Path(file).relative_to(root).as_posix() for file in before if before[file] != after.get(file)}
    assert {file for file in written if file.endswith(".zip")} == {"logits/000006.zarr.zip"}
    assert verify(root).ok


def test_a_manifest_of_which_nothing_is_left_is_written_anew_if_a_shard_comes_out_the_same(
    job: Job, job_of: Any, root: Path, other: Teacher
) -> None:
    identity = open_cache(root).id
    (root / "manifest.json").write_bytes(b"")
    before = contents(root)
    with pytest.raises(MismatchError, match="not what this build makes"):
        renew(job_of(by=other, **KEEP), root)
    assert visible(contents(root)) == visible(before)
    manifest, known = renew(job, root)
    assert manifest.cache_id == identity
    assert "could not be compared" in known


def test_a_manifest_that_tells_of_another_build_is_not_replaced(job_of: Any, root: Path) -> None:
    manifest_edited(root)
    before = contents(root)
    with pytest.raises(MismatchError, match=r"built with spec.hidden.encoding = int8"):
        renew(job_of(**KEEP | {"encoding": "int4"}), root)
    assert contents(root) == before


def test_a_renewal_that_is_killed_is_a_build_that_goes_on(job: Job, root: Path) -> None:
    identity = open_cache(root).id
    manifest_cut(root)
    shard_file(root, "logits", 6).unlink()

    def kill(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.rename" and str(arguments[1]).endswith("000006.zarr.zip"):
            os.kill(os.getpid(), signal.SIGKILL)

    assert os.WIFSIGNALED(os.waitpid(start(lambda: renew(job, root), kill), 0)[1])
    manifest: Manifest = renew(job, root)[0]
    assert manifest.cache_id == identity
    assert build(job, root) == manifest
