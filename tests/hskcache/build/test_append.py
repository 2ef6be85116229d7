"""Appended rows stand after those that were there, which stay as they are; readers see all of them or none."""

import dataclasses
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folders import KEEP, contents, touched
from forked import in_child, start
from rows_like import with_content
from stored import MANIFESTS

from hskcache.build.addition import add_field, prepare_addition
from hskcache.build.append import append, check_append
from hskcache.build.build import build
from hskcache.build.job import Job
from hskcache.cache import Cache, open_cache
from hskcache.errors import CacheError, MismatchError
from hskcache.store.appending import RowsDraft, appending, is_being_appended, is_unfinished
from hskcache.store.growing import is_of_append
from hskcache.store.ledger import Ledger
from hskcache.store.shelf import Directory
from hskcache.store.survey import APPENDING
from hskcache.teacher.load import Teacher
from hskcache.text import Examples
from hskcache.verify import verify

NUM_OLD, NUM_NEW = 40, 13


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "c"))


def test_old_files_stay_and_new_rows_follow_with_the_same_knowledge_as_a_build_of_them(
    root: Path, new: Job, job_of: Any, more: Examples, tmp_path: Path
) -> None:
    before, content, identity = touched(root), contents(root), open_cache(root).id
    done: list[int] = []
    manifest = append(new, open_cache(root), done.append)
    after = touched(root)
    changed = {Path(file).relative_to(root).as_posix() for file in before if before[file] != after[file]}
    assert changed == {"manifest.json", "manifest.copy.json", *OWN, *(f"{name}/index" for name in OWN)}
    assert sum(done) == NUM_NEW
    cache = open_cache(root)
    assert cache.id == manifest.cache_id != identity
    assert verify(root).ok
    assert (cache.num_rows, cache.shards[8:]) == (NUM_OLD + NUM_NEW, [(40, 45), (45, 50), (50, 53)])
    assert [part.name for part in manifest.request.parts] == [manifest.request.data.name, "more.tsv"]
    kept = {name: digest for name, digest in contents(root).items() if name in content}
    assert kept | {name: content[name] for name in MANIFESTS} == content
    # Built alone, with columns that do not depend on the other rows, they are the same rows.
    keep = KEEP | {"width__scheme": "magnitude"}
    build(job_of(**keep), tmp_path / "both")
    append(job_of(rows=more, **keep), open_cache(tmp_path / "both"))
    build(job_of(rows=more, **keep), tmp_path / "alone")
    both, alone = open_cache(tmp_path / "both"), open_cache(tmp_path / "alone")
    for row in range(NUM_NEW):
        found, expected = both.row(NUM_OLD + row), alone.row(row)
        assert found.pop("row_id") == NUM_OLD + expected.pop("row_id")
        np.testing.assert_equal(found, expected)


def test_twice_in_a_row_and_what_an_interruption_between_them_would_leave(
    root: Path, grown: Path, job_of: Any, new: Job, more: Examples
) -> None:
    append(new, open_cache(root))
    assert contents(root) == contents(grown)
    third = with_content(more, texts=more.texts[::-1], source="third.tsv")
    append(job_of(rows=third, **KEEP), open_cache(root))
    cache = open_cache(root)
    assert cache.num_rows == NUM_OLD + 2 * NUM_NEW
    assert [cache.row(row)["row_id"] for row in (39, 40, 52, 53, 65)] == [39, 40, 52, 53, 65]
    assert verify(root).ok


OWN = ("inputs", "logits", "hidden")


@pytest.mark.parametrize(("field", "commits"), [("inputs", 0), ("hidden", 1), ("logits", 2), ("manifest", 0)])
def test_an_append_that_is_killed_goes_on_and_until_then_the_cache_is_the_old_one(
    root: Path, grown: Path, new: Job, field: str, commits: int
) -> None:
    manifest, seen = open_cache(root).manifest, 0
    pattern = r"/manifest\.json$" if field == "manifest" else rf"/{field}/[0-9]+\.json$"

    def kill(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event == "os.rename" and re.search(pattern, str(arguments[1])):
            seen += 1
            if seen > commits:
                os.kill(os.getpid(), signal.SIGKILL)

    status = os.waitpid(start(lambda: append(new, open_cache(root)), kill), 0)[1]
    assert os.WIFSIGNALED(status)
    ledger = Ledger(root)
    assert open_cache(root).manifest == manifest
    assert is_unfinished(ledger, manifest)
    assert not is_being_appended(ledger)
    extra = contents(root).keys() - manifest_files(root) - {".lock", ".lock-append"}
    assert extra
    # A manifest that was half written is of nobody any more, whoever was writing it.
    assert all(is_of_append(ledger, manifest, file) for file in extra if not file.startswith("manifest."))
    told = {problem.file: problem.what for problem in verify(root).problems}
    assert "cut off; give the same command again" in told.pop(APPENDING)
    assert all(file.startswith("manifest.") for file in told)
    append(new, open_cache(root))
    assert {name: digest for name, digest in contents(root).items() if not name.startswith(".")} == contents(grown)
    assert verify(root).ok


def manifest_files(root: Path) -> set[str]:
    manifest = Ledger(root).manifest()
    files = {record.path for record in manifest.records} | {file.path for file in manifest.index}
    tokenizer = {path.relative_to(root).as_posix() for path in (root / "tokenizer").iterdir()}
    return files | tokenizer | set(MANIFESTS)


def test_a_draft_that_a_kill_after_the_manifest_leaves_does_not_harm(
    root: Path, new: Job, more: Examples, job_of: Any
) -> None:
    append(new, open_cache(root))
    draft = RowsDraft(data=new.data, start=NUM_OLD)
    (root / APPENDING).write_text(draft.model_dump_json())
    assert not is_unfinished(Ledger(root), open_cache(root).manifest)
    assert [problem.file for problem in verify(root).problems] == [APPENDING]
    append(job_of(rows=with_content(more, texts=more.texts[::-1]), **KEEP), open_cache(root))
    assert verify(root).ok


def test_shards_of_forgotten_rows_are_not_taken_for_those_of_others(
    root: Path, new: Job, job_of: Any, more: Examples, grown: Path
) -> None:
    def kill(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.rename" and str(arguments[1]).endswith("/manifest.json"):
            os.kill(os.getpid(), signal.SIGKILL)

    others = job_of(rows=with_content(more, texts=more.texts[::-1], source="others.tsv"), **KEEP)
    assert in_child(lambda: append(others, open_cache(root)), kill) == -signal.SIGKILL
    before = contents(root)
    with pytest.raises(MismatchError, match=r"rows of others\.tsv were being appended.*delete .*appending\.json"):
        append(new, open_cache(root))
    assert contents(root) == before | {".lock-append": before[".lock-append"]} or ".lock-append" not in contents(root)
    (root / APPENDING).unlink()
    append(new, open_cache(root))
    assert {name: digest for name, digest in contents(root).items() if not name.startswith(".")} == contents(grown)


def test_only_one_process_appends(root: Path, new: Job, grown: Path) -> None:
    with appending(Ledger(root)):
        assert is_being_appended(Ledger(root))
        (root / APPENDING).write_text(RowsDraft(data=new.data, start=NUM_OLD).model_dump_json())
        assert [problem.what[:50] for problem in verify(root).problems] == [
            "tells of rows that a process is appending now; ver"
        ]
        with pytest.raises(CacheError, match="another process is appending"):
            append(new, open_cache(root))
    assert not is_being_appended(Ledger(root))
    children = [start(lambda: append(new, open_cache(root))) for _ in range(2)]
    codes = sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)
    assert codes == [0, 1]
    assert contents(root) == contents(grown)


def test_the_same_rows_are_refused_unless_they_are_wanted_twice(root: Path, job: Job, new: Job) -> None:
    with pytest.raises(MismatchError, match=r"has the rows of .*train\.tsv already.*--again"):
        check_append(job, open_cache(root))
    append(new, open_cache(root))
    with pytest.raises(MismatchError, match=r"has the rows of more\.tsv already"):
        append(new, open_cache(root))
    append(new, open_cache(root), again=True)
    cache = open_cache(root)
    assert cache.num_rows == NUM_OLD + 2 * NUM_NEW
    np.testing.assert_equal(cache.row(40)["logits"], cache.row(53)["logits"])
    assert verify(root).ok


def test_what_differs_is_named(
    root: Path, job_of: Any, more: Examples, other: Teacher, scored: Examples, new: Job
) -> None:
    cache = open_cache(root)
    for job, words in (
        (job_of(rows=more, by=other, **KEEP), "teacher.weights_sha256"),
        (job_of(rows=more, **KEEP | {"encoding": "int4"}), "spec.hidden.encoding"),
        (job_of(rows=more, **KEEP | {"shard_rows": 6}), "shard_rows"),
        (job_of(rows=scored, **KEEP), "the problem classification and those of .* have regression"),
        (job_of(rows=with_content(more, label_names=("1", "0")), **KEEP), "the classes 0, 1 .* have 1, 0"),
        (job_of(rows=with_content(more, labels=None), **KEEP), "lack labels, unlike those"),
    ):
        with pytest.raises(MismatchError, match=words):
            check_append(job, cache)
    other_tokenizer = dataclasses.replace(new, labels=new.labels)
    object.__setattr__(other_tokenizer, "tokenizer", dataclasses.replace(new.tokenizer, sha256="0" * 64))
    with pytest.raises(MismatchError, match=r"tokenizer\.sha256"):
        check_append(other_tokenizer, cache)


def test_a_cache_with_added_fields_or_a_part_of_one_is_refused(root: Path, new: Job, other: Teacher) -> None:
    add_field(prepare_addition(other, open_cache(root), "logits", "large"))
    with pytest.raises(MismatchError, match=r"has added fields \(large\), which would lack the new rows"):
        append(new, open_cache(root))
    cache = open_cache(root)
    part = Cache(cache.manifest.subset(["logits"], range(2)), Directory(root))
    with pytest.raises(MismatchError, match="is a part of another cache"):
        check_append(new, part)


def test_a_field_that_was_added_meanwhile_ends_the_append_and_not_the_field(
    root: Path, new: Job, other: Teacher
) -> None:
    def meanwhile(_rows: int) -> None:
        if "large" not in open_cache(root).fields:
            add_field(prepare_addition(other, open_cache(root), "logits", "large"))

    with pytest.raises(MismatchError, match=r"has added fields \(large\)"):
        append(new, open_cache(root), meanwhile)
    cache = open_cache(root)
    assert (cache.num_rows, "large" in cache.fields) == (NUM_OLD, True)
    assert all(len(cache.read("large", shard)["logits"]) for shard in range(8))


def test_fields_added_after_rows_were_appended_have_all_of_them(
    grown: Path, tmp_path: Path, other: Teacher, spec_of: Any
) -> None:
    root = Path(shutil.copytree(grown, tmp_path / "c"))
    add_field(prepare_addition(other, open_cache(root), "logits", "large"))
    add_field(prepare_addition(other, open_cache(root), "hidden", "pca", spec_of(**KEEP)))
    assert verify(root).ok
    cache = open_cache(root)
    assert cache.manifest.shards["pca"][-1].stop == NUM_OLD + NUM_NEW
    assert len(cache.row(50)["added"]["pca"][4]["positions"]) == 4


def test_the_build_of_the_first_rows_does_not_harm_them(grown: Path, job: Job) -> None:
    before = touched(grown)
    with pytest.raises(MismatchError, match="appended"):
        build(job, grown)
    assert {name: stamp for name, stamp in touched(grown).items() if ".building" not in name} == before
