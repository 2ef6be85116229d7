"""A field is added to a finished cache at once or not at all, and nothing that stood there before is changed."""

import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forked import in_child, start
from stored import both_manifests, shard_file
from test_ledger import CONTENT, GOLDEN, REQUEST, build, kill_before_step, listing

from hskcache.cache import open_cache
from hskcache.errors import DamageError, MismatchError, SpecError
from hskcache.store.additions import FieldDraft, adding, begin_field, check_name, finish_field, is_added
from hskcache.store.fields import LogitsField
from hskcache.store.ledger import Ledger
from hskcache.store.manifest import Added, Manifest
from hskcache.store.publishing import COPY, MANIFEST
from hskcache.store.survey import ADDING
from hskcache.verify import verify

FIELDS = tuple(GOLDEN.fields)
OWN = REQUEST.spec.model_copy(update={"hidden": None})


def draft(weights: str = "a", **teacher: Any) -> FieldDraft:
    """Logits of another teacher; ``weights`` is the digit its digest is made of."""
    info = REQUEST.teacher.model_copy(update={"weights_sha256": weights * 64} | teacher)
    return FieldDraft(field=GOLDEN.fields["logits"], added=Added(teacher=info, spec=OWN, environment={"torch": "1"}))


def shards(shift: float = 1.0) -> list[np.ndarray[Any, Any]]:
    return [CONTENT["logits", shard]["logits"] + np.float32(shift) for shard in range(REQUEST.num_shards)]


def add(root: Path, name: str = "s30", one: FieldDraft | None = None, shift: float = 1.0) -> Manifest:
    """A field added, or the adding finished that was cut off."""
    ledger, one = Ledger(root), one or draft()
    with adding(ledger, name):
        if (done := is_added(ledger, name, one)) is not None:
            return done
        begin_field(ledger, name, one)
        for shard, logits in enumerate(shards(shift)):
            if not ledger.is_committed(name, shard):
                ledger.commit(name, shard, REQUEST.shards[shard], {"logits": logits})
        return finish_field(ledger, name, one)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    build(tmp_path / "c", FIELDS)
    return tmp_path / "c"


def test_what_was_there_stays_byte_for_byte_and_the_new_field_is_read_beside_it(root: Path) -> None:
    before, own = listing(root), open_cache(root)
    manifest = add(root)
    after = listing(root)
    assert {name: data for name, data in after.items() if name in before and name not in {MANIFEST, COPY}} == {
        name: data for name, data in before.items() if name not in {MANIFEST, COPY}
    }
    assert {name.partition("/")[0] for name in after.keys() - before.keys()} == {"s30"}
    cache = open_cache(root)
    assert cache.manifest == manifest
    assert cache.id != own.id
    assert cache.manifest.request_digest == own.manifest.request_digest
    assert [np.array_equal(cache.read("s30", n)["logits"], logits) for n, logits in enumerate(shards())] == [True] * 3
    assert set(manifest.own_fields) == set(FIELDS)
    assert manifest.request_for("s30").teacher.weights_sha256 == "a" * 64
    assert manifest.request_for("logits") == REQUEST
    assert verify(root).problems == []


def test_the_id_tells_whose_field_it_is_but_not_the_path_of_its_teacher_or_what_computed_it(tmp_path: Path) -> None:
    ids = []
    for number, one in enumerate(
        (
            draft(),
            draft(name="/elsewhere", revision="main"),
            draft("b"),
            draft().model_copy(update={"added": draft().added.model_copy(update={"environment": {}})}),
        )
    ):
        build(tmp_path / f"{number}", FIELDS)
        ids.append(add(tmp_path / f"{number}", one=one).cache_id)
    assert ids[0] == ids[1] == ids[3] != ids[2]


def test_adding_killed_at_any_step_leaves_a_whole_cache_and_goes_on_to_the_same_one(tmp_path: Path) -> None:
    build(tmp_path / "expected", FIELDS)
    own = open_cache(tmp_path / "expected").id
    expected = add(tmp_path / "expected")
    for step in range(1, 200):
        root = tmp_path / f"killed-{step}"
        build(root, FIELDS)
        if not kill_before_step(step, root, partial(add, root)):
            break
        cache = open_cache(root)
        assert cache.id in {own, expected.cache_id}
        assert all(cache.read(name, shard) for name in cache.fields for shard in range(3))
        assert add(root) == expected
        assert listing(root) == listing(tmp_path / "expected")
    assert step > 3 * 4


def test_an_unfinished_field_is_one_problem_that_says_what_to_do(root: Path) -> None:
    ledger = Ledger(root)
    begin_field(ledger, "s30", draft())
    ledger.commit("s30", 0, REQUEST.shards[0], {"logits": shards()[0]})
    (problem,) = verify(root).problems
    assert (problem.field, problem.file) == ("s30", f"s30/{ADDING}")
    assert "give the same command again, or delete the folder s30" in problem.what
    assert "s30" not in open_cache(root).fields
    add(root)
    assert verify(root).problems == []


def test_many_processes_that_add_fields_at_once_lose_none(root: Path) -> None:
    names = [f"s{number}" for number in range(8)]
    children = [start(partial(add, root, name, shift=float(number))) for number, name in enumerate(names)]
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 8
    cache = open_cache(root)
    assert set(cache.manifest.added) == set(names)
    assert all(np.array_equal(cache.read(f"s{n}", 1)["logits"], shards(float(n))[1]) for n in range(8))
    assert verify(root).problems == []


@pytest.mark.parametrize("finished", [False, True])
def test_another_teacher_under_the_same_name_is_refused_and_nothing_is_touched(root: Path, finished: bool) -> None:
    if finished:
        add(root)
    else:
        begin_field(Ledger(root), "s30", draft())
    before = {name: data for name, data in listing(root).items() if not name.startswith(".lock")}
    with pytest.raises(MismatchError, match=r"field s30 with teacher.weights_sha256 = a+ and this .* another --name"):
        add(root, one=draft("b"))
    assert {name: data for name, data in listing(root).items() if not name.startswith(".lock")} == before


def test_another_width_under_the_same_name_is_refused(root: Path) -> None:
    add(root)
    with pytest.raises(MismatchError, match="num_labels=3"):
        add(root, one=draft().model_copy(update={"field": LogitsField(num_labels=3)}))


def test_a_finished_field_is_left_alone_and_one_that_lost_a_shard_is_mended(root: Path) -> None:
    expected = add(root)
    before = listing(root)
    assert add(root) == expected
    shard_file(root, "s30", 1).unlink()
    assert is_added(Ledger(root), "s30", draft()) is None
    assert add(root) == expected
    assert listing(root) == before


def test_building_the_cache_again_keeps_the_fields_that_were_added(root: Path) -> None:
    expected = add(root)
    shard_file(root, "hidden", 2).unlink()
    assert build(root, FIELDS).cache_id == expected.cache_id
    assert open_cache(root).manifest == expected


def test_an_edited_manifest_gets_no_new_signature(root: Path) -> None:
    path = root / MANIFEST
    both_manifests(root, path.read_bytes().replace(b'"max_length": 8', b'"max_length": 9'))
    edited = path.read_bytes()
    with pytest.raises(DamageError, match="was edited"):
        add(root)
    assert path.read_bytes() == edited


@pytest.mark.parametrize(
    "name", ["", "S30", "a/b", "..", "a.b", "-a", "s30\n", "inputs", "logits", "tokenizer", "building"]
)
def test_names_that_no_added_field_can_have(root: Path, name: str) -> None:
    with pytest.raises(SpecError, match="--name"):
        check_name(open_cache(root).manifest, name)
    assert not (root.parent / "b").exists()


def test_a_folder_of_something_else_is_not_written_into(root: Path) -> None:
    (root / "s30").mkdir()
    (root / "s30" / "notes.txt").write_text("mine")
    with pytest.raises(MismatchError, match="holds what is no field of this cache"):
        add(root)
    assert [path.name for path in (root / "s30").iterdir()] == ["notes.txt"]


def test_what_a_manifest_may_not_say_of_added_fields(root: Path) -> None:
    add(root)
    manifest = open_cache(root).manifest
    for changes, words in (
        ({"added": manifest.added | {"t": manifest.added["s30"]}}, "field t has no shards"),
        ({"added": manifest.added | {"logits": manifest.added["s30"]}}, "logits is said to be added"),
    ):
        both_manifests(root, manifest.model_copy(update=changes).signed().to_json())
        with pytest.raises(DamageError, match=words):
            open_cache(root)


def test_a_full_disk_or_a_lost_permission_leaves_the_cache_as_it_was(root: Path) -> None:
    before = open_cache(root).id

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.rename" and str(arguments[1]).endswith(MANIFEST):
            raise PermissionError(13, "Permission denied")

    assert in_child(partial(add, root), refuse) == 1
    assert open_cache(root).id == before
    assert add(root).cache_id == open_cache(root).id


def test_processes_that_add_the_same_field_at_once_leave_it_whole(root: Path) -> None:
    """One adds it; the others are told so, or find it done."""
    children = [start(partial(add, root)) for _ in range(6)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert 0 in codes
    assert set(codes) <= {0, 1}
    assert add(root) == open_cache(root).manifest
    assert verify(root).problems == []


def test_a_damaged_adding_json_says_what_to_do_and_a_file_in_the_fields_place_is_left(root: Path) -> None:
    begin_field(Ledger(root), "s30", draft())
    (root / "s30" / ADDING).write_text("{")
    with pytest.raises(DamageError, match=r"delete the folder .*s30 and add the field again"):
        add(root)
    (root / "s50").write_text("mine")
    with pytest.raises(MismatchError, match="holds what is no field of this cache"):
        add(root, "s50")
    assert (root / "s50").read_text() == "mine"


def test_another_kind_is_told_before_anything_else(root: Path) -> None:
    add(root)
    other = draft("b").model_copy(update={"field": GOLDEN.fields["hidden"]})
    with pytest.raises(MismatchError, match="s30 with kind = logits and this one is to have hidden"):
        add(root, one=other)
