"""The loader: the same batches wherever the cache lives, however they are cut, and wherever one goes on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import cache_of, job_of, spec_of

from hskcache.cache import Cache
from hskcache.errors import MismatchError, SpecError
from trainer.batch import Batch
from trainer.loading import KnowledgeLoader
from trainer.loading.block import ROW, StoredRows, joined
from trainer.loading.residency import choose

RESIDENCIES = ("device", "host", "stream")


def tensors_of(batch: Batch) -> dict[str, torch.Tensor]:
    found = dict(batch.inputs)
    for name in ("labels", "logits"):
        if getattr(batch, name) is not None:
            found[name] = getattr(batch, name)
    for layer, target in batch.hidden.items():
        for name in ("index_P", "values_PW", "columns", "mean_D", "basis_WD"):
            if getattr(target, name) is not None:
                found[f"{layer}/{name}"] = getattr(target, name)
    return found


def assert_same(ours: list[Batch], theirs: list[Batch]) -> None:
    assert [batch.row_ids for batch in ours] == [batch.row_ids for batch in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert (one.num_rows, one.num_positions, one.weight) == (other.num_rows, other.num_positions, other.weight)
        first, second = tensors_of(one), tensors_of(other)
        assert first.keys() == second.keys()
        assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def read_back(cache: Cache, batch: Batch) -> None:
    """Compare every row of a batch with what the cache says about it."""
    length = batch.inputs["input_ids"].shape[1]
    for place, row in enumerate(batch.row_ids):
        stored = cache.row(row)
        mask = batch.inputs["attention_mask"][place].bool()
        assert batch.inputs["input_ids"][place][mask].tolist() == stored["input_ids"].tolist()
        assert mask.tolist() == [True] * len(stored["input_ids"]) + [False] * int((~mask).sum())
        assert batch.inputs["token_type_ids"][place][mask].tolist() == stored["token_type_ids"].tolist()
        assert batch.labels is not None
        assert batch.labels[place].item() == stored["label"]
        assert batch.logits is not None
        assert batch.logits[place].tolist() == stored["logits"].tolist()
        for layer, target in batch.hidden.items():
            mine = target.index_P // length == place
            assert (target.index_P[mine] % length).tolist() == stored["hidden"][layer]["positions"].tolist()
            assert target.values_PW[mine].numpy().tolist() == stored["hidden"][layer]["values"].tolist()


def test_a_plain_loop_over_an_open_cache_gives_every_row_as_it_is_stored(caches: Callable[[str], Cache]) -> None:
    cache = caches("bitmask")
    rows: list[int] = []
    for batch in KnowledgeLoader(cache, batch_size=20):
        read_back(cache, batch)
        assert batch.num_rows == len(batch) <= 20
        assert batch.num_positions == len(batch.hidden[2].index_P) == len(batch.hidden[4].index_P)
        rows += batch.row_ids
    assert sorted(rows) == list(range(96))


def test_a_batch_says_what_it_holds(caches: Callable[[str], Cache]) -> None:
    text = repr(next(iter(KnowledgeLoader(caches("bitmask"), batch_size=96))))
    assert text.startswith("Batch(96 rows of at most ")
    assert "labels, logits of 2 classes, layer 2: HiddenTarget(" in text
    assert "positions x 13 of 32 columns)" in text


@pytest.mark.parametrize("width", ["uniform", "indices", "bitmask", "pca", "all"])
def test_batches_are_the_same_in_every_residency_with_and_without_a_thread(
    width: str, caches: Callable[[str], Cache]
) -> None:
    """Three windows of 4 shards, 10 rows a batch: rows are carried from window to window, over two epochs."""
    settings: dict[str, Any] = {"batch_size": 10, "seed": 3}
    reference = KnowledgeLoader(caches(width), residency="host", prefetch=0, **settings)
    assert sum(len(window.carried) for window in reference.plan.windows(0)) > 0
    expected = [*reference, *reference]
    assert reference.epoch == 2
    for residency in RESIDENCIES:
        for prefetch in (0, 2):
            loader = KnowledgeLoader(caches(width), residency=residency, prefetch=prefetch, **settings)
            assert_same([*loader, *loader], expected)


@pytest.mark.parametrize("residency", RESIDENCIES)
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_loader_goes_on_from_every_place_of_an_epoch(
    residency: Any, accumulation: int, caches: Callable[[str], Cache]
) -> None:
    settings: dict[str, Any] = {"batch_size": 12 // accumulation, "accumulation": accumulation, "residency": residency}
    whole = list(KnowledgeLoader(caches("bitmask"), **settings))
    next_epoch = KnowledgeLoader(caches("bitmask"), **settings)
    next_epoch.set_epoch(1)
    following = next(iter(next_epoch))
    for position in range(len(whole)):
        saved = KnowledgeLoader(caches("bitmask"), **settings)
        batches = iter(saved)
        for _ in range(position):
            next(batches)
        state = saved.state_dict()
        assert state["position"] == position, "what was only prefetched is not behind us"
        resumed = KnowledgeLoader(caches("bitmask"), **settings)
        resumed.load_state_dict(state)
        assert_same(list(resumed), whole[position:])
        assert_same([next(iter(resumed))], [following])


def test_a_state_at_the_end_of_an_epoch_goes_on_with_the_next(caches: Callable[[str], Cache]) -> None:
    loader = KnowledgeLoader(caches("bitmask"), batch_size=16)
    batches = iter(loader)
    for _ in range(len(loader)):
        next(batches)
    resumed = KnowledgeLoader(caches("bitmask"), batch_size=16)
    resumed.load_state_dict(loader.state_dict())
    assert (resumed.epoch, resumed.position) == (1, 0)


def test_a_state_moves_to_other_processes_but_not_to_another_order(caches: Callable[[str], Cache]) -> None:
    saved = KnowledgeLoader(caches("bitmask"), batch_size=4, accumulation=2)
    saved.seek(1, 6)
    state = saved.state_dict()
    moved = KnowledgeLoader(caches("bitmask"), batch_size=2, accumulation=1, world_size=4)
    moved.load_state_dict(state)
    assert (moved.epoch, moved.position) == (1, 3)
    for changes in ({"seed": 1}, {"batch_size": 8}, {"window_shards": 5}):
        other = KnowledgeLoader(caches("bitmask"), **{"batch_size": 4, "accumulation": 2} | changes)
        with pytest.raises(MismatchError, match="use the same to resume"):
            other.load_state_dict(state)
    with pytest.raises(MismatchError, match="identity"):
        KnowledgeLoader(caches("pca"), batch_size=4, accumulation=2).load_state_dict(state)
    saved.seek(1, 7)
    with pytest.raises(MismatchError, match="within a step of 2 forward passes"):
        moved.load_state_dict(saved.state_dict())


def test_a_run_goes_on_with_the_order_that_it_began_with(caches: Callable[[str], Cache]) -> None:
    """A state from before there were two versions has no word of it."""
    saved = KnowledgeLoader(caches("bitmask"), batch_size=10, seed=3)
    state = saved.state_dict()
    assert state["order"] == 2
    resumed = KnowledgeLoader(caches("bitmask"), batch_size=10, seed=3)
    resumed.load_state_dict({key: value for key, value in state.items() if key != "order"})
    rows, older = ([batch.row_ids for batch in loader] for loader in (saved, resumed))
    assert older != rows
    assert older == [batch.row_ids for batch in loader_of_version_1(caches("bitmask"))]
    assert resumed.state_dict()["order"] == 1, "and its next checkpoint says so"
    resumed.load_state_dict(state)
    assert [batch.row_ids for batch in resumed] == rows


def loader_of_version_1(cache: Cache) -> KnowledgeLoader:
    loader = KnowledgeLoader(cache, batch_size=10, seed=3)
    loader._plan = replace(loader.plan, version=1)
    return loader


def test_an_order_of_a_version_to_come_is_refused(caches: Callable[[str], Cache]) -> None:
    loader = KnowledgeLoader(caches("bitmask"), batch_size=10)
    with pytest.raises(MismatchError, match="is of version 3 and this hskcache knows 1 and 2; go on with the hskcache"):
        loader.load_state_dict(loader.state_dict() | {"order": 3})


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batch_size=st.integers(1, 12),
    world_size=st.integers(1, 3),
    accumulation=st.integers(1, 3),
    window_shards=st.integers(1, 13),
    epoch=st.integers(0, 2),
)
def test_slices_of_all_processes_make_up_each_global_batch_once(
    caches: Callable[[str], Cache], batch_size: int, world_size: int, accumulation: int, window_shards: int, epoch: int
) -> None:
    def loader(**changes: int) -> KnowledgeLoader:
        own = KnowledgeLoader(
            caches("bitmask"), "host", ("hidden",), window_shards=window_shards, prefetch=0, **changes
        )
        own.set_epoch(epoch)
        return own

    slices = world_size * accumulation
    whole = [set(batch.row_ids) for batch in loader(batch_size=batch_size * slices)]
    cut: list[set[int]] = [set() for _ in whole]
    num_rows = num_positions = 0
    for rank in range(world_size):
        own = loader(batch_size=batch_size, world_size=world_size, accumulation=accumulation, rank=rank)
        batches = list(own)
        assert len(batches) == len(own) == len(whole) * accumulation
        for index, batch in enumerate(batches):
            step = index // accumulation
            assert batch.num_rows == len(whole[step])
            assert 1 <= len(batch) <= batch_size
            if batch.weight:
                assert not cut[step] & set(batch.row_ids)
                cut[step] |= set(batch.row_ids)
                num_rows += len(batch)
                num_positions += len(batch.hidden[4].index_P)
            else:
                assert len(whole[step]) < slices, "rows stand in only where there are too few"
    assert cut == whole
    assert num_rows == 96
    assert num_positions == sum(min(9, len(caches("bitmask").row(row)["input_ids"])) for row in range(96))


def test_fields_and_layers_that_are_not_asked_for_are_not_loaded(caches: Callable[[str], Cache]) -> None:
    batch = next(iter(KnowledgeLoader(caches("bitmask"), fields=("hidden",), layers={"hidden": (4,)})))
    assert batch.logits is None
    assert list(batch.hidden) == [4]
    batch = next(iter(KnowledgeLoader(caches("bitmask"), fields=())))
    assert batch.logits is None
    assert batch.hidden == {}
    assert batch.labels is not None
    whole, part = (
        KnowledgeLoader(caches("bitmask"), layers=layers).reader.num_bytes for layers in ({}, {"hidden": (4,)})
    )
    assert part < 0.7 * whole


@pytest.mark.parametrize(
    ("changes", "error", "complaint"),
    [
        ({"fields": ("hiden",)}, MismatchError, "has no field hiden to load; it has logits, hidden"),
        ({"layers": {"hidden": (3,)}}, MismatchError, "has no hidden layer 3; it keeps 2, 4"),
        ({"fields": ("logits",), "layers": {"hidden": (4,)}}, MismatchError, "has no hidden layer 4; it keeps none"),
        ({"residency": "disk"}, SpecError, "none of auto, device, host and stream"),
        ({"batch_size": 0}, SpecError, "at least 1"),
        ({"rank": 1}, SpecError, "rank 1 is none of 1 processes"),
    ],
)
def test_what_cannot_be_loaded_is_refused_at_once(
    changes: dict[str, Any], error: type[Exception], complaint: str, caches: Callable[[str], Cache]
) -> None:
    with pytest.raises(error, match=complaint):
        KnowledgeLoader(caches("bitmask"), **changes)


def test_auto_takes_host_memory_while_there_is_enough() -> None:
    assert choose("auto", 1000, torch.device("cpu")) == "host"
    assert choose("auto", 1 << 60, torch.device("cpu")) == "stream"
    assert choose("device", 1 << 60, torch.device("cpu")) == "device"


def test_positions_and_ids_beyond_fifteen_bits_come_back_unsigned() -> None:
    stored = np.array([0, 1, 32767, 32768, 65535], np.uint16)
    block = joined([StoredRows(np.arange(5), {}, {"inputs/input_ids": stored}, {"inputs/input_ids": ROW})])
    assert block.take(np.arange(5)[::-1]).tensors["inputs/input_ids"].long().tolist() == stored[::-1].tolist()


@pytest.mark.parametrize("encoding", ["float16", "bfloat16", "int8", "int4"])
def test_every_encoding_decodes_to_what_its_codec_says(
    encoding: str, tiny_teacher_dir: Path, tsv_file: Path, tmp_path: Path
) -> None:
    from hskcache.encoded import ENCODED
    from hskcache.encoding import get_encoding

    cache = cache_of(job_of(tiny_teacher_dir, tsv_file, spec_of(encoding=encoding)), tmp_path / "cache.hsk")
    batch = next(iter(KnowledgeLoader(cache, batch_size=4)))
    stored = cache.row(batch.row_ids[0])["hidden"][4]
    parts = {name: torch.from_numpy(stored[name]) for name in ENCODED[encoding].of(13)}
    count = len(stored["positions"])
    assert torch.equal(batch.hidden[4].values_PW[:count], get_encoding(encoding).decode(parts, 13))
