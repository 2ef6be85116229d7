"""``hskcache repair`` where the manifest is lost, and among what a stranger or a kill has left."""

import shutil
from pathlib import Path

import pytest
from commanded import KEEP, SMALL, parsed, refused, run
from folders import contents
from stored import MANIFESTS, both_manifests, plain, shard_file

from hskcache.cache import open_cache
from hskcache.verify import verify

GOLDEN = Path(__file__).resolve().parents[2] / "golden"


@pytest.fixture
def root(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "c"))


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "missing"])
def test_a_damaged_manifest_is_taken_from_a_copy(root: Path, built: Path, damage: str) -> None:
    data = (root / "manifest.json").read_bytes()
    if damage == "missing":
        for name in MANIFESTS:
            (root / name).unlink()
    else:
        changed = data.replace(b"inputs", b"inpuds", 1)
        both_manifests(root, {"flip": changed, "cut": data[:300], "empty": b""}[damage])
    if damage != "missing":
        result = run("repair", root)
        assert result.exit_code == 1
        assert "--from COPY, or pull or build the cache again into a new folder" in result.stdout
    result = run("repair", root, "--from", built)
    assert result.exit_code == 0
    id_is_known = damage in {"flip", "cut"}
    known = "its id is the one that the damaged manifest tells" if id_is_known else "shards agree with it; the id"
    assert known in result.stderr
    assert contents(root) == contents(built)


@pytest.fixture(scope="module")
def other(sources: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another cache of the same rows, whose inputs are the same files and whose hidden states are not."""
    out = tmp_path_factory.mktemp("other") / "c"
    keep = ("--keep", "1l_2t", "--student-layers", "2", "--max-length", "48", *SMALL)
    assert run("build", *sources, "--task", "sst2", *keep, "--out", out).exit_code == 0
    return out


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_that_came_from_another_cache_gives_way_to_the_one_whose_files_stand_there(
    root: Path, built: Path, other: Path, name: str
) -> None:
    assert {path.name for path in (root / "inputs").iterdir()} == {path.name for path in (other / "inputs").iterdir()}
    shutil.copy(other / name, root / name)
    assert open_cache(root).id == open_cache(built).id
    found = parsed("repair", root)
    assert [(one["file"], one["what"]) for one in found["mended"]] == [
        (name, f"is of another cache, {open_cache(other).id[:12]}, or was edited")
    ]
    assert contents(root) == contents(built)


def test_a_copy_that_lists_more_than_a_manifest_of_former_days_is_not_lost(tmp_path: Path) -> None:
    grown = GOLDEN / "added-2.hsk"
    root = Path(shutil.copytree(grown, tmp_path / "c"))
    (root / "manifest.json").write_bytes(open_cache(root).manifest.subset(["inputs", "logits"]).to_json())
    assert open_cache(root).fields.keys() == {"inputs", "logits"}
    before = contents(root)
    found = parsed("repair", root, code=1)["remaining"][0]
    assert found["file"] == "manifest.copy.json"
    told = (
        "lists more that stands here; delete manifest.json to have all of that, or manifest.copy.json to do without it"
    )
    assert found["advice"] == told
    assert contents(root) == before
    (root / "manifest.json").unlink()
    assert run("repair", root).exit_code == 0
    assert contents(root) == contents(grown)


def test_where_both_manifests_came_from_another_cache_a_copy_of_the_right_one_mends_it_alone(
    root: Path, built: Path, other: Path
) -> None:
    for name in MANIFESTS:
        shutil.copy(other / name, root / name)
    before = contents(root)
    found = parsed("repair", root, code=1)["remaining"]
    assert found[0]["what"] == "seems to be that of another cache: other pages stand here than it lists"
    assert "--from COPY, or pull or build the cache again into a new folder" in found[0]["advice"]
    assert "is another cache" in refused("repair", root, "--from", other)
    assert contents(root) == before
    assert run("repair", root, "--from", built).exit_code == 0
    assert run("repair", root, "--remove-extra").exit_code == 0
    assert contents(root) == contents(built)


@pytest.mark.parametrize("command", ["build", "info", "repair"])
def test_where_both_manifests_are_damaged_each_is_told_and_what_helps(
    root: Path, sources: tuple[object, ...], command: str
) -> None:
    both_manifests(root, b"{")
    assert [(problem.file, problem.what.partition(":")[0]) for problem in verify(root).problems] == [
        (name, "is damaged") for name in MANIFESTS
    ]
    advice = f"take it from another copy with hskcache repair {root} --from COPY, or pull or build the cache again"
    if command == "repair":
        assert advice in run("repair", root).stdout
        return
    words = ("info", root) if command == "info" else ("build", *sources, "--task", "sst2", *KEEP, *SMALL, "--out", root)
    line = refused(*words)
    assert f", and so is manifest.copy.json; {advice} into a new folder" in line


def test_the_manifest_of_another_cache_is_not_taken(root: Path, other: Path) -> None:
    both_manifests(root, b"{}")
    before = contents(root)
    assert "is another cache" in refused("repair", root, "--from", other)
    assert contents(root) == before


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_damaged_manifest_is_written_anew_from_the_other_of_the_two(root: Path, built: Path, name: str) -> None:
    (root / name).write_bytes((root / name).read_bytes()[:-100])
    found = parsed("repair", root)
    assert [problem["file"] for problem in found["mended"]] == [name]
    assert contents(root) == contents(built)


def test_a_damaged_page_of_records_is_written_anew_from_its_shards_or_taken_from_a_copy(
    root: Path, built: Path
) -> None:
    page = next((root / "logits" / "index").iterdir())
    page.write_bytes(page.read_bytes()[:-3])
    found = parsed("repair", root)
    assert [problem["file"] for problem in found["mended"]] == [page.relative_to(root).as_posix()]
    assert contents(root) == contents(built)
    page.unlink()
    shard_file(root, "logits", 1).unlink()
    found = parsed("repair", root, code=1)
    assert [problem["file"] for problem in found["remaining"]] == [page.relative_to(root).as_posix()]
    assert "--from" in found["remaining"][0]["advice"]
    assert run("repair", root, "--from", built).exit_code == 0
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
    assert [plain(problem["file"]) for problem in found["mended"]] == ["logits/000001.zarr.zip"]
    assert [problem["file"] for problem in found["remaining"]] == ["appending.json"]
    assert "delete it to have the rows forgotten" in found["remaining"][0]["what"]
    assert run("repair", root, "--remove-extra").exit_code == 0
    assert contents(root) == contents(built)
