"""A cache is built in a bucket as in a folder: the same bytes, resumable, shared by workers that may die."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import bucket_workers
import numpy as np
import pytest
from bucket_workers import Plan, request_of, write_plan
from commanded import KEEP as BUILD
from commanded import SMALL, parsed, refused, run
from flaky import Flaws, counted, flaky_server
from folders import contents
from servers import BUCKET, Server, s3_server
from sharing import reach

from hskcache.build.build import build_part
from hskcache.build.depot import DepotSite
from hskcache.build.job import Job
from hskcache.build.request import WorkerPart
from hskcache.build.requested import build
from hskcache.cache import open_cache
from hskcache.depot.abc import Depot
from hskcache.depot.stores import open_stores
from hskcache.errors import CacheError
from hskcache.remote.place import open_any
from hskcache.store.files import sha256_hex
from hskcache.verify import verify


@pytest.fixture(scope="module")
def bucket() -> Iterator[Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def url(bucket: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place in the bucket that is this test's own."""
    reach(bucket, monkeypatch)
    return f"s3://{BUCKET}/{tmp_path.name}/c.hsk"


@pytest.fixture
def plan(tiny_teacher_dir: Path, tsv_file: Path, url: str) -> Plan:
    return Plan(str(tiny_teacher_dir), str(tsv_file), url, num_workers=2, rounds=2, longest=100)


def files(depot: Depot) -> dict[str, str]:
    return {found.name: sha256_hex(depot.get(found.name)) for found in depot.list()}


def ends_of(plan: Plan, tmp_path: Path) -> list[list[int]]:
    """How the workers of each round ended."""
    command = [sys.executable, bucket_workers.__file__, str(write_plan(tmp_path / "plan.json", plan))]
    environment = os.environ | {"HSKCACHE_RETRY_S": "2"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    ends: list[list[int]] = json.loads(done.stdout)
    assert {code for codes in ends for code in codes} <= {0, -9}, done.stderr
    return ends


def test_a_build_in_a_bucket_leaves_the_files_of_one_in_a_folder(job: Job, whole: Path, url: str) -> None:
    depot = open_stores(url)
    manifest = build_part(job, DepotSite(depot))
    assert files(depot) == contents(whole)
    assert manifest is not None
    # Given again it is known to be there.
    assert build_part(job, DepotSite(depot)) == manifest


FLAWS = Flaws(throttled=0.02, failed=0.02, lost=0.02, unanswered=0.06)


def test_workers_that_die_at_any_request_of_a_store_that_fails_leave_the_cache_of_an_undisturbed_folder(
    plan: Plan, bucket: Server, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with flaky_server(bucket, FLAWS, tmp_path) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.environment["AWS_ENDPOINT_URL"])
        ends = ends_of(plan, tmp_path)
    reach(bucket, monkeypatch)
    assert sum(code == -9 for codes in ends for code in codes) >= 2
    assert ends[-1] == [0] * plan.num_workers
    assert min(counted(server)[name] for name in ("throttled", "failed", "lost", "unanswered")) > 0
    build(request_of(plan), tmp_path / "folder")
    assert files(open_stores(url)) == contents(tmp_path / "folder")


def test_a_store_that_keeps_no_conditions_is_found_out_and_served_by_parts(
    plan: Plan, bucket: Server, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with flaky_server(bucket, Flaws(forgets_conditions=True), tmp_path) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.environment["AWS_ENDPOINT_URL"])
        with pytest.raises(CacheError, match=r"cannot put a file only if it is absent.*give --part 1/1"):
            build(request_of(plan), url)
        assert build(request_of(plan, WorkerPart(2, 2)), url).manifest is None
        assert build(request_of(plan, WorkerPart(1, 2)), url).manifest is not None
    reach(bucket, monkeypatch)
    build(request_of(plan), tmp_path / "folder")
    assert files(open_stores(url)) == contents(tmp_path / "folder")


@pytest.fixture
def command(sources: tuple[object, ...], url: str) -> tuple[object, ...]:
    return ("build", *sources, "--task", "sst2", *BUILD, *SMALL, "--out", url)


def test_a_command_builds_in_a_bucket_what_is_read_from_there(
    command: tuple[object, ...], built: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HSKCACHE_LOCAL", str(tmp_path / "local"))
    monkeypatch.chdir(tmp_path)
    assert parsed(*command)["cache_id"] == open_cache(built).manifest.cache_id
    assert list(tmp_path.iterdir()) == []
    assert f"{url} is already complete" in run(*command).stderr
    assert parsed("info", url)["cache_id"] == parsed("info", built)["cache_id"]
    read, wanted = open_any(url), open_cache(built)
    for field in wanted.fields:
        for shard in range(len(wanted.shards)):
            arrays = wanted.read(field, shard)
            assert all(np.array_equal(array, arrays[name]) for name, array in read.read(field, shard).items())
    assert run("pull", url, tmp_path / "pulled").exit_code == 0
    assert verify(tmp_path / "pulled").ok
    assert f"{url} is complete" in run("finish", url).stderr


def test_corpora_and_scores_come_into_a_bucket_too(
    tiny_teacher_dir: Path, command: tuple[object, ...], tsv_file: Path, url: str, tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("".join(line.partition("\t")[0] + "\n" for line in tsv_file.read_text().splitlines()[1:]))
    teacher = ("build", "--teacher", tiny_teacher_dir, "--device", "cpu")
    packed = (*teacher, "--corpus", text, "--keep", "4t", "--max-length", "32", "--shard-rows", "8", "--out")
    ids = [parsed(*packed, out)["cache_id"] for out in (tmp_path / "c", f"{url}/packed")]
    assert ids[0] == ids[1]
    assert "is already complete" in run(*packed, f"{url}/packed").stderr
    assert "evaluations" not in json.loads(open_stores(f"{url}/packed").get("manifest.json"))
    scored = parsed(*command[:-1], f"{url}/scored", "--eval-data", tsv_file)
    assert [one["num_rows"] for one in scored["evaluations"]] == [scored["num_rows"]]
    depot = open_stores(f"{url}/scored")
    assert depot.get("manifest.json") == depot.get("manifest.copy.json")
    assert parsed("info", f"{url}/scored")["cache_id"] == scored["cache_id"]


def test_a_part_is_told_to_be_one_and_finish_tells_what_is_missing(command: tuple[object, ...], url: str) -> None:
    said = run(*command, "--part", "1/2")
    assert said.exit_code == 0
    assert f"part 1/2 of {url} is written, and others are not; once all are" in said.stderr
    assert "shards of inputs, the first being shard" in refused("finish", url)
    assert run(*command, "--part", "2/2").exit_code == 0
    assert f"{url} is already complete" in run(*command).stderr


def test_parts_divide_a_folder_too(plan: Plan, tmp_path: Path) -> None:
    parts, whole = tmp_path / "parts", tmp_path / "folder"
    ends = [build(request_of(plan, WorkerPart(number, 3)), parts).manifest for number in (3, 1, 2)]
    assert ends[:2] == [None, None]
    assert build(request_of(plan), whole).manifest == ends[2]
    assert contents(parts) == contents(whole)


def test_what_cannot_be_built_is_refused_in_one_line(
    command: tuple[object, ...], other_dir: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(*command, "--part", "1/9").exit_code == 0
    swapped = [other_dir if word == command[2] else word for word in command]
    assert "was begun with teacher.weights_sha256 = " in refused(*swapped)
    depot = open_stores(url)
    draft = json.loads(depot.get("building.json"))
    depot.put("building.json", json.dumps(draft | {"environment": draft["environment"] | {"torch": "1.0"}}).encode())
    assert f"{url} is being built with torch 1.0, and this worker has torch " in refused(*command)
    depot.put("building.json", b"{")
    assert f"{url}/building.json is damaged" in refused(*command)
    depot.delete("building.json")
    assert f"{url} holds files that are not a cache's" in refused(*command)
    elsewhere = [*command[:-1], f"{url}2"]
    now = time.time
    monkeypatch.setattr("hskcache.depot.unconditional.time.time", lambda: now() + 7200)
    assert f"the clock of this machine is 120 minutes ahead of that of {url}2; set it" in refused(*elsewhere)
    monkeypatch.setattr("hskcache.depot.unconditional.time.time", now)
    assert "s3://nowhere/c.hsk/manifest.json: there is no such bucket; make it first" in refused(
        *command[:-1], "s3://nowhere/c.hsk"
    )
    assert "nothing can be built at sftp://" in refused(*command[:-1], "sftp://host/c.hsk")
    assert "is not a part of a build; give one such as 3/64" in refused(*command, "--part", "4/3")
    added = ("build", "--add-field", "logits", "--name", "s", "--teacher", other_dir, "--out", url)
    assert "--add-field adds to a cache in a folder, and --out is a URL" in refused(*added)
    assert "has no manifest.json, so it is not a cache" in refused("finish", tmp_path)
    assert "holds no build; give the URL that hskcache build wrote to" in refused("finish", f"{url}3")
