"""Six verbs on a bucket, a folder and memory: each does what a depot promises, and says in one line what it cannot."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from flaky import Flaws, counted, flaky_server
from servers import BUCKET, Server, s3_server
from sharing import reach

from hskcache.depot.abc import Depot
from hskcache.depot.retry import OutOfReachError
from hskcache.depot.stores import open_stores
from hskcache.depot.unconditional import Unconditional, nature_of
from hskcache.errors import CacheError


@pytest.fixture(scope="module")
def store() -> Iterator[Server]:
    with s3_server() as server:
        yield server


@pytest.fixture(params=["s3", "file", "memory"])
def depot(request: pytest.FixtureRequest, store: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Depot:
    if request.param == "s3":
        reach(store, monkeypatch)
        return open_stores(f"s3://{BUCKET}/{tmp_path.name}/ä b")
    return open_stores(f"{request.param}://{tmp_path}/ä b")


def test_files_are_put_listed_read_and_deleted(depot: Depot) -> None:
    assert depot.list() == []
    depot.put("x/y", b"first")
    depot.put("x/y", b"abcdef")
    depot.put("x/yz", b"")
    depot.put("z", b"z")
    assert [(found.name, found.num_bytes) for found in depot.list()] == [("x/y", 6), ("x/yz", 0), ("z", 1)]
    assert [found.name for found in depot.list("x/")] == ["x/y", "x/yz"]
    assert depot.get("x/y") == b"abcdef"
    assert [depot.get_range("x/y", *span) for span in ((2, 4), (4, 9), (6, 9), (9, 12))] == [b"cd", b"ef", b"", b""]
    depot.delete("x/y", "gone", "z")
    depot.delete("gone")
    assert [found.name for found in depot.list()] == ["x/yz"]
    for read in (lambda: depot.get("x/y"), lambda: depot.get_range("x/y", 0, 1)):
        with pytest.raises(FileNotFoundError):
            read()


def test_of_many_that_put_a_file_if_it_is_absent_one_does(depot: Depot) -> None:
    with ThreadPoolExecutor(8) as threads:
        was_put = list(threads.map(lambda number: depot.put_if_absent("claim", b"%d" % number), range(8)))
    assert was_put.count(True) == 1
    assert depot.get("claim") == b"%d" % was_put.index(True)
    # Whoever asks again for what is there with this content is told that it is.
    assert depot.put_if_absent("claim", depot.get("claim"))


def test_a_store_is_tried_for_its_conditions_and_its_clock_and_nothing_is_left(depot: Depot) -> None:
    nature = nature_of(depot)
    assert nature.keeps_conditions
    assert abs(nature.ahead_s) < 5
    assert depot.list() == []


def test_a_store_that_forgets_conditions_is_known_by_that(
    store: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with flaky_server(store, Flaws(forgets_conditions=True), tmp_path) as server:
        reach(server, monkeypatch)
        depot = open_stores(f"s3://{BUCKET}/{tmp_path.name}")
        assert not nature_of(depot).keeps_conditions
        careful = Unconditional(depot)
        assert [careful.put_if_absent("x", data) for data in (b"1", b"2", b"1")] == [True, False, True]
        assert depot.get("x") == b"1"


def test_a_put_whose_answer_is_lost_counts_as_ours(
    store: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each request may be throttled, fail, or be lost on the way there or back; what is told is what stands there."""
    flaws = Flaws(throttled=0.08, failed=0.08, lost=0.08, unanswered=0.2)
    with flaky_server(store, flaws, tmp_path) as server:
        reach(server, monkeypatch)
        depot = open_stores(f"s3://{BUCKET}/{tmp_path.name}", 2.0)
        assert all(depot.put_if_absent(f"{number}", b"%d" % number) for number in range(16))
        assert not any(depot.put_if_absent(f"{number}", b"other") for number in range(16))
        assert [depot.get(f"{number}") for number in range(16)] == [b"%d" % number for number in range(16)]
        assert min(counted(server)[name] for name in ("throttled", "failed", "lost", "unanswered")) > 0


def test_what_cannot_be_is_told_in_one_line(store: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reach(store, monkeypatch)
    nowhere = open_stores("s3://nowhere/c", 0.0)
    for ask in (lambda: nowhere.get("x"), nowhere.list, lambda: nowhere.put("x", b""), lambda: nature_of(nowhere)):
        with pytest.raises(CacheError, match=r"s3://nowhere/c/\S*: there is no such bucket; make it first"):
            ask()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(OutOfReachError, match=r"is out of reach \(HTTP error: error sending request\)"):
        open_stores("s3://nowhere/c", 0.0).get("x")
    for url, words in (
        ("ftp://host/c", "ftp:// is no object store; give s3://, gs:// or az://"),
        ("s3:///c", "s3:// names no bucket; give one such as s3://bucket/x.hsk"),
    ):
        with pytest.raises(CacheError, match=words):
            open_stores(url)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(CacheError, match="needs credentials and there are none; give AWS_ACCESS_KEY_ID"):
        open_stores("s3://nowhere/c")
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(
        CacheError, match=r"obstore is not installed; install the extra: pip install 'hskcache\[share\]'"
    ):
        open_stores("s3://nowhere/c")


def test_a_forked_child_is_refused_and_harms_no_parent(store: Server) -> None:
    """In a process of its own, as a parent whose child shared its event queue would crash."""
    code = """
import os
from hskcache.depot.stores import open_stores
from hskcache.errors import CacheError
open_stores("s3://caches/f").put("x", b"1")
child = os.fork()
if child == 0:
    try:
        open_stores("s3://caches/f").get("x")
    except CacheError as error:
        os._exit(7 if "spawn it instead" in str(error) else 1)
    os._exit(2)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert open_stores("s3://caches/f").get("x") == b"1"
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | store.environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
