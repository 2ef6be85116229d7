"""An append that is killed after the manifest is done: the same command tidies up and appends nothing twice."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from folders import KEEP, contents, touched
from forked import in_child
from rows_like import with_content

from hskcache.build.addition import add_field, prepare_addition
from hskcache.build.append import append
from hskcache.build.job import Job
from hskcache.cache import open_cache
from hskcache.repair.mending import damage_of, mend_from_manifest
from hskcache.store.appending import is_appended, is_spent, is_unfinished
from hskcache.store.ledger import Ledger
from hskcache.store.survey import APPENDING
from hskcache.teacher.load import Teacher
from hskcache.text import Examples
from hskcache.verify import verify


@pytest.fixture
def root(whole: Path, new: Job, tmp_path: Path) -> Path:
    """Rows were appended by a process that was killed when it was to remove the last that it left."""
    root = Path(shutil.copytree(whole, tmp_path / "c"))

    def kill(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.remove" and str(arguments[0]).endswith(f"/{APPENDING}"):
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(lambda: append(new, open_cache(root)), kill) == -signal.SIGKILL
    return root


def test_a_process_that_could_not_even_remove_its_lock_has_done_its_work(
    whole: Path, new: Job, grown: Path, tmp_path: Path
) -> None:
    """But whoever then wants the rows twice gets them twice."""
    root = Path(shutil.copytree(whole, tmp_path / "c"))

    def kill(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.remove" and str(arguments[0]).endswith("/.lock-append"):
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(lambda: append(new, open_cache(root)), kill) == -signal.SIGKILL
    twice = Path(shutil.copytree(root, tmp_path / "twice"))
    append(new, open_cache(root))
    assert contents(root) == contents(grown)
    assert len(append(new, open_cache(twice), again=True).request.appended) == 2


@pytest.mark.parametrize("again", [False, True])
def test_the_same_command_ends_what_was_all_but_done(root: Path, new: Job, grown: Path, again: bool) -> None:
    ledger, manifest = Ledger(root), open_cache(root).manifest
    assert (is_unfinished(ledger, manifest), is_spent(ledger, manifest)) == (False, True)
    assert is_appended(ledger, manifest, new.data, left=False)
    assert append(new, open_cache(root), again=again) == manifest
    assert contents(root) == contents(grown)
    assert verify(root).ok


def test_other_rows_are_appended_after_them(root: Path, job_of: Any, more: Examples, grown: Path) -> None:
    before = touched(grown)
    others = job_of(rows=with_content(more, texts=more.texts[::-1], source="others.tsv"), **KEEP)
    assert not is_appended(Ledger(root), open_cache(root).manifest, others.data, left=True)
    append(others, open_cache(root))
    assert [part.num_rows for part in open_cache(root).manifest.request.parts] == [40, 13, 13]
    assert verify(root).ok
    assert touched(grown) == before


def test_rows_that_were_cut_off_before_a_field_was_added_have_no_more_use(
    whole: Path, new: Job, other: Teacher, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(whole, tmp_path / "c"))

    def kill(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.rename" and str(arguments[1]).endswith("/hidden/000009.json"):
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(lambda: append(new, open_cache(root)), kill) == -signal.SIGKILL
    add_field(prepare_addition(other, open_cache(root), "logits", "more"))
    ledger, manifest = Ledger(root), open_cache(root).manifest
    assert is_spent(ledger, manifest)
    (problem,) = verify(root).problems
    assert "cut off before a field was added; hskcache repair removes it" in problem.what
    mend_from_manifest(ledger, damage_of(ledger, manifest, [problem]), remove_extra=False)
    assert verify(root).ok
    assert not any(root.glob("*/000008.*"))
