"""A cache of version 1 becomes one of version 2: resumable, refused where it may not be, and told."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from forked import in_child
from sharing import done, hskcache, refused
from stored import shard_file

from hskcache.cache import open_cache
from hskcache.errors import DamageError, MismatchError
from hskcache.move.upgrade import upgrade
from hskcache.store.ledger import Ledger
from hskcache.store.survey import UPGRADING
from hskcache.verify import verify

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
OLD = GOLDEN / "tiny.hsk"


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def upgraded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The old cache, upgraded without a disturbance."""
    root = tmp_path_factory.mktemp("upgraded") / "c"
    upgrade(OLD, root)
    return root


@pytest.mark.parametrize("event", ["os.rename", "os.remove"])
@pytest.mark.parametrize("left", [0, 1, 2, 9, 20, 27, 30, 33])
def test_an_upgrade_that_is_killed_goes_on_to_the_same_bytes(
    upgraded: Path, tmp_path: Path, event: str, left: int
) -> None:
    count, new = left, tmp_path / "new"

    def die(name: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if name == event and str(new) in str(arguments[0]):
            count -= 1
            if count < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    code = in_child(lambda: upgrade(OLD, new), die)
    assert code in {0, -signal.SIGKILL}
    if (new / "manifest.json").exists():
        assert open_cache(new).id == open_cache(upgraded).id
    upgrade(OLD, new)
    assert contents(new) == contents(upgraded)
    assert verify(new, deep=True).ok


def test_what_was_written_is_kept_and_a_finished_one_is_left_alone(tmp_path: Path) -> None:
    count, new = 12, tmp_path / "new"

    def die(name: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if name == "os.rename" and str(new) in str(arguments[0]):
            count -= 1
            if count < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(lambda: upgrade(OLD, new), die) == -signal.SIGKILL
    assert (new / UPGRADING).exists()
    found = upgrade(OLD, new)
    assert (found.num_kept > 3, found.num_kept + found.num_written) == (True, found.manifest.num_records)
    before = {path: path.stat().st_mtime_ns for path in new.rglob("*") if path.is_file()}
    assert upgrade(OLD, new).num_written == 0
    assert {path: path.stat().st_mtime_ns for path in new.rglob("*") if path.is_file()} == before


def test_the_command_says_what_it_did_and_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    new = tmp_path / "new"
    facts = done("upgrade", OLD, new)
    assert (facts["old_format_version"], facts["format_version"]) == (1, 2)
    assert facts["upgraded_from"] == open_cache(OLD).id == open_cache(new).manifest.upgraded_from
    said = hskcache("upgrade", OLD, tmp_path / "again").stderr
    assert "format version 1 to 2, 13 shard files written and 0 kept, 5 rows" in said
    assert "of format version 2 already" in refused("upgrade", new, tmp_path / "third")
    assert "holds something else" in refused("upgrade", GOLDEN / "grown.hsk", new)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("a")
    assert "holds something else" in refused("upgrade", OLD, tmp_path / "mine")
    assert "is not a cache" in refused("upgrade", tmp_path / "mine", tmp_path / "fourth")


def test_a_damaged_shard_is_named_and_what_was_whole_is_kept(upgraded: Path, tmp_path: Path) -> None:
    old, new = Path(shutil.copytree(OLD, tmp_path / "old")), tmp_path / "new"
    path = shard_file(old, "hidden", 1)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"?")
    with pytest.raises(DamageError, match=f"{path} has another content"):
        upgrade(old, new)
    path.write_bytes(whole)
    assert upgrade(old, new).num_kept > 0
    assert contents(new) == contents(upgraded)


def test_what_grows_a_cache_of_version_1_asks_for_an_upgrade(tmp_path: Path) -> None:
    old = Path(shutil.copytree(OLD, tmp_path / "old cache"))
    before = contents(old)
    with pytest.raises(MismatchError, match=r"format version 1, .* give hskcache upgrade '.*old cache' NEW"):
        Ledger(old).begin(open_cache(old).manifest.request)
    assert contents(old) == before


def test_a_new_id_and_the_order_of_batches(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from trainer.loading import KnowledgeLoader

    upgrade(OLD, tmp_path / "new")
    old, new = (
        [batch for _ in range(2) for batch in KnowledgeLoader(open_cache(root), batch_size=2, seed=3)]
        for root in (OLD, tmp_path / "new")
    )
    assert [one.row_ids for one in old] == [one.row_ids for one in new]
    assert all(torch.equal(one.inputs["input_ids"], two.inputs["input_ids"]) for one, two in zip(old, new, strict=True))
    document = json.loads((tmp_path / "new" / "manifest.json").read_bytes())
    assert document["cache_id"] != document["upgraded_from"]
