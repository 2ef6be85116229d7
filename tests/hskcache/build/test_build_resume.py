"""However a build ends and whatever ran before, the same build again gives the same bytes, and no other build does."""

import dataclasses
import os
import random
import re
import resource
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from folders import KEEP, contents, touched, unfinished_copy
from forked import start
from stored import MANIFESTS, shard_file

from hskcache.build.build import build, finished
from hskcache.build.job import Job
from hskcache.errors import CacheError, DamageError, MismatchError
from hskcache.store.ledger import Ledger
from hskcache.teacher.load import load_teacher
from hskcache.text import Examples


def build_killed_after(job: Job, out: Path, field: str, shards: int) -> None:
    """Build in a child that SIGKILL ends right before it would commit another shard of a field than the first few."""
    commits = 0

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal commits
        # Files appear by a rename, which Python reports to audit hooks before it happens.
        if event == "os.rename" and re.search(rf"/{field}/[0-9]+\.json$", str(arguments[1])):
            commits += 1
            if commits > shards:
                os.kill(os.getpid(), signal.SIGKILL)

    status = os.waitpid(start(lambda: build(job, out), count), 0)[1]
    assert os.WIFSIGNALED(status)
    assert sum(Ledger(out).is_committed(field, shard) for shard in range(8)) == shards


@pytest.mark.parametrize("shards", [0, 1, 4, 7])
@pytest.mark.parametrize("field", ["inputs", "hidden"])
def test_a_build_killed_after_some_shards_ends_with_the_same_bytes(
    job: Job, whole: Path, tmp_path: Path, field: str, shards: int
) -> None:
    out = tmp_path / "c"
    build_killed_after(job, out, field, shards)
    with pytest.raises(MismatchError, match="cut off"):
        Ledger(out).manifest()
    build(job, out)
    assert contents(out) == contents(whole)


def test_a_build_killed_again_and_again_at_random_moments_ends_with_the_same_bytes(
    job: Job, whole: Path, tmp_path: Path
) -> None:
    draw, kills = random.Random(0), 0
    begin = time.monotonic()
    build(job, tmp_path / "timed")
    longest = time.monotonic() - begin
    for attempt in range(4):
        out = tmp_path / f"{attempt}"
        # The later a kill may come, the more of the build is done at the next.
        for share in (0.3, 0.5, 0.7):
            child = start(lambda out=out: build(job, out))
            time.sleep(draw.uniform(0, share) * longest)
            os.kill(child, signal.SIGKILL)
            kills += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        build(job, out)
        assert contents(out) == contents(whole)
    assert kills > 0


def test_a_build_that_goes_on_keeps_what_is_there(job: Job, tmp_path: Path) -> None:
    out, done, ledger = tmp_path / "c", [], Ledger(tmp_path / "c")
    build_killed_after(job, out, "hidden", 5)
    places = [("hidden", -1), *((field, shard) for field in job.fields for shard in range(8))]
    files = [str(shard_file(ledger.root, *place)) for place in places if ledger.is_committed(*place)]
    before = touched(out)
    build(job, out, done.append)
    after = touched(out)
    assert len(files) >= 1 + 3 * 5
    assert [file for file in files if after[file] != before[file]] == []
    assert sum(done) == len(job.rows)


def test_constants_of_the_unfinished_build_are_used_though_new_ones_would_differ(job: Job, tmp_path: Path) -> None:
    """As on another device, where the last bits of a fit differ."""
    out, ledger = tmp_path / "c", Ledger(tmp_path / "c")
    build_killed_after(job, out, "hidden", 3)
    other = {name: array + np.float32(0.5) for name, array in _constants(ledger).items()}
    record = ledger.commit_constants("hidden", other)
    assert build(job, out).constants["hidden"] == record
    assert all(np.array_equal(array, other[name]) for name, array in _constants(ledger).items())


def test_damaged_constants_of_an_unfinished_build_are_refused_by_file(job: Job, whole: Path, tmp_path: Path) -> None:
    out = unfinished_copy(job, whole, tmp_path)
    path = shard_file(out, "hidden", -1)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(DamageError, match=r"constants-\w+\.zarr\.zip .*delete"):
        build(job, out)


def _constants(ledger: Ledger) -> dict[str, Any]:
    from hskcache.resolved import hidden_field
    from hskcache.store.reading import read_shard

    request = ledger.request()
    assert request is not None
    assert request.spec.hidden is not None
    field = hidden_field(request.spec.hidden, request.teacher)
    record = ledger.committed("hidden", -1)
    assert record is not None
    return read_shard(ledger.shard_path(record), record, field)


def test_a_complete_cache_is_recognised_and_not_touched(job: Job, whole: Path) -> None:
    before, done = touched(whole), []
    manifest = finished(job, whole)
    assert manifest is not None
    assert build(job, whole, done.append) == manifest
    assert touched(whole) == before
    assert done == []


@pytest.mark.parametrize("lost", ["hidden/000004-*.zip", "hidden/index/*", *MANIFESTS, "tokenizer/tokenizer.json"])
def test_a_file_lost_from_a_complete_cache_is_made_again(job: Job, whole: Path, tmp_path: Path, lost: str) -> None:
    out = Path(shutil.copytree(whole, tmp_path / "c"))
    next(out.glob(lost)).unlink()
    assert finished(job, out) is None
    build(job, out)
    assert contents(out) == contents(whole)


@pytest.mark.parametrize("left", ["building.json", "hidden/000001.zarr.zip.0f.tmp", "manifest.json.0f.tmp"])
def test_what_a_kill_after_the_manifest_leaves_is_removed(job: Job, whole: Path, tmp_path: Path, left: str) -> None:
    out = Path(shutil.copytree(whole, tmp_path / "c"))
    (out / left).write_text(job.request.model_dump_json())
    build(job, out)
    assert contents(out) == contents(whole)


def test_bytes_do_not_depend_on_what_ran_before(
    job: Job, whole: Path, job_of: Any, pairs: Examples, tiny_teacher_dir: Path, tmp_path: Path
) -> None:
    """Neither other builds by the teacher, its tokenizer's settings, seeds or torch's mode, nor its folder count."""
    moved = shutil.copytree(tiny_teacher_dir, tmp_path / "elsewhere")
    other = load_teacher(str(moved), "cpu")
    build(job_of("2l_0.5h", pairs, by=other, length__score="received"), tmp_path / "other")
    again = job_of(by=other, **KEEP)
    other.tokenizer(["the film"] * 3, padding="max_length", max_length=30, truncation=True)
    torch.manual_seed(5)
    with torch.inference_mode(), torch.autocast("cpu", enabled=False):
        manifest = build(again, tmp_path / "c")
    found, expected = contents(tmp_path / "c"), contents(whole)
    assert manifest.cache_id == finished(job, whole).cache_id  # type: ignore[union-attr]
    # The manifest tells the teacher's name, which is another folder here.
    assert {path for path in expected if found[path] != expected[path]} == set(MANIFESTS)


def test_a_write_that_fails_says_so_in_one_sentence_and_the_next_run_goes_on(
    job_of: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The child may write files of 12 kB, which the first shard of hidden states is larger than."""
    job, out = job_of("full", shard_rows=10), tmp_path / "c"

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, 12_000))
        try:
            build(job, out)
        except CacheError as error:
            print(f"[{error}]", file=sys.stderr, flush=True)
            os._exit(2)

    assert os.waitstatus_to_exitcode(os.waitpid(start(limited), 0)[1]) == 2
    assert f"[cannot write {out}: File too large; mend that and run the same command again" in capfd.readouterr().err
    assert list(out.rglob("*.tmp")) == []
    assert Ledger(out).is_committed("inputs", 0)
    build(job, out)
    build(job, tmp_path / "undisturbed")
    assert contents(out) == contents(tmp_path / "undisturbed")


def test_shards_that_are_written_need_no_more_space(job: Job, whole: Path, tmp_path: Path) -> None:
    """A build that stopped because the disk was full must be able to go on once there is room for the rest."""
    out = unfinished_copy(job, whole, tmp_path)
    sizes = {name: one._replace(row_bytes_N=one.row_bytes_N + (1 << 60)) for name, one in job.layout.sizes.items()}
    build(dataclasses.replace(job, layout=dataclasses.replace(job.layout, sizes=sizes)), out)
    assert contents(out) == contents(whole)
