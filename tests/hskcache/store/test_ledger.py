"""A build can be killed at any moment and goes on from there; what is recorded is whole."""

import os
import resource
import shutil
import signal
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forked import in_child
from numpy.typing import NDArray
from stored import shard_file

from hskcache.cache import open_cache
from hskcache.compare.difference import difference
from hskcache.errors import CacheError, DamageError, MismatchError
from hskcache.store.appending import RowsDraft, begin_append, finish_append
from hskcache.store.files import write_atomic
from hskcache.store.ledger import Ledger
from hskcache.store.manifest import Manifest, Request
from hskcache.store.publishing import COPY, MANIFEST
from hskcache.store.reading import read_shard
from hskcache.store.record import CONSTANTS
from hskcache.store.survey import BUILDING
from hskcache.verify import verify

GOLDEN = open_cache(Path(__file__).resolve().parents[2] / "golden" / "tiny-2.hsk")
REQUEST = GOLDEN.manifest.request
DATA = REQUEST.data.model_copy(update={"num_rows": 2, "fingerprint": "others"})
FIELDS = GOLDEN.fields
CONTENT: dict[tuple[str, int], dict[str, NDArray[Any]]] = {
    (field, shard): GOLDEN.read(field, shard) for field in GOLDEN.fields for shard in range(len(GOLDEN.shards))
}


def commit_all(ledger: Ledger, fields: Collection[str] = tuple(GOLDEN.fields)) -> None:
    for (field, shard), arrays in CONTENT.items():
        if field in fields and not ledger.is_committed(field, shard):
            ledger.commit(field, shard, REQUEST.shards[shard], arrays)
    ledger.commit_constants("hidden_uniform", GOLDEN.constants("hidden_uniform"))


def build(root: Path, fields: Collection[str] = tuple(GOLDEN.fields)) -> Manifest:
    """The golden cache, or some of its fields, built anew or to its end."""
    ledger = Ledger(root)
    ledger.begin(REQUEST)
    with_tokenizer(root)
    commit_all(ledger, fields)
    return ledger.finish(REQUEST, {name: GOLDEN.fields[name] for name in fields}, GOLDEN.manifest.environment)


def with_tokenizer(root: Path) -> Path:
    for path in GOLDEN.tokenizer_path.iterdir():
        if not (root / "tokenizer" / path.name).exists():
            write_atomic(root / "tokenizer" / path.name, path.read_bytes())
    return root


def changed(**spec: Any) -> Request:
    return REQUEST.model_copy(update={"spec": REQUEST.spec.model_copy(update=spec)})


def listing(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_same_build_gives_the_same_files(tmp_path: Path) -> None:
    one, two = tmp_path / "one.hsk", tmp_path / "deep" / "two.hsk"
    assert build(one) == build(two)
    assert listing(one) == listing(two)
    assert open_cache(one).id == open_cache(two).id
    assert verify(one).problems == []


def test_building_a_complete_cache_again_changes_nothing(tmp_path: Path) -> None:
    build(tmp_path)
    before = listing(tmp_path)
    build(tmp_path)
    assert listing(tmp_path) == before


def test_shards_may_be_committed_by_many_threads_in_any_order(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.begin(REQUEST)
    with_tokenizer(tmp_path)
    ledger.commit_constants("hidden_uniform", GOLDEN.constants("hidden_uniform"))
    with ThreadPoolExecutor(4) as pool:
        for item in reversed(CONTENT.items()):
            (field, shard), arrays = item
            pool.submit(ledger.commit, field, shard, REQUEST.shards[shard], arrays)
    assert ledger.finish(REQUEST, GOLDEN.fields, {}).cache_id == build(tmp_path / "other").cache_id


def kill_before_step(step: int, root: Path, work: Callable[[], object]) -> bool:
    """Do ``work`` in a child that dies, as by SIGKILL, before its ``step``-th change below ``root``.

    Python reports every file opened, renamed and removed and every new folder to audit hooks; the child dies in one.

    Returns:
        Whether it died; False once ``work`` takes fewer steps.
    """
    steps = 0

    def die(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal steps
        writes = event in {"os.rename", "os.remove", "os.mkdir"} or (
            event == "open" and arguments[1] not in {"r", "rb"}
        )
        if writes and str(arguments[0]).startswith(str(root)):
            steps += 1
            if steps == step:
                os._exit(9)

    code = in_child(work, die)
    assert code in {0, 9}
    return code == 9


def test_build_killed_at_any_step_goes_on_to_the_same_cache(tmp_path: Path) -> None:
    fields = ("hidden_uniform",)
    expected = build(tmp_path / "expected", fields)
    step = 0
    while True:
        step += 1
        root = tmp_path / f"killed-{step}"
        if not kill_before_step(step, root, partial(build, root, fields)):
            break
        ledger = Ledger(root)
        for (field, shard), arrays in CONTENT.items():
            if ledger.is_committed(field, shard):
                record = ledger.committed(field, shard)
                assert record is not None
                found = read_shard(ledger.shard_path(record), record, FIELDS[field])
                assert all(np.array_equal(found[name], arrays[name]) for name in arrays)
        if (root / MANIFEST).exists() or (root / COPY).exists():
            assert Ledger(root).intact() == expected
        assert build(root, fields) == expected
        assert listing(root) == listing(tmp_path / "expected")
    # Opening and renaming both files of three shards and of the constants, at the least.
    assert step > 4 * 4 + 6


@pytest.mark.parametrize("num_bytes", [0, 200, 1000, 2500, 4000])
def test_build_killed_in_the_middle_of_a_file_goes_on_to_the_same_cache(tmp_path: Path, num_bytes: int) -> None:
    """The child dies, by a signal, once a file grows beyond so many bytes: the request, a record, the manifest."""
    fields = ("logits", "hidden_uniform")
    expected = build(tmp_path / "expected", fields)
    root = tmp_path / "killed"

    def work() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))
        build(root, fields)

    assert in_child(work) == -signal.SIGXFSZ
    assert max(len(content) for content in listing(root).values()) <= num_bytes
    assert build(root, fields) == expected
    assert listing(root) == listing(tmp_path / "expected")


def test_no_file_is_written_under_its_own_name(tmp_path: Path) -> None:
    """A rename puts it there; else a kill could leave a part of it."""

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and set(arguments[1] or "r") & set("wax+") and not str(arguments[0]).endswith(".tmp"):
            os._exit(9)

    assert in_child(partial(build, tmp_path), refuse) == 0
    assert difference(GOLDEN, open_cache(tmp_path)).same


def test_recommit_killed_at_any_step_never_leaves_a_record_of_the_old_shard_beside_the_new_one(tmp_path: Path) -> None:
    """A shard is committed again when it was found damaged; the new one may differ and still be of the same size."""
    old, new = ({"logits": np.full((2, 2), value, np.float32)} for value in (1, 2))
    for step in range(1, 100):
        ledger = Ledger(tmp_path / f"{step}")
        ledger.commit("logits", 0, (0, 2), old)
        died = kill_before_step(step, ledger.root, partial(ledger.commit, "logits", 0, (0, 2), new))
        if ledger.is_committed("logits", 0):
            record = ledger.record("logits", 0)
            read_shard(ledger.shard_path(record), record, FIELDS["logits"])
        if not died:
            assert ledger.is_committed("logits", 0)
            return
    pytest.fail("committing takes a hundred steps")


@pytest.mark.parametrize("removed", ["zarr.zip", "json"])
def test_shard_without_its_record_or_file_is_not_committed(tmp_path: Path, removed: str) -> None:
    ledger = Ledger(tmp_path)
    commit_all(ledger)
    next((tmp_path / "inputs").glob(f"000001*.{removed}")).unlink()
    assert [ledger.is_committed("inputs", shard) for shard in range(3)] == [True, False, True]


def test_cut_shard_damaged_record_and_record_of_another_shard_are_not_committed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    commit_all(ledger)
    os.truncate(shard_file(tmp_path, "inputs", 0), 100)
    (tmp_path / "inputs" / "000001.json").write_bytes(b"{")
    os.truncate(shard_file(tmp_path, "inputs", 2), 0)
    shutil.copy(tmp_path / "logits" / "000000.json", tmp_path / "logits" / "000001.json")
    assert not any(ledger.is_committed("inputs", shard) for shard in range(3))
    assert [ledger.is_committed("logits", shard) for shard in range(3)] == [True, False, True]
    with pytest.raises(DamageError, match="is the record of logits shard 0"):
        ledger.record("logits", 1)


def test_finish_refuses_while_a_shard_is_missing_and_says_which(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.begin(REQUEST)
    commit_all(ledger)
    ledger.record_path("hidden", 2).unlink()
    with pytest.raises(MismatchError, match="lacks 1 of the 3 shards of hidden, the first being shard 2; run the same"):
        ledger.finish(REQUEST, GOLDEN.fields, {})
    assert not (tmp_path / MANIFEST).exists()
    assert (tmp_path / BUILDING).exists()


def test_finish_refuses_a_shard_that_does_not_hold_what_its_field_stores(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.begin(REQUEST)
    with_tokenizer(tmp_path)
    commit_all(ledger)
    ledger.commit("logits", 1, REQUEST.shards[1], {"logits": np.zeros((1, 2), np.float32)})
    with pytest.raises(DamageError, match=r"logits shard 1: logits is float32 \[1, 2\]"):
        ledger.finish(REQUEST, GOLDEN.fields, {})
    assert not (tmp_path / MANIFEST).exists()
    assert not (tmp_path / COPY).exists()


def test_finish_leaves_nothing_of_the_build_behind(tmp_path: Path) -> None:
    for name in ("building.json.0.tmp", "manifest.json.0.tmp", "inputs/000000.json.0.tmp", "tokenizer/vocab.txt.0.tmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"half")
    ledger = Ledger(tmp_path)
    shutil.rmtree(tmp_path / "inputs")
    shutil.move(tmp_path / "tokenizer", tmp_path.parent / f"{tmp_path.name}-tokenizer")
    (tmp_path / "manifest.json.0.tmp").unlink()
    ledger.begin(REQUEST)
    for name in ("manifest.json.0.tmp", "inputs/000000.json.0.tmp", "tokenizer/vocab.txt.0.tmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"half")
    commit_all(ledger)
    with_tokenizer(tmp_path)
    # An attempt that was given up, a shard under the name that version 1 gave it, and a page of another ending.
    for name in ("inputs/000001-0123456789abcdef.zarr.zip", "inputs/000001.zarr.zip", "hidden/index/000000-0.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"old")
    ledger.finish(REQUEST, GOLDEN.fields, {})
    assert [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp") or path.name == BUILDING] == []
    assert verify(tmp_path).problems == []


@pytest.mark.parametrize("complete", [False, True])
def test_another_request_is_refused_with_the_first_key_that_differs_and_nothing_is_touched(
    tmp_path: Path, complete: bool
) -> None:
    ledger = Ledger(tmp_path)
    if complete:
        build(tmp_path)
    else:
        ledger.begin(REQUEST)
    before = listing(tmp_path)
    with pytest.raises(
        MismatchError, match=r"begun with spec\.max_length = 8 and this build asks for 16; choose another"
    ):
        ledger.begin(changed(max_length=16, token_budget=1))
    assert listing(tmp_path) == before


def test_same_request_under_other_names_goes_on(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.begin(REQUEST)
    teacher = REQUEST.teacher.model_copy(update={"name": "/elsewhere/teacher"})
    ledger.begin(REQUEST.model_copy(update={"teacher": teacher}))


def test_folder_of_something_else_is_refused_and_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(MismatchError, match="files that are not a cache's; choose another folder"):
        Ledger(tmp_path).begin(REQUEST)
    assert listing(tmp_path) == {"thesis.tex": b"years of work"}


def test_empty_folder_is_taken(tmp_path: Path) -> None:
    Ledger(tmp_path).begin(REQUEST)
    assert Ledger(tmp_path).request() == REQUEST


@pytest.mark.parametrize("name", [BUILDING, MANIFEST])
def test_damaged_request_is_not_built_over(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b'{"format": "hskcache"')
    with pytest.raises(DamageError, match="hskcache repair" if name == BUILDING else name):
        Ledger(tmp_path).begin(REQUEST)
    assert listing(tmp_path) == {name: b'{"format": "hskcache"'}


def test_a_process_that_finishes_late_does_not_take_back_what_was_appended_meanwhile(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    build(tmp_path)
    begin_append(ledger, ledger.intact(), DATA)
    for field in GOLDEN.fields:
        ledger.commit(field, 3, (5, 7), CONTENT[field, 0])
    grown = finish_append(
        ledger, RowsDraft(data=DATA, start=5), {"hskcache": "0.1.0", "torch": "9.9", "device": "cuda X"}
    )
    assert grown.environment == {"hskcache": "0.1.0", "device": "none; cuda X", "torch": "9.9"}
    before = listing(tmp_path)
    with pytest.raises(MismatchError, match="is built, and 2 rows were appended to it since"):
        ledger.finish(REQUEST, FIELDS, {})
    assert listing(tmp_path) == before


def test_unfinished_build_tells_how_far_it_came_and_what_to_do(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.begin(REQUEST)
    for field in REQUEST.fields:
        ledger.commit(field, 1, REQUEST.shards[1], CONTENT[field, 1])
    ledger.commit("inputs", 0, REQUEST.shards[0], CONTENT["inputs", 0])
    with pytest.raises(MismatchError, match="was cut off: 1 of 3 shards are written; run the same build command again"):
        ledger.manifest()


def test_constants_are_a_shard_of_their_own(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    record = ledger.commit_constants("hidden", {"layer_04/columns": np.array([0, 5], np.uint16)})
    assert (record.shard, record.start, record.stop) == (CONSTANTS, 0, 0)
    name = f"hidden/constants-{record.sha256[:16]}.zarr.zip"
    assert sorted(listing(tmp_path)) == [name, "hidden/constants.json"]


@pytest.mark.parametrize("there", [False, True])
def test_nothing_and_no_cache_are_told_apart(tmp_path: Path, there: bool) -> None:
    root = tmp_path if there else tmp_path / "nowhere"
    with pytest.raises(CacheError, match="so it is not a cache" if there else "does not exist"):
        Ledger(root).manifest()
