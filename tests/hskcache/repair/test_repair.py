"""A damaged cache becomes, to the byte, what it was: nothing else is touched, and nothing else is put in place."""

import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folders import KEEP, contents, touched
from forked import start
from rows_like import with_content
from stored import plain, shard_file

from hskcache.build.addition import add_field, prepare_addition
from hskcache.build.append import append
from hskcache.build.job import Job
from hskcache.cache import Cache, open_cache
from hskcache.errors import MismatchError
from hskcache.repair.mending import bad_pages, damage_of, mend_from_manifest, mend_manifest, rebuild_page
from hskcache.repair.recompute import Recomputation, addition_source, recompute, source_of
from hskcache.store.ledger import Ledger
from hskcache.store.publishing import publish, sweep
from hskcache.store.record import Record
from hskcache.store.shelf import Directory
from hskcache.teacher.load import Teacher
from hskcache.text import Examples
from hskcache.verify import verify

Damage = Callable[[Path], object]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def swap(path: Path) -> None:
    other = shard_file(path.parent.parent, path.parent.name, 3)
    first, second = path.read_bytes(), other.read_bytes()
    path.write_bytes(second)
    other.write_bytes(first)


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(whole, tmp_path / "c"))


def mend(root: Path, source: Callable[[Cache], Recomputation]) -> dict[tuple[str, int], str]:
    """What ``hskcache repair`` does with a teacher; the reasons of what is not mended."""
    ledger = Ledger(root)
    manifest = ledger.intact()
    damage = damage_of(ledger, manifest, verify(root).problems)
    mend_from_manifest(ledger, damage, remove_extra=False)
    cache = Cache(manifest, Directory(root))
    return recompute(source(cache), cache, damage.shards)[1]


def visible(found: dict[str, Any]) -> dict[str, Any]:
    """Without what readers leave alone."""
    return {name: value for name, value in found.items() if not name.startswith(".")}


@pytest.mark.parametrize("damage", [flip, truncate, Path.unlink, swap])
@pytest.mark.parametrize("field", ["inputs", "logits", "hidden"])
def test_damaged_shards_are_computed_again_and_no_other_file_is_touched(
    job: Job, whole: Path, root: Path, field: str, damage: Damage
) -> None:
    damage(shard_file(root, field, 2))
    bad = {problem.file for problem in verify(root).problems}
    assert bad
    before = touched(root)
    assert mend(root, lambda cache: source_of(job, cache)) == {}
    after = touched(root)
    assert visible(contents(root)) == contents(whole)
    changed = {Path(file).relative_to(root).as_posix() for file in before if before[file] != after.get(file)}
    assert changed <= bad | {field, "."}


def test_damaged_constants_and_a_shard_made_with_them(job: Job, whole: Path, root: Path) -> None:
    flip(shard_file(root, "hidden", -1))
    flip(shard_file(root, "hidden", 4))
    assert mend(root, lambda cache: source_of(job, cache)) == {}
    assert visible(contents(root)) == contents(whole)


def test_everything_but_the_manifest_and_its_pages_is_lost(job: Job, whole: Path, root: Path) -> None:
    for path in root.glob("*/*.zarr.zip"):
        path.unlink()
    assert mend(root, lambda cache: source_of(job, cache)) == {}
    assert visible(contents(root)) == contents(whole)


@pytest.mark.parametrize("name", ["manifest.json", "manifest.copy.json"])
@pytest.mark.parametrize("damage", [flip, truncate, Path.unlink])
def test_a_manifest_follows_from_its_copy_and_the_copy_from_it(
    whole: Path, root: Path, damage: Damage, name: str
) -> None:
    damage(root / name)
    ledger, before = Ledger(root), touched(root)
    assert mend_manifest(ledger) == [name]
    assert contents(root) == contents(whole)
    (other,) = {"manifest.json", "manifest.copy.json"} - {name}
    assert touched(root)[str(root / other)] == before[str(root / other)]


@pytest.mark.parametrize("damage", [flip, truncate, Path.unlink])
def test_a_page_of_records_follows_from_its_shards(whole: Path, root: Path, damage: Damage) -> None:
    ledger, manifest = Ledger(root), Ledger(root).intact()
    files = [file for file in manifest.index if file.field in {"logits", "hidden"}]
    for file in files:
        damage(root / file.path)
    assert [file.path for file in bad_pages(ledger, manifest)] == [file.path for file in files]
    flip(shard_file(root, "logits", 3))
    assert [rebuild_page(ledger, manifest, file) for file in files] == [False, True]
    flip(shard_file(root, "logits", 3))
    assert rebuild_page(ledger, manifest, files[0])
    assert contents(root) == contents(whole)


def test_records_of_a_build_that_were_not_swept_away_are_leftovers(whole: Path, root: Path) -> None:
    left = ["hidden/constants.json", "logits/000003-0123456789abcdef.zarr.zip", "logits/000003.json"]
    for name in left:
        (root / name).write_text("{}")
    ledger = Ledger(root)
    mended = mend_from_manifest(ledger, damage_of(ledger, ledger.intact(), verify(root).problems), remove_extra=False)
    assert sorted(mended) == left
    assert contents(root) == contents(whole)


def test_records_of_an_earlier_version_are_spelled_as_they_were(tmp_path: Path) -> None:
    golden = Path(__file__).resolve().parents[2] / "golden" / "tiny.hsk"
    root = Path(shutil.copytree(golden, tmp_path / "c"))
    for path in root.glob("*/*.json"):
        if path.parent.name != "tokenizer":
            path.unlink()
    ledger = Ledger(root)
    mend_from_manifest(ledger, damage_of(ledger, ledger.intact(), verify(root).problems), remove_extra=False)
    assert visible(contents(root)) == contents(golden)


LEFT = ("manifest.json.0f0f.tmp", "hidden/000001.zarr.zip.0f.tmp", "tokenizer/tokenizer.json.0f.tmp", "building.json")


@pytest.mark.parametrize("left", LEFT)
def test_what_a_finished_build_has_left_is_removed(whole: Path, root: Path, left: str) -> None:
    (root / left).write_text("{}")
    ledger = Ledger(root)
    mended = mend_from_manifest(ledger, damage_of(ledger, ledger.intact(), verify(root).problems), remove_extra=False)
    assert mended == [left]
    assert contents(root) == contents(whole)


def test_extra_files_are_removed_only_when_asked_for(whole: Path, root: Path) -> None:
    extra = ["notes.txt", "hidden/000099.zarr.zip", "hidden/my.tmp", "new/a/b.bin"]
    for name in extra:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("mine")
    ledger = Ledger(root)
    damage = damage_of(ledger, ledger.intact(), verify(root).problems)
    assert mend_from_manifest(ledger, damage, remove_extra=False) == []
    assert all((root / name).exists() for name in extra)
    assert sorted(mend_from_manifest(ledger, damage, remove_extra=True)) == sorted(extra)
    assert contents(root) == contents(whole)
    assert not (root / "new").exists()


def with_other_truth(root: Path, field: str, shard: int) -> Record:
    """A cache whose manifest lists a shard that this machine does not compute, as one of another device would be."""
    ledger = Ledger(root)
    manifest = ledger.intact()
    arrays = open_cache(root).read(field, shard) if shard >= 0 else open_cache(root).constants(field)
    name = "logits" if field == "logits" else min(name for name in arrays if arrays[name].dtype == np.float32)
    arrays[name] = np.nextafter(arrays[name], np.float32(9))
    record = ledger.commit(field, shard, manifest.request.shards[shard] if shard >= 0 else (0, 0), arrays)
    if shard >= 0:
        records = [*manifest.shards[field]]
        records[shard] = record
        manifest = manifest.with_records({field: records})
    else:
        manifest = manifest.model_copy(update={"constants": {field: record}})
    grown = manifest.model_copy(update={"environment": manifest.environment | {"torch": "1.0"}}).signed()
    publish(root, grown)
    sweep(root, grown, [field])
    assert verify(root).ok
    return record


def test_a_shard_that_comes_out_different_is_not_put_in_place(job: Job, root: Path) -> None:
    with_other_truth(root, "logits", 2)
    truth = shard_file(root, "logits", 2).read_bytes()
    flip(shard_file(root, "logits", 2))
    flip(shard_file(root, "hidden", 5))
    damaged = shard_file(root, "logits", 2).read_bytes()
    reasons = mend(root, lambda cache: source_of(job, cache))
    assert list(reasons) == [("logits", 2)]
    assert re.search(r"different .*torch 1\.0 there and 2\.\S+ here.*--from", reasons["logits", 2])
    assert shard_file(root, "logits", 2).read_bytes() == damaged != truth
    assert {problem.file for problem in verify(root).problems} == {
        shard_file(root, "logits", 2).relative_to(root).as_posix()
    }


def test_shards_of_constants_that_cannot_be_made_again_stay_and_others_are_mended(job: Job, root: Path) -> None:
    with_other_truth(root, "hidden", -1)
    for file in ("hidden/constants*.zip", "hidden/000001*.zip", "logits/000001*.zip"):
        flip(next(root.glob(file)))
    reasons = mend(root, lambda cache: source_of(job, cache))
    assert "different" in reasons["hidden", -1]
    assert "constants that are lost" in reasons["hidden", 1]
    assert {plain(problem.file) for problem in verify(root).problems} == {
        "hidden/constants.zarr.zip",
        "hidden/000001.zarr.zip",
    }


def test_another_teacher_rows_or_labels_are_refused_by_the_first_difference(
    job_of: Any, root: Path, other: Teacher, pairs: Examples, unlabelled: Examples
) -> None:
    cache = open_cache(root)
    with pytest.raises(MismatchError, match=r"teacher\.weights_sha256"):
        source_of(job_of(by=other, **KEEP), cache)
    with pytest.raises(MismatchError, match=r"data\.fingerprint"):
        source_of(job_of(rows=pairs, **KEEP), cache)
    with pytest.raises(MismatchError, match=r"data\.fingerprint"):
        source_of(job_of(rows=unlabelled, **KEEP), cache)


@pytest.mark.parametrize("commits", [1, 3, 5])
def test_a_repair_that_is_killed_goes_on_and_readers_see_nothing_half(
    job: Job, whole: Path, root: Path, commits: int
) -> None:
    for shard in range(3):
        for field in ("inputs", "hidden"):
            flip(shard_file(root, field, shard))
    renames = 0

    def kill(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal renames
        if event == "os.rename" and str(arguments[1]).endswith(".zarr.zip"):
            renames += 1
            if renames > commits:
                os.kill(os.getpid(), signal.SIGKILL)

    status = os.waitpid(start(lambda: mend(root, lambda cache: source_of(job, cache)), kill), 0)[1]
    assert os.WIFSIGNALED(status)
    manifest = open_cache(root).manifest
    for problem in verify(root).problems:
        assert problem.shard is not None
        assert problem.shard < 3
    assert mend(root, lambda cache: source_of(job, cache)) == {}
    assert open_cache(root).manifest == manifest
    assert visible(contents(root)) == contents(whole)


@pytest.mark.parametrize("shard", [0, 7])
def test_an_added_field_is_computed_from_the_rows_of_the_cache(
    root: Path, teacher: Teacher, other: Teacher, spec_of: Any, shard: int
) -> None:
    spec = spec_of(**KEEP)
    add_field(prepare_addition(other, open_cache(root), "logits", "large"))
    add_field(prepare_addition(other, open_cache(root), "hidden", "large-hidden", spec))
    before = contents(root)
    flip(shard_file(root, "large", shard))
    flip(shard_file(root, "large-hidden", shard))
    flip(shard_file(root, "large-hidden", -1))
    with pytest.raises(MismatchError, match=r"large .*teacher.weights_sha256"):
        addition_source(teacher, open_cache(root), "large")
    assert mend(root, lambda cache: addition_source(other, cache, "large")) == {}
    assert {problem.field for problem in verify(root).problems} == {"large-hidden"}
    assert mend(root, lambda cache: addition_source(other, cache, "large-hidden")) == {}
    assert visible(contents(root)) == visible(before)


def test_rows_that_were_appended_are_computed_from_their_own_data(
    job_of: Any, root: Path, job: Job, examples: Examples
) -> None:
    more = with_content(examples, texts=examples.texts[:13], labels=examples.labels[:13])  # type: ignore[index]
    appended = job_of(rows=more, **KEEP)
    append(appended, open_cache(root))
    before = contents(root)
    for file in ("logits/000003*.zip", "inputs/000009*.zip", "hidden/000010*.zip"):
        flip(next(root.glob(file)))
    mend(root, lambda cache: source_of(appended, cache))
    assert {plain(problem.file) for problem in verify(root).problems} == {"logits/000003.zarr.zip"}
    assert mend(root, lambda cache: source_of(job, cache)) == {}
    assert visible(contents(root)) == visible(before)
