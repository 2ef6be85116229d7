"""Every file that is damaged, missing or does not belong is found and named, and nothing else is."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from stored import both_manifests

from hskcache.cache import open_cache
from hskcache.errors import CacheError, DamageError, MismatchError
from hskcache.store.ledger import Ledger
from hskcache.store.pages import PagedRecords
from hskcache.verify import Problem, num_shard_bytes, verify

FOLDER = Path(__file__).resolve().parents[1] / "golden"
GOLDEN = FOLDER / "tiny.hsk"
FILES = [
    (version, path.relative_to(FOLDER / f"{version}.hsk").as_posix())
    for version in ("tiny", "tiny-2")
    for path in sorted((FOLDER / f"{version}.hsk").rglob("*"))
    if path.is_file() and path.name != "manifest.json"
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A cache of its own for each test, to damage at will."""
    return shutil.copytree(GOLDEN, tmp_path / "tiny.hsk")


@pytest.fixture
def today(tmp_path: Path) -> Path:
    """The same in the version of the format that is written."""
    return shutil.copytree(FOLDER / "tiny-2.hsk", tmp_path / "tiny-2.hsk")


def named(root: Path) -> set[tuple[str | None, int | None, str]]:
    return {(problem.field, problem.shard, problem.file) for problem in verify(root).problems}


def place(file: str) -> tuple[str | None, int | None, str]:
    """What a problem with a file must name."""
    field, _, inner = file.rpartition("/")
    if field in {"", "tokenizer"}:
        return (None, None, field or file)
    if field.endswith("/index"):
        return (field.removesuffix("/index"), None, file)
    stem = inner.partition(".")[0].partition("-")[0]
    return (field, None if stem == "constants" else int(stem), file)


def test_whole_cache_has_no_problem_and_every_byte_is_counted(root: Path) -> None:
    sizes: list[int] = []
    report = verify(str(root), sizes.append)
    assert report.ok
    assert report.problems == []
    assert sum(sizes) == report.checked_bytes == sum(path.stat().st_size for path in root.rglob("*.zip"))
    found = report.model_dump(mode="json")
    assert found == {"checked_bytes": sum(sizes), "num_rows": 5, "skipped": {}, "problems": [], "ok": True}


@pytest.mark.parametrize(("version", "file"), FILES)
def test_flipped_byte_is_found_in_every_file(root: Path, today: Path, version: str, file: str) -> None:
    root = today if version == "tiny-2" else root
    content = bytearray((root / file).read_bytes())
    content[len(content) // 2] ^= 1
    (root / file).write_bytes(content)
    assert named(root) == {place(file)}
    assert not verify(root).ok


@pytest.mark.parametrize(("version", "file"), FILES)
def test_missing_and_cut_files_are_found(root: Path, today: Path, version: str, file: str) -> None:
    root = today if version == "tiny-2" else root
    content = (root / file).read_bytes()
    (root / file).write_bytes(content[: len(content) // 2])
    assert named(root) == {place(file)}
    (root / file).unlink()
    assert named(root) == {place(file)}


def test_several_problems_are_all_told_with_what_is_wrong(root: Path) -> None:
    (root / "inputs/000000.zarr.zip").write_bytes(b"")
    (root / "logits/000001.zarr.zip").unlink()
    shutil.rmtree(root / "tokenizer")
    (root / "hidden/000007.zarr.zip").write_bytes(b"")
    assert verify(root).problems == [
        Problem(field="inputs", shard=0, file="inputs/000000.zarr.zip", what="has 0 bytes where 3721 were written"),
        Problem(field="logits", shard=1, file="logits/000001.zarr.zip", what="is missing"),
        Problem(field=None, shard=None, file="tokenizer", what="is missing or empty"),
        Problem(field="hidden", shard=None, file="hidden/000007.zarr.zip", what="does not belong to the cache"),
    ]


@pytest.mark.parametrize("suffixes", [("zarr.zip",), ("json",), ("zarr.zip", "json")])
def test_two_swapped_shards_are_both_found(root: Path, suffixes: tuple[str, ...]) -> None:
    for suffix in suffixes:
        one, two = (root / "hidden" / f"00000{shard}.{suffix}" for shard in (0, 1))
        content = one.read_bytes()
        one.write_bytes(two.read_bytes())
        two.write_bytes(content)
    assert named(root) == {
        ("hidden", shard, f"hidden/00000{shard}.{suffix}") for shard in (0, 1) for suffix in suffixes
    }


def test_files_that_do_not_belong_are_found_and_those_of_hubs_left_alone(root: Path) -> None:
    for name in (
        "notes.txt",
        "inputs/000003.zarr.zip",
        "inputs/000000.json.1.tmp",
        "attention/000000.json",
        "a/README.md",
    ):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"")
    for name in ("README.md", ".gitattributes", ".cache/huggingface/inputs/000000.zarr.zip.lock"):
        (root / name).parent.mkdir(exist_ok=True, parents=True)
        (root / name).write_bytes(b"")
    assert named(root) == {
        (None, None, "notes.txt"),
        ("inputs", None, "inputs/000003.zarr.zip"),
        ("inputs", None, "inputs/000000.json.1.tmp"),
        (None, None, "attention/000000.json"),
        (None, None, "a/README.md"),
    }


def test_file_added_to_the_tokenizer_is_found(root: Path) -> None:
    (root / "tokenizer" / "added_tokens.json").write_text("{}")
    assert named(root) == {(None, None, "tokenizer")}


def test_links_are_no_files_of_a_cache(root: Path) -> None:
    """A cache that was sent must not reach for what else stands on the machine, equal or not."""
    path = root / "inputs" / "000000.zarr.zip"
    shutil.move(path, root.parent / "blob")
    path.symlink_to(root.parent / "blob")
    (problem,) = verify(root).problems
    assert (problem.field, problem.shard) == ("inputs", 0)
    assert "is a symbolic link" in problem.what


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (lambda manifest: manifest["request"]["spec"].update(max_length=16), "was edited: its request digest is"),
        (lambda manifest: manifest.update(cache_id="0" * 64), "was edited: its cache id is"),
        (lambda manifest: manifest["fields"]["hidden"].update(max_tokens=3), "was edited: its cache id is"),
        (lambda manifest: manifest["request"]["data"].update(num_rows=9), "lists 3 shards, but 9 rows make 5"),
        (lambda manifest: manifest["shards"]["logits"].pop(), "lists 2 shards, but 5 rows make 3"),
        (lambda manifest: manifest["shards"]["logits"][1].update(start=1), "with rows 2 to 4 stands"),
    ],
)
def test_edited_manifest_is_found(root: Path, edit: Callable[[dict[str, object]], object], what: str) -> None:
    path = root / "manifest.json"
    manifest = json.loads(path.read_bytes())
    edit(manifest)
    path.write_text(json.dumps(manifest))
    problems = verify(root).problems
    assert {problem.file for problem in problems} == {"manifest.json"}
    assert any(what in problem.what for problem in problems)


def test_record_edited_in_the_manifest_is_found_there_and_at_the_files(root: Path) -> None:
    path = root / "manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["shards"]["logits"][2]["sha256"] = "0" * 64
    path.write_text(json.dumps(manifest))
    assert named(root) == {
        (None, None, "manifest.json"),
        ("logits", 2, "logits/000002.zarr.zip"),
        ("logits", 2, "logits/000002.json"),
    }


@pytest.mark.parametrize("name", ["manifest.json", "manifest.copy.json"])
@pytest.mark.parametrize("damage", ["missing", "torn", "edited", "another"])
def test_a_manifest_that_is_lost_is_read_from_its_copy_and_told(today: Path, name: str, damage: str) -> None:
    cache, path = open_cache(today), today / name
    if damage == "missing":
        path.unlink()
    elif damage == "torn":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "edited":
        path.write_bytes(path.read_bytes().replace(b"golden/teacher", b"another/teacher"))
    elif name == "manifest.copy.json":
        path.write_bytes(cache.manifest.subset(["logits"]).to_json())
    else:
        path.write_bytes(path.read_bytes().replace(b'"num_rows": 5', b'"num_rows": 6', 1))
    assert open_cache(today).manifest == cache.manifest
    assert named(today) == {(None, None, name)}


def test_a_page_that_is_damaged_leaves_its_field_unread_and_the_others_as_they_are(today: Path) -> None:
    (page,) = (today / "hidden" / "index").iterdir()
    page.write_bytes(page.read_bytes().replace(b'"start":2', b'"start":3'))
    cache = open_cache(today)
    with pytest.raises(DamageError, match=rf"{page} has another content than was written"):
        cache.read("hidden", 0)
    assert cache.read("logits", 0)["logits"].shape == (2, 2)
    assert named(today) == {("hidden", None, page.relative_to(today).as_posix())}


def test_sums_of_a_page_that_are_not_those_of_its_records_are_found(today: Path) -> None:
    manifest = open_cache(today).manifest
    records = manifest.shards["logits"]
    assert isinstance(records, PagedRecords)
    pages = [page.model_copy(update={"num_skipped": 1}) for page in records.pages]
    other = PagedRecords("logits", pages, records.store)
    both_manifests(today, manifest.model_copy(update={"shards": {**manifest.shards, "logits": other}}).to_json())
    (problem,) = verify(today).problems
    assert (problem.field, problem.what) == ("logits", "holds other records than the manifest says")


def test_unreadable_manifest_is_a_problem_and_not_an_error(root: Path) -> None:
    (root / "manifest.json").write_bytes(b"{")
    (problem,) = verify(root).problems
    assert (problem.file, problem.field) == ("manifest.json", None)
    assert problem.what.startswith("is damaged: ")


def test_newer_format_and_unfinished_builds_and_nothing_at_all_cannot_be_judged(root: Path, tmp_path: Path) -> None:
    path = root / "manifest.json"
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 3'))
    with pytest.raises(MismatchError, match="upgrade"):
        verify(root)
    Ledger(tmp_path / "begun").begin(open_cache(GOLDEN).manifest.request)
    with pytest.raises(MismatchError, match="cut off"):
        verify(tmp_path / "begun")
    path.unlink()
    for missing in (root, tmp_path / "nowhere"):
        with pytest.raises(CacheError, match=str(missing)):
            verify(missing)


def test_shard_whose_digests_were_all_made_to_fit_is_still_decoded_and_found(today: Path) -> None:
    ledger, cache = Ledger(today), open_cache(today)
    arrays = cache.read("inputs", 0) | {"row_offsets": np.array([0, 9, 7])}
    ledger.commit("inputs", 0, cache.shards[0], arrays)
    ledger.finish(cache.manifest.request, cache.fields, {})
    (problem,) = verify(today).problems
    assert problem.file.startswith("inputs/000000-")
    assert problem.what == "row_offsets does not divide input_ids into rows"


def test_positions_beyond_their_row_are_found_though_all_digests_fit(today: Path) -> None:
    ledger, cache = Ledger(today), open_cache(today)
    arrays = cache.read("hidden", 0)
    arrays["layer_02/positions"] = arrays["layer_02/positions"] + np.uint16(60_000)
    ledger.commit("hidden", 0, cache.shards[0], arrays)
    ledger.finish(cache.manifest.request, cache.fields, {})
    (problem,) = verify(today).problems
    assert problem.file.startswith("hidden/000000-")
    assert problem.what == "layer_02/positions points beyond the end of its row"


def test_the_bytes_that_are_told_in_all_are_those_that_are_counted_whatever_is_missing(today: Path) -> None:
    shard = next((today / "hidden").glob("000001*.zip"))
    next((today / "logits").glob("000000*.zip")).write_bytes(b"")
    shard.unlink()
    sizes: list[int] = []
    assert len(verify(today, sizes.append).problems) == 2
    assert sum(sizes) == num_shard_bytes(today)
    both_manifests(today, b"{")
    assert num_shard_bytes(today) is None
