"""``hskcache pull`` into a folder that has something: a part grows, a cache is followed, another's is left alone."""

from pathlib import Path

import pytest
from noise import NUM_SHARDS, add_logits, write_cache
from noise import files as files_of
from sharing import done, hskcache, refused
from stored import MANIFESTS, both_manifests

from hskcache.cache import Cache, open_cache
from hskcache.move.pack import pack
from hskcache.store.ledger import Ledger
from hskcache.verify import verify


@pytest.fixture
def back(tmp_path: Path) -> Path:
    return tmp_path / "back.hsk"


def local(cache: Cache) -> str:
    return f"file://{cache.root}"


def test_rows_are_whole_shards_which_is_told(original: Cache, back: Path) -> None:
    result = hskcache("pull", local(original), back, "--fields", "logits", "--rows", "7:12")
    assert "rows 7 to 12 are asked for" in result.stderr
    assert "these are rows 5 to 15" in result.stderr
    cache = open_cache(back)
    assert list(cache.fields) == ["inputs", "logits"]
    assert cache.num_rows == 10
    assert cache.manifest.part is not None
    assert cache.manifest.part.model_dump() == {"cache_id": original.id, "start": 5, "stop": 15}
    assert cache.row(3)["logits"].tobytes() == original.row(8)["logits"].tobytes()
    assert verify(back).ok


def test_a_part_grows_by_what_is_missing_until_it_is_the_whole(original: Cache, back: Path) -> None:
    assert done("pull", local(original), back, "--fields", "logits", "--rows", 10)["num_fetched"] == 2 * 2
    assert done("pull", local(original), back, "--fields", "hidden_uniform", "--rows", 10)["num_fetched"] == 2 + 1
    assert list(open_cache(back).fields) == ["inputs", "logits", "hidden_uniform"]
    assert done("pull", local(original), back, "--fields", "inputs", "--rows", "20")["num_fetched"] == 3 * 2
    assert verify(back).ok
    facts = done("pull", local(original), back)
    assert (facts["num_there"], facts["cache_id"]) == (3 * 4 + 1, original.id)
    assert files_of(back) == files_of(original.root)


def test_a_part_grows_at_its_end_alone(original: Cache, back: Path) -> None:
    done("pull", local(original), back, "--rows", "5:10")
    before = files_of(back)
    line = refused("pull", local(original), back, "--rows", "20")
    assert "holds rows from 5 of" in line
    assert "rows from 0 are asked for" in line
    assert files_of(back) == before


def test_a_part_of_a_part_comes_from_where_the_part_is(original: Cache, back: Path, tmp_path: Path) -> None:
    done("pull", local(original), back, "--rows", "10:30")
    done("pull", f"file://{back}", tmp_path / "deeper", "--rows", "5:10", "--fields", "logits")
    cache = open_cache(tmp_path / "deeper")
    assert cache.manifest.part is not None
    assert cache.manifest.part.model_dump() == {"cache_id": original.id, "start": 15, "stop": 20}
    assert done("pull", local(original), tmp_path / "deeper", "--rows", "15:40")["num_there"] == 2
    assert verify(tmp_path / "deeper").ok


def test_a_cache_that_grew_at_its_url_is_followed(back: Path, tmp_path: Path) -> None:
    source = write_cache(tmp_path / "source.hsk")
    done("pull", local(source), back)
    grown = add_logits(source, "s30")
    assert done("pull", local(source), back)["num_fetched"] == NUM_SHARDS
    assert open_cache(back).id == grown.id
    other = write_cache(tmp_path / "longer.hsk", appended=7)
    done("pull", local(write_cache(tmp_path / "shorter.hsk")), tmp_path / "follower")
    assert done("pull", local(other), tmp_path / "follower")["num_fetched"] == 3 * 2
    assert verify(tmp_path / "follower").ok


def test_a_field_that_was_added_here_alone_is_not_lost(original: Cache, back: Path) -> None:
    done("pull", local(original), back)
    grown = add_logits(open_cache(back), "s30")
    assert "has no field s30, which" in refused("pull", local(original), back)
    assert open_cache(back).id == grown.id


def test_another_cache_and_other_files_are_left_alone(original: Cache, back: Path, tmp_path: Path) -> None:
    write_cache(back, seed=1)
    before = files_of(back)
    line = refused("pull", local(original), back)
    assert "holds another cache" in line
    assert "choose another place" in line
    (back / "manifest.json").write_text("{}")
    assert "holds another cache" in refused("pull", local(original), back)
    both_manifests(back, b"{}")
    assert "holds files that are not of this cache" in refused("pull", local(original), back)
    assert files_of(back) == before | dict.fromkeys(MANIFESTS, b"{}")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("all of it")
    assert "holds files that are not of this cache" in refused("pull", local(original), mine)
    assert [path.name for path in mine.iterdir()] == ["thesis.txt"]
    assert "is a file; choose a folder" in refused("pull", local(original), mine / "thesis.txt")
    Ledger(tmp_path / "building").begin(original.manifest.request)
    assert "is a build that was cut off" in refused("pull", local(original), tmp_path / "building")


def test_what_an_unpack_has_begun_a_pull_finishes(original: Cache, back: Path, tmp_path: Path) -> None:
    """Whichever way a cache comes, it arrives by the same files."""
    pack(original.root, tmp_path / "c.tar")
    with (tmp_path / "c.tar").open("r+b") as file:
        file.truncate((tmp_path / "c.tar").stat().st_size // 2)
    assert "is cut short" in refused("unpack", tmp_path / "c.tar", back)
    begun = len(list(back.glob("*/*.zarr.zip")))
    assert begun > 3
    assert "holds the cache" in refused("unpack", _packed(tmp_path), back)
    assert done("pull", local(original), back)["num_there"] == begun
    assert files_of(back) == files_of(original.root)


def test_a_tokenizer_that_leads_elsewhere_is_replaced_and_never_written_through(
    original: Cache, back: Path, tmp_path: Path
) -> None:
    done("pull", local(original), back)
    (tmp_path / "elsewhere").mkdir()
    for command in (("pull", local(original)), ("unpack", tmp_path / "c.tar")):
        pack(original.root, tmp_path / "c.tar", force=True)
        (back / "tokenizer").rename(tmp_path / f"old-{command[0]}")
        (back / "tokenizer").symlink_to(tmp_path / "elsewhere")
        done(*command, back)
        assert not list((tmp_path / "elsewhere").iterdir())
        assert verify(back).ok


def test_a_cache_of_an_earlier_version_arrives_as_the_same_cache(back: Path, tmp_path: Path) -> None:
    """Its files lack what was not known then, and may be written anew with it."""
    root, url = Path(__file__).resolve().parents[2] / "golden" / "tiny.hsk", f"file://{tmp_path}/there.hsk"
    done("push", root, url)
    assert done("push", root, url)["num_sent"] == 0
    assert done("pull", url, back)["cache_id"] == open_cache(root).id
    assert verify(back).ok
    assert done("push", back, url)["num_there"] == open_cache(root).manifest.num_records
    pack(back, tmp_path / "c.tar")


def _packed(tmp_path: Path) -> Path:
    """The tar of another cache."""
    write_cache(tmp_path / "other.hsk", seed=1)
    pack(tmp_path / "other.hsk", tmp_path / "other.tar")
    return tmp_path / "other.tar"
