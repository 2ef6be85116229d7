"""In a depot the first record of a shard counts, whoever comes second, late, or again; what is left over is swept."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hskcache.cache import open_cache
from hskcache.depot.abc import Depot
from hskcache.depot.stores import open_stores
from hskcache.errors import DamageError, MismatchError
from hskcache.store.depots import claims as claiming
from hskcache.store.depots.claims import CLAIMS, DepotClaims
from hskcache.store.depots.finishing import finish, is_whole
from hskcache.store.depots.ledger import DepotLedger, record_name
from hskcache.store.files import write_atomic
from hskcache.store.ledger import Ledger
from hskcache.store.manifest import Manifest
from hskcache.store.record import Record
from hskcache.store.survey import BUILDING

GOLDEN = open_cache(Path(__file__).resolve().parents[2] / "golden" / "tiny-2.hsk")
REQUEST = GOLDEN.manifest.request
TOKENIZER = {path.name: path.read_bytes() for path in GOLDEN.tokenizer_path.iterdir()}
VERSIONS = {"torch": "2.0", "device": "cpu"}
SHARDS = range(len(GOLDEN.shards))


@pytest.fixture
def depot(tmp_path: Path) -> Depot:
    return open_stores(f"file://{tmp_path}/depot")


@pytest.fixture(autouse=True)
def seen_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hskcache.store.depots.ledger._LOOK_S", 0.0)
    monkeypatch.setattr(claiming, "_LOOK_S", -1.0)


def begun(depot: Depot, **environment: str) -> DepotLedger:
    ledger = DepotLedger(depot)
    ledger.begin(REQUEST, GOLDEN.fields, VERSIONS | environment, TOKENIZER)
    return ledger


def commit(ledger: DepotLedger, field: str, shard: int, arrays: dict[str, NDArray[Any]] | None = None) -> Record:
    return ledger.commit(field, shard, REQUEST.shards[shard], arrays or GOLDEN.read(field, shard))


def commit_all(ledger: DepotLedger) -> None:
    for field in GOLDEN.fields:
        for shard in SHARDS:
            if ledger.committed(field, shard) is None:
                commit(ledger, field, shard)
    ledger.commit_constants("hidden_uniform", GOLDEN.constants("hidden_uniform"))


def finished(ledger: DepotLedger) -> Manifest:
    return finish(ledger, REQUEST, GOLDEN.fields, VERSIONS)


def names(depot: Depot) -> set[str]:
    return {found.name for found in depot.list()}


def others() -> dict[str, NDArray[Any]]:
    """What another machine might have computed for the first shard of logits."""
    return {name: array + np.float32(1e-6) for name, array in GOLDEN.read("logits", 0).items()}


def in_a_folder(root: Path) -> dict[str, bytes]:
    """Files of the same cache, built there."""
    ledger = Ledger(root)
    ledger.begin(REQUEST)
    for name, data in TOKENIZER.items():
        write_atomic(root / "tokenizer" / name, data)
    for field in GOLDEN.fields:
        for shard in SHARDS:
            ledger.commit(field, shard, REQUEST.shards[shard], GOLDEN.read(field, shard))
    ledger.commit_constants("hidden_uniform", GOLDEN.constants("hidden_uniform"))
    ledger.finish(REQUEST, GOLDEN.fields, VERSIONS)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_first_record_counts_and_the_shard_of_a_slower_worker_is_swept(depot: Depot, tmp_path: Path) -> None:
    first, second = begun(depot), begun(depot)
    won = commit(first, "logits", 0)
    assert commit(second, "logits", 0, others()) == won
    assert second.committed("logits", 0) == won
    assert len([name for name in names(depot) if name.endswith(".zarr.zip")]) == 2
    commit_all(second)
    manifest = finished(first)
    assert manifest.shards["logits"][0] == won
    assert {name: depot.get(name) for name in names(depot)} == in_a_folder(tmp_path / "folder")
    assert is_whole(second, manifest)


def test_a_worker_that_wakes_up_when_all_is_done_leaves_nothing(depot: Depot) -> None:
    late, other = begun(depot), begun(depot)
    commit_all(other)
    manifest = finished(other)
    before = names(depot)
    assert commit(late, "logits", 0, others()) == manifest.shards["logits"][0]
    assert names(depot) == before
    assert late.committed("logits", 1) == manifest.shards["logits"][1]
    assert finished(late) == manifest
    # What one has left that was killed between the two is swept by whoever finishes again.
    depot.put(record_name("logits", 0), b"{}")
    assert not is_whole(late, manifest)
    finished(DepotLedger(depot))
    assert names(depot) == before


def test_a_record_whose_shard_is_lost_makes_way(depot: Depot) -> None:
    first = begun(depot)
    lost = commit(first, "logits", 0)
    depot.delete(lost.path)
    second = begun(depot)
    assert second.committed("logits", 0) is None
    assert commit(second, "logits", 0, others()).sha256 != lost.sha256
    commit_all(second)
    assert lost.path not in {record.path for record in finished(second).records}


def test_a_shard_that_a_complete_cache_has_lost_is_put_again_or_refused(depot: Depot) -> None:
    ledger = begun(depot)
    commit_all(ledger)
    manifest = finished(ledger)
    depot.delete(manifest.shards["logits"][0].path)
    mending = DepotLedger(depot)
    assert not is_whole(mending, manifest)
    assert mending.committed("logits", 0) is None
    with pytest.raises(DamageError, match="is lost, and this machine makes another in its place"):
        commit(mending, "logits", 0, others())
    commit(mending, "logits", 0)
    assert is_whole(mending, manifest)


def test_two_that_finish_put_one_manifest(depot: Depot) -> None:
    one = begun(depot)
    commit_all(one)
    two = begun(depot)
    # The second one begins before it can see that the first is through.
    two.manifest = lambda: None  # type: ignore[method-assign]
    first = finish(one, REQUEST, GOLDEN.fields, VERSIONS | {"device": "cuda"})
    two._known = dict(one._known)
    assert finish(two, REQUEST, GOLDEN.fields, VERSIONS) == first
    assert depot.get("manifest.json") == depot.get("manifest.copy.json") == first.to_json()


def test_what_is_missing_is_told(depot: Depot) -> None:
    ledger = begun(depot)
    commit(ledger, "inputs", 0)
    with pytest.raises(MismatchError, match=rf"lacks {len(SHARDS) - 1} of the {len(SHARDS)} shards of inputs, the"):
        finished(ledger)


def test_workers_that_do_not_fit_are_refused_by_name(depot: Depot) -> None:
    begun(depot)
    with pytest.raises(MismatchError, match=r"is being built with torch 2\.0, and this worker has torch 2\.1"):
        begun(depot, torch="2.1")
    begun(depot, device="cuda")
    teacher = REQUEST.teacher.model_copy(update={"weights_sha256": "0" * 64})
    other = REQUEST.model_copy(update={"teacher": teacher})
    with pytest.raises(MismatchError, match=r"was begun with teacher\.weights_sha256 = .* this build asks for 0000"):
        DepotLedger(depot).begin(other, GOLDEN.fields, VERSIONS, TOKENIZER)


def test_what_is_no_cache_is_refused_and_kept(depot: Depot) -> None:
    depot.put("notes.txt", b"mine")
    with pytest.raises(MismatchError, match="holds files that are not a cache's; choose another place or empty it"):
        DepotLedger(depot).request()
    depot.put(BUILDING, b"{}")
    with pytest.raises(DamageError, match=r"building\.json is damaged"):
        DepotLedger(depot).request()


def test_a_claim_keeps_others_away_until_it_is_let_go_or_ends(depot: Depot, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    one, two = DepotClaims(depot, 0.0, told.append), DepotClaims(depot, 0.0, told.append)
    assert one.claim(3)
    assert not two.claim(3)
    assert two.claim(4)
    one.release(3)
    assert two.claim(3)
    assert told == [3, 4, 3]
    # Of a worker that is gone nobody puts it again.
    assert not one.claim(3)
    monkeypatch.setattr(claiming, "LEASE_S", 0.05)
    time.sleep(0.1)
    assert one.claim(3)


def test_claims_end_by_the_clock_of_the_store(depot: Depot, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker whose own clock is a day ahead takes nothing from one that works."""
    one, two = DepotClaims(depot, 0.0, lambda _: None), DepotClaims(depot, -86400.0, lambda _: None)
    assert one.claim(0)
    now = time.time
    monkeypatch.setattr(claiming.time, "time", lambda: now() + 86400)
    assert not two.claim(0)


def test_a_worker_keeps_its_claims_while_it_lives_and_leaves_none(
    depot: Depot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claiming, "LEASE_S", 0.6)
    other = DepotClaims(depot, 0.0, lambda _: None)
    with DepotClaims(depot, 0.0, lambda _: None).kept() as claims:
        assert claims.claim(0)
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            assert not other.claim(0)
            time.sleep(0.05)
    assert depot.list(CLAIMS) == []


def test_claims_of_dead_processes_of_this_machine_are_removed_at_once(depot: Depot) -> None:
    claims = DepotClaims(depot, 0.0, lambda _: None)
    mine = claims._me.split()[0]
    for number, holder in enumerate((mine + b" 4194305 x", mine + b" 1 x", b"elsewhere 4194305 x", b"odd")):
        depot.put(f"{CLAIMS}{number:06d}", holder)
    claims.clear()
    assert [found.name[-1] for found in depot.list(CLAIMS)] == ["1", "2", "3"]
