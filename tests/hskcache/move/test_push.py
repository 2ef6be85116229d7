"""``hskcache push``: only what is missing goes, nothing damaged goes, a kill costs nothing, another cache is safe."""

import os
import resource
import shutil
import signal
import threading
from pathlib import Path

import pytest
import yaml
from forked import in_child
from noise import FIELDS, NUM_SHARDS, add_logits, write_cache
from noise import files as files_of
from sharing import done, hskcache, refused
from stored import MANIFESTS, both_manifests, plain, shard_file

from hskcache.cache import Cache, open_cache
from hskcache.move.push import push
from hskcache.move.selected import Subset
from hskcache.remote.remote import Remote, open_remote
from hskcache.verify import verify

NUM_FILES = 3 * NUM_SHARDS + 1


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """The folder behind a URL."""
    return tmp_path / "there.hsk"


def url(there: Path) -> str:
    return f"file://{there}"


def changes(there: Path) -> dict[str, int]:
    """When each file was written."""
    return {path.relative_to(there).as_posix(): path.stat().st_mtime_ns for path in there.rglob("*") if path.is_file()}


def written_since(there: Path, before: dict[str, int]) -> set[str]:
    return {name for name, when in changes(there).items() if before.get(name) != when}


def test_a_url_holds_a_cache_that_verifies_and_nothing_goes_twice(original: Cache, there: Path) -> None:
    assert done("push", original.root, url(there))["num_sent"] == NUM_FILES
    assert verify(there).ok
    assert files_of(there) == files_of(original.root)
    before = changes(there)
    assert done("push", original.root, url(there), "--verify")["num_there"] == NUM_FILES
    assert written_since(there, before) == set()


def _page(there: Path, field: str) -> list[str]:
    return [path.name for path in (there / field / "index").iterdir()]


def test_what_is_missing_or_different_there_is_sent_again(original: Cache, there: Path) -> None:
    done("push", original.root, url(there))
    shard_file(there, "logits", 3).unlink()
    (there / "logits" / "index").joinpath(*_page(there, "logits")).write_text("{}")
    with shard_file(there, "inputs", 0).open("ab") as file:
        file.write(b"x")
    (there / "tokenizer" / "vocab.txt").unlink()
    before = changes(there)
    assert done("push", original.root, url(there))["num_sent"] == 2
    assert {plain(name) for name in written_since(there, before)} == {
        *(f"{stem}.zarr.zip" for stem in ("logits/000003", "inputs/000000")),
        "logits/index/000000.jsonl",
        "tokenizer/vocab.txt",
    }
    assert verify(there).ok


def test_verify_finds_what_storage_has_altered(original: Cache, there: Path) -> None:
    """Of the same size and behind a record that fits, only reading it back tells."""
    done("push", original.root, url(there))
    path = shard_file(there, "logits", 2)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert done("push", original.root, url(there))["num_sent"] == 0
    line = refused("push", original.root, url(there), "--verify")
    assert "logits/000002.zarr.zip is not what was sent" in line
    path.unlink()
    assert done("push", original.root, url(there), "--verify")["num_sent"] == 1


def test_damage_never_leaves_the_house(original: Cache, there: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(original.root, tmp_path / "damaged.hsk"))
    path = shard_file(root, "logits", 5)
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    line = refused("push", root, url(there))
    assert "logits/000005.zarr.zip has another content than was written and was not sent" in line
    assert not (there / "manifest.json").exists()
    assert not shard_file(there, "logits", 5).exists()
    path.write_bytes(data[:-1])
    assert "000005.zarr.zip has another content" in refused("push", root, url(there))
    path.unlink()
    assert "000005.zarr.zip is missing; repair the cache" in refused("push", root, url(there))
    (root / "tokenizer" / "vocab.txt").write_text("other")
    assert "other files than the rows were tokenized with" in refused("push", root, url(there))


@pytest.mark.parametrize("event", ["open", "os.rename"])
@pytest.mark.parametrize("left", [0, 3, 20, 27, 30])
def test_a_push_that_is_killed_goes_on(original: Cache, there: Path, event: str, left: int) -> None:
    """Killed before the temporary file of the n-th file, and before that gets its name; the last is the manifest."""
    count = left

    def die(name: str, args: tuple[object, ...]) -> None:
        nonlocal count
        if name == event and str(args[0]).endswith(".tmp") and str(there) in str(args[0]) and args[1] != "rb":
            count -= 1
            if count < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    work = lambda: push(original.root, open_remote(url(there)), Subset())  # noqa: E731
    assert in_child(work, die) == -signal.SIGKILL
    assert not (there / "manifest.json").exists()
    shards = list(there.glob("*/*.zarr.zip"))
    before = changes(there)
    assert done("push", original.root, url(there))["num_there"] >= len(shards)
    kept = {path.relative_to(there).as_posix() for path in shards}
    assert not kept & written_since(there, before)
    assert verify(there).ok
    assert files_of(there) == files_of(original.root)


def test_an_added_field_and_appended_rows_are_all_that_goes_the_next_time(there: Path, tmp_path: Path) -> None:
    cache = write_cache(tmp_path / "own.hsk")
    done("push", cache.root, url(there))
    before = changes(there)
    grown = add_logits(cache, "s30")
    assert done("push", cache.root, url(there))["num_sent"] == NUM_SHARDS
    sent = written_since(there, before)
    assert {name.partition("/")[0] for name in sent} == {"s30", *MANIFESTS, "README.md"}
    assert open_cache(there).id == grown.id
    longer = write_cache(tmp_path / "longer.hsk", appended=7)
    again = tmp_path / "again.hsk"
    done("push", write_cache(tmp_path / "shorter.hsk").root, url(again))
    assert done("push", longer.root, url(again))["num_sent"] == 3 * 2
    assert open_cache(again).id == longer.id


def test_a_url_that_holds_more_is_not_cut_back(original: Cache, there: Path) -> None:
    done("push", original.root, url(there))
    facts = done("push", original.root, url(there), "--fields", "logits", "--rows", "5")
    assert (facts["num_sent"], facts["rows"], facts["cache_id"]) == (0, [0, 40], original.id)


def test_another_cache_is_replaced_only_on_demand(original: Cache, there: Path, tmp_path: Path) -> None:
    other = write_cache(tmp_path / "other.hsk", seed=1)
    add_logits(other, "s30")
    done("push", other.root, url(there))
    before = changes(there)
    line = refused("push", original.root, url(there))
    assert "holds another cache" in line
    assert "or give --replace" in line
    assert written_since(there, before) == set()
    assert done("push", original.root, url(there), "--replace")["num_sent"] == NUM_FILES
    assert open_cache(there).id == original.id
    assert verify(there).ok, "nothing of the other is left"


def test_a_damaged_manifest_there_is_replaced_only_on_demand(original: Cache, there: Path) -> None:
    done("push", original.root, url(there))
    both_manifests(there, (there / "manifest.json").read_bytes()[:-40])
    line = refused("push", original.root, url(there))
    assert "is damaged" in line
    assert "--replace" in line
    assert done("push", original.root, url(there), "--replace")["num_there"] == NUM_FILES
    assert verify(there).ok


def test_the_card_tells_what_it_is_and_one_that_was_edited_stays(original: Cache, there: Path, tmp_path: Path) -> None:
    done("push", original.root, url(there), "--fields", "logits", "--rows", "5")
    card = (there / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["size_categories"] == ["n<1K"]
    assert "license" not in front
    part = open_cache(there)
    for told in (part.id, original.id, "`logits`", "golden.tsv", "hskcache verify", "## Privacy", "reveal"):
        assert told in card
    assert "hidden_uniform" not in card
    done("push", original.root, url(there))
    assert "hidden_uniform" in (there / "README.md").read_text()
    edited = (there / "README.md").read_text().replace("# license: choose", "license: mit # choose")
    (there / "README.md").write_text(edited)
    done("push", original.root, url(there))
    assert (there / "README.md").read_text() == edited
    own = Path(shutil.copytree(original.root, tmp_path / "own.hsk"))
    (own / "README.md").write_text("my own words")
    done("push", own, url(there))
    assert (there / "README.md").read_text() == "my own words"


def test_a_card_holds_no_path_of_the_builders_machine(tmp_path: Path) -> None:
    from hskcache.move.card import card

    manifest = write_cache(tmp_path / "c.hsk").manifest
    teacher = manifest.request.teacher.model_copy(update={"name": "/home/somebody/bert|`large\n# x"})
    data = manifest.request.data.model_copy(update={"name": "/home/somebody/train.tsv"})
    request = manifest.request.model_copy(update={"teacher": teacher, "data": data})
    text = card(manifest.model_copy(update={"request": request}), "s3://b/c.hsk").decode()
    assert "somebody" not in text
    assert "# What bert large # x knows of train.tsv\n" in text


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("s3:/bucket/c.hsk",), "is not a URL; give one such as s3://bucket/x.hsk, or the path of a folder"),
        (("nowhere://x/c.hsk",), "nothing is known of nowhere://"),
        (("gs://bucket/c.hsk",), "pip install gcsfs"),
        (("http://127.0.0.1:1/c.hsk",), "http servers only give"),
        (("sftp://u:pa/ss@h/c.hsk",), "has a port that is no number"),
        (("file:///x", "--rows", "5:2"), "--rows '5:2' is empty"),
        (("file:///x", "--rows", "some"), "--rows 'some' is not a range"),
        (("file:///x", "--fields", "logits,"), "--fields 'logits,' has an empty name"),
    ],
)
def test_what_cannot_be_pushed_is_told_in_a_line(original: Cache, args: tuple[str, ...], words: str) -> None:
    line = refused("push", original.root, *args)
    assert words in line
    assert "pa/ss" not in line


def test_fields_and_rows_that_are_not_there_are_told(original: Cache, there: Path, tmp_path: Path) -> None:
    assert "has no field s30; it has inputs, logits" in refused("push", original.root, url(there), "--fields", "s30")
    assert "has no rows 40 to" in refused("push", original.root, url(there), "--rows", "40:")
    assert "does not exist" in refused("push", tmp_path / "none", url(there))
    assert not there.exists()


def test_a_place_that_cannot_be_written_is_told(original: Cache, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    line = refused("push", original.root, f"file://{tmp_path}/file/c.hsk")
    assert "Not a directory" in line or "cannot be" in line
    assert hskcache("push", original.root, f"file://{tmp_path}/file/c.hsk").stdout == ""


def test_what_is_pushed_to_a_disk_is_on_the_disk(original: Cache, there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is synced before it gets its name, and its folder after that, as everywhere else."""
    events: list[tuple[str, str]] = []
    sync, rename = os.fsync, os.rename

    def synced(descriptor: int) -> None:
        events.append(("sync", str(Path(f"/proc/self/fd/{descriptor}").readlink())))
        sync(descriptor)

    def renamed(source: str, target: str, **options: int) -> None:
        events.append(("rename", str(source)))
        rename(source, target, **options)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    done("push", original.root, url(there), "--jobs", 1)
    renames = [number for number, event in enumerate(events) if event[0] == "rename"]
    assert len(renames) >= NUM_FILES + len(FIELDS) + 2
    for number in renames:
        source = events[number][1]
        assert ("sync", source) in events[:number]
        assert ("sync", str(Path(source).parent)) in events[number:]


def test_a_disk_that_fills_up_keeps_no_half_file(original: Cache, there: Path) -> None:
    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        assert "File too large" in refused("push", original.root, url(there))

    assert in_child(work) == 0
    assert not list(there.rglob("*.tmp"))
    assert done("push", original.root, url(there))["num_there"] > 0
    assert verify(there).ok


def test_shards_that_are_held_at_a_time_stay_within_the_budget(
    original: Cache, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hskcache.move import push as module

    sizes = [record.num_bytes for record in original.manifest.records]
    monkeypatch.setattr(module, "MOST_BYTES", max(sizes) * 2 - 1)
    held: dict[str, int] = {}
    most, mutex, write = 0, threading.Lock(), Remote.write

    def counted(remote: Remote, name: str, data: bytes) -> None:
        nonlocal most
        if name.endswith(".zarr.zip"):
            with mutex:
                held[name] = len(data)
                most = max(most, sum(held.values()))
        write(remote, name, data)
        with mutex:
            held.pop(name, None)

    monkeypatch.setattr(Remote, "write", counted)
    assert done("push", original.root, url(there), "--jobs", 8)["num_sent"] == NUM_FILES
    assert max(sizes) <= most < 2 * max(sizes)
    monkeypatch.setattr(module, "MOST_BYTES", 1)
    assert done("push", original.root, f"{url(there)}.again", "--jobs", 8)["num_sent"] == NUM_FILES
