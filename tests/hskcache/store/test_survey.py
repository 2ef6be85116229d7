"""What stands in a folder is told in one place, whatever was begun there, by whom, and wherever it was killed."""

from collections.abc import Callable
from pathlib import Path

import pytest
from test_additions import draft
from test_ledger import GOLDEN, REQUEST, build

from hskcache.errors import DamageError, MismatchError
from hskcache.move.arrival import arriving
from hskcache.store.additions import addition_in, begin_field
from hskcache.store.appending import append_in, begin_append
from hskcache.store.growing import growing, is_growing, is_left_over
from hskcache.store.growth import written
from hskcache.store.ledger import Ledger
from hskcache.store.survey import (
    ARRIVING,
    BUILDING,
    EXTRACTING,
    SPOOL,
    UPGRADING,
    Arriving,
    Building,
    Complete,
    Extracting,
    Extraction,
    Foreign,
    State,
    Upgrade,
    Upgrading,
    Vacant,
    arrival_in,
    build_in,
    extraction_in,
    survey,
    upgrade_in,
)

FIELDS = tuple(GOLDEN.fields)
REFUSED = "holds files that are not a cache's"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "c"


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("?")


@pytest.mark.parametrize(
    ("left", "state"),
    [
        ((), Vacant),
        ((".building",), Building),
        ((f"{BUILDING}.0f.tmp", ".building"), Building),
        ((f"{SPOOL}/ids.bin", f"{SPOOL}/rows.json.tmp"), Building),
        ((f"{SPOOL}/thesis.txt",), Foreign),
        ((".arriving.lock",), Arriving),
        ((f"{ARRIVING}.0f.tmp", ".arriving.lock"), Arriving),
        ((f"{UPGRADING}.0f.tmp", ".arriving.lock"), Upgrading),
        ((f"{EXTRACTING}.0f.tmp", ".arriving.lock"), Extracting),
        ((".building", ".arriving.lock"), Foreign),
        (("inputs/000000.json",), Foreign),
        (("building.jsonl",), Foreign),
    ],
)
def test_what_is_left_before_anything_is_said_is_known_by_who_left_it(
    root: Path, left: tuple[str, ...], state: type[State]
) -> None:
    root.mkdir()
    write(root, *left)
    found = survey(root)
    assert type(found) is state
    assert found.request is None
    ledger = Ledger(root)
    if state in {Vacant, Building}:
        ledger.begin(REQUEST)
        assert survey(root).request == REQUEST
    else:
        with pytest.raises(MismatchError, match=REFUSED):
            ledger.begin(REQUEST)
        assert not build_in(root).stands


def test_no_folder_is_vacant_and_a_file_in_its_place_is_no_cache(root: Path) -> None:
    assert type(survey(root)) is Vacant
    root.write_text("mine")
    assert type(survey(root)) is Vacant
    assert root.read_text() == "mine"


@pytest.mark.parametrize(
    ("begin", "state"),
    [
        (lambda root: build_in(root).begin(written(REQUEST)), Building),
        (lambda root: arrival_in(root).begin(GOLDEN.manifest.to_json()), Arriving),
        (lambda root: upgrade_in(root).begin(written(Upgrade(cache_id="0" * 64))), Upgrading),
        (lambda root: extraction_in(root).begin(written(Extraction(cache_id="0" * 64))), Extracting),
    ],
)
def test_what_is_begun_stays_so_whatever_comes_until_it_is_complete_or_ended(
    root: Path, begin: Callable[[Path], None], state: type[State]
) -> None:
    begin(root)
    write(root, "inputs/000000.json", "thesis.txt")
    found = survey(root)
    assert type(found) is state
    assert isinstance(found, Building | Arriving | Upgrading | Extracting)
    with pytest.raises(MismatchError, match=r"was cut off(: 0 of|; run the same)"):
        Ledger(root).manifest()
    write(root, f"{found.growth.path.name}.0f.tmp")
    found.growth.end()
    assert not found.growth.stands
    assert not list(root.glob("*.tmp"))
    assert type(survey(root)) is Foreign
    write(root, "manifest.copy.json")
    assert type(survey(root)) is Complete


@pytest.mark.parametrize("name", ["manifest.json", "manifest.copy.json", BUILDING])
def test_a_link_that_leads_nowhere_is_no_empty_place(root: Path, name: str) -> None:
    root.mkdir()
    (root / name).symlink_to(root / "nowhere")
    assert type(survey(root)) is (Building if name == BUILDING else Complete)
    with pytest.raises(DamageError, match="symbolic link"):
        Ledger(root).begin(REQUEST)


def test_a_cache_does_not_arrive_where_one_is_built_or_upgraded(root: Path) -> None:
    write(root, f"{SPOOL}/ids.bin")
    with pytest.raises(MismatchError, match="is a build that was cut off"), arriving(root, GOLDEN.manifest):
        pass
    upgrade_in(root).begin(written(Upgrade(cache_id="0" * 64)))
    with pytest.raises(MismatchError, match=REFUSED), arriving(root, GOLDEN.manifest):
        pass


def test_what_grows_in_a_complete_cache_is_told_with_all_that_is_of_it(root: Path) -> None:
    build(root, FIELDS)
    ledger, manifest = Ledger(root), Ledger(root).intact()
    state = survey(root)
    assert isinstance(state, Complete)
    assert growing(root, manifest) == []
    begin_field(ledger, "s30", draft())
    write(root, "s30/000000.json")
    begin_append(ledger, manifest, REQUEST.data.model_copy(update={"fingerprint": "0f" * 32}))
    new = f"logits/{REQUEST.num_shards:06d}.json"
    write(root, new)
    assert (state.being_added, state.is_being_built) == (["s30"], False)
    field, rows = growing(root, manifest)
    assert (field.file, field.field, rows.file, rows.field) == ("s30/adding.json", "s30", "appending.json", None)
    assert field.files == {root / "s30" / "adding.json", root / "s30" / "000000.json"}
    assert rows.files == {root / "appending.json", root / new}
    assert all(is_growing(ledger, manifest, file) for file in (field.file, rows.file, new))
    assert not any(is_left_over(ledger, manifest, file) for file in (field.file, rows.file, new))
    addition_in(root, "s30").end()
    append_in(root).end()
    assert growing(root, manifest) == []
