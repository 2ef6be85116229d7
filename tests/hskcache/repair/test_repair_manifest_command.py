"""``hskcache repair`` where the manifest is lost, and among what a stranger or a kill has left."""

import shutil
from pathlib import Path

import pytest
from commanded import KEEP, SMALL, parsed, refused, run
from folders import contents
from stored import shard_file

from hskcache.cache import open_cache


@pytest.fixture
def root(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "c"))


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "missing"])
def test_a_damaged_manifest_is_taken_from_a_copy(root: Path, built: Path, damage: str) -> None:
    path = root / "manifest.json"
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        changed = data.replace(b"inputs", b"inpuds", 1)
        path.write_bytes({"flip": changed, "cut": data[:300], "empty": b""}[damage])
    if damage != "missing":
        result = run("repair", root)
        assert result.exit_code == 1
        assert "--from, or give --teacher, --data and the flags of its build" in result.stdout
    result = run("repair", root, "--from", built)
    assert result.exit_code == 0
    id_is_known = damage in {"flip", "cut"}
    known = (
        "its id is the one that the damaged manifest tells" if id_is_known else "commit records agree with it; the id"
    )
    assert known in result.stderr
    assert contents(root) == contents(built)


def test_the_manifest_of_another_cache_is_not_taken(root: Path, sources: tuple[object, ...], tmp_path: Path) -> None:
    other = tmp_path / "other"
    keep = ("--keep", "1l_2t", "--student-layers", "2", "--max-length", "48")
    assert run("build", *sources, "--task", "sst2", *keep, "--shard-rows", "7", "--out", other).exit_code == 0
    (root / "manifest.json").write_bytes(b"{}")
    before = contents(root)
    assert "is another cache" in refused("repair", root, "--from", other)
    assert contents(root) == before


def test_the_flags_of_the_build_write_a_damaged_manifest_anew(
    root: Path, built: Path, sources: tuple[object, ...]
) -> None:
    identity = open_cache(root).id
    (root / "manifest.json").write_bytes((root / "manifest.json").read_bytes()[:-100])
    (root / "logits" / "000001.json").unlink()
    shutil.rmtree(root / "tokenizer")
    assert "built with spec" in refused("repair", root, *sources, "--task", "sst2", *KEEP, "--token-budget", "300")
    result = run("repair", root, *sources, "--task", "sst2", *KEEP, *SMALL)
    assert result.exit_code == 0
    assert f"id {identity[:12]}, as it was" in result.stderr
    assert contents(root) == contents(built)


@pytest.mark.parametrize("is_link", [False, True])
def test_new_files_are_never_written_where_a_link_leads(root: Path, built: Path, tmp_path: Path, is_link: bool) -> None:
    (tmp_path / "elsewhere").mkdir()
    if is_link:
        (root / ".repair").symlink_to(tmp_path / "elsewhere")
    else:
        (root / ".repair").write_text("mine")
    shard_file(root, "logits", 1).unlink()
    line = refused("repair", root, "--from", built)
    assert line == f"{root / '.repair'} is a file or a symbolic link where a folder is needed; delete it"
    assert not any((tmp_path / "elsewhere").iterdir())
    (root / ".repair").unlink()
    assert run("repair", root, "--from", built).exit_code == 0
    assert contents(root) == contents(built)


def test_what_is_left_of_an_append_and_cannot_be_read_stops_no_other_repair(root: Path, built: Path) -> None:
    (root / "appending.json").write_text('{"data"')
    shard_file(root, "logits", 1).unlink()
    found = parsed("repair", root, "--from", built, code=1)
    assert [problem["file"] for problem in found["mended"]] == ["logits/000001.zarr.zip"]
    assert [problem["file"] for problem in found["remaining"]] == ["appending.json"]
    assert "delete it to have the rows forgotten" in found["remaining"][0]["what"]
    assert run("repair", root, "--remove-extra").exit_code == 0
    assert contents(root) == contents(built)
