"""Of the shards at a URL the arrays that are wanted are fetched, and each is verified alone."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from unsteady import Unsteady, serving

from hskcache.cache import Cache, open_cache
from hskcache.errors import DamageError
from hskcache.remote import parts
from hskcache.remote.fetch import partial_path
from hskcache.remote.mirror import open_mirror
from hskcache.remote.parts import FilePart, parts_of
from hskcache.store.record import NamedRecord
from trainer.loading import KnowledgeLoader

GOLDEN = Path(__file__).resolve().parents[3] / "golden" / "tiny-2.hsk"
VIEW = "1l,fields=hidden"
LAYER = ("layer_04/bitmask", "layer_04/positions", "layer_04/scales", "layer_04/values", "position_offsets")


@pytest.fixture(autouse=True)
def _many_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if these shards were large."""
    monkeypatch.setattr(parts, "REQUEST_BYTES", 128)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Unsteady]:
    shutil.copytree(GOLDEN, tmp_path / "served")
    with serving(tmp_path / "served") as running:
        yield running


def records(cache: Cache) -> list[NamedRecord]:
    return [record for record in cache.manifest.shards["hidden"] if isinstance(record, NamedRecord)]


def layer_of(record: NamedRecord) -> FilePart:
    (part,) = parts_of(record, LAYER)
    return part


def read_view(cache: Cache) -> list[dict[str, list[object]]]:
    view = cache.view(VIEW)
    view.ahead(("hidden", shard) for shard in range(len(view.shards)))
    found = [view.read("hidden", shard) for shard in range(len(view.shards))]
    return [{name: array.tolist() for name, array in arrays.items()} for arrays in found]


@pytest.mark.parametrize("request_bytes", [1, 128])
def test_a_layer_of_several_is_fetched_alone_and_once(
    served: Unsteady, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request_bytes: int
) -> None:
    local = open_cache(GOLDEN)
    monkeypatch.setattr(parts, "REQUEST_BYTES", request_bytes)
    expected = {record.path: sum(part.num_bytes for part in parts_of(record, LAYER)) for record in records(local)}
    assert all(expected[record.path] < record.num_bytes / 2 for record in records(local))
    for _ in range(2):
        assert read_view(open_mirror(served.url, tmp_path / "local")) == read_view(local)
        assert {name: count for name, count in served.sent.items() if name in expected} == expected
    assert not any(name.startswith("logits/0") for name in served.sent)


def test_a_whole_file_that_is_there_serves_every_array(served: Unsteady, tmp_path: Path) -> None:
    mirror = open_mirror(served.url, tmp_path / "local")
    for record in records(mirror):
        mirror.read("hidden", record.shard)
    assert read_view(mirror) == read_view(open_cache(GOLDEN))
    for record in records(mirror):
        assert served.sent[record.path] == record.num_bytes


def test_a_loader_of_a_view_fetches_what_it_reads_and_gives_the_same_batches(served: Unsteady, tmp_path: Path) -> None:
    batches = [
        [
            (batch.row_ids, batch.inputs["input_ids"].tolist())
            for batch in KnowledgeLoader(cache.view(VIEW), batch_size=2)
        ]
        for cache in (open_cache(GOLDEN), open_mirror(served.url, tmp_path / "local"))
    ]
    assert batches[0] == batches[1]
    for record in records(open_cache(GOLDEN)):
        assert served.sent[record.path] == layer_of(record).num_bytes


@pytest.mark.parametrize("is_right", [True, False])
def test_a_part_that_was_cut_off_goes_on_where_it_stopped(served: Unsteady, tmp_path: Path, is_right: bool) -> None:
    record = records(open_cache(GOLDEN))[0]
    part = layer_of(record)
    target = tmp_path / "local" / "shards" / f"{part.sha256}.zarr.zip"
    target.parent.mkdir(parents=True)
    begun = (GOLDEN / record.path).read_bytes()[part.start : part.start + 100]
    partial_path(target, part.sha256).write_bytes(begun if is_right else bytes(100))
    assert read_view(open_mirror(served.url, tmp_path / "local")) == read_view(open_cache(GOLDEN))
    assert served.sent[record.path] == part.num_bytes - 100 + (0 if is_right else part.num_bytes)


def test_wrong_bytes_of_an_array_are_refused_where_it_is_wanted_alone(served: Unsteady, tmp_path: Path) -> None:
    record = records(open_cache(GOLDEN))[1]
    info = record.arrays["layer_04/values"]
    whole = bytearray((GOLDEN / record.path).read_bytes())
    for place, is_wanted in (
        (info.offset + info.num_bytes // 2, True),
        (record.arrays["layer_02/values"].offset, False),
    ):
        lie = bytearray(whole)
        lie[place] ^= 1
        (served.root / record.path).write_bytes(lie)
        local = tmp_path / f"local-{is_wanted}"
        mirror = open_mirror(served.url, local)
        if is_wanted:
            with pytest.raises(DamageError, match=f"{record.path} has another content than its manifest says"):
                mirror.read("hidden", 1, LAYER)
            assert not (local / "shards" / f"{layer_of(record).sha256}.zarr.zip").exists()
        else:
            assert mirror.read("hidden", 1, LAYER)
            with pytest.raises(DamageError, match=f"{record.path} has another content than its manifest says"):
                mirror.read("hidden", 1, ["layer_02/values"])


def test_a_part_that_was_damaged_here_is_fetched_again(served: Unsteady, tmp_path: Path) -> None:
    mirror = open_mirror(served.url, tmp_path / "local")
    expected = read_view(mirror)
    for path in (tmp_path / "local" / "shards").glob("*.zarr.zip"):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    assert read_view(mirror) == expected


def test_files_of_which_little_would_be_spared_are_fetched_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    record = records(open_cache(GOLDEN))[0]
    assert [part.is_whole for part in parts_of(record, list(record.arrays))] == [True]
    assert [part.is_whole for part in parts_of(record, LAYER)] == [False]
    monkeypatch.setattr(parts, "REQUEST_BYTES", 1 << 18)
    assert [part.is_whole for part in parts_of(record, LAYER)] == [True]
