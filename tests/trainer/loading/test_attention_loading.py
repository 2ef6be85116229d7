"""Attention scores on their way from the shards to a batch: ragged along four axes, padded without a slip."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hskcache.attention import scores_between
from hskcache.cache import Cache
from hskcache.errors import MismatchError
from trainer.batch import Batch
from trainer.loading import KnowledgeLoader, block
from trainer.loading.block import ROW, axis_of
from trainer.loading.decode import Sizes
from trainer.losses import attention_loss
from trainer.losses.attention import HeadPairs

Written = Callable[..., Cache]
RESIDENCIES = ("device", "host", "stream")


def decoded(encoding: str, stored: dict[str, NDArray[Any]], heads: int) -> NDArray[Any]:
    """One row's scores [H, K, K] from its stored arrays, in plain numpy."""
    count = len(stored["positions"])
    values = stored["values"].reshape(heads, count, -1)
    if encoding in {"float32", "float16"}:
        return values.astype(np.float32)
    if encoding == "bfloat16":
        return (values.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    if encoding == "int4":
        halves = np.stack([values & 15, values >> 4], -1).reshape(heads, count, -1)[..., :count].astype(np.int8)
        values = np.where(halves > 7, halves - 16, halves)
    return values.astype(np.float32) * stored["scales"].reshape(heads, count, 1)


def assert_rows(cache: Cache, batch: Batch, encoding: str, heads: int) -> None:
    """Every row of a batch is what the cache says about it."""
    for layer, target in batch.attention.items():
        for place, row in enumerate(batch.row_ids):
            stored = cache.row(row)["attention"][layer]
            count = len(stored["positions"])
            assert target.valid_BK[place].tolist() == [slot < count for slot in range(target.valid_BK.shape[1])]
            assert target.positions_BK[place, :count].tolist() == stored["positions"].tolist()
            assert not target.positions_BK[place, count:].any()
            scores = target.scores_BHKK[place, :, :count, :count].numpy()
            assert scores.dtype == np.float32
            np.testing.assert_allclose(scores, decoded(encoding, stored, heads), rtol=1e-6, atol=0)


@pytest.mark.parametrize("encoding", ["float32", "float16", "bfloat16", "int8", "int4"])
@pytest.mark.parametrize("tokens", [9, None])
def test_every_encoding_gives_each_row_its_own_scores(encoding: str, tokens: int | None, written: Written) -> None:
    cache = written(encoding=encoding, tokens=tokens)
    rows: list[int] = []
    for batch in KnowledgeLoader(cache, batch_size=7):
        assert list(batch.attention) == [2, 4]
        assert_rows(cache, batch, encoding, heads=4)
        most = max(len(cache.row(row)["attention"][2]["positions"]) for row in batch.row_ids)
        assert batch.attention[2].scores_BHKK.shape == (len(batch), 4, most, most)
        rows += batch.row_ids
    assert sorted(rows) == list(range(24))


@pytest.mark.parametrize("heads", ["mean", (2, 0)])
def test_some_heads_or_their_mean_are_fewer_maps(heads: Any, written: Written) -> None:
    cache = written(heads=heads)
    batch = next(iter(KnowledgeLoader(cache, batch_size=24)))
    assert_rows(cache, batch, "float32", heads=1 if heads == "mean" else 2)


def test_rows_that_keep_equally_many_positions_are_not_padded(written: Written) -> None:
    """The short cut for the usual case gives what the general case would."""
    cache = written(tokens=4, encoding="int4")
    batch = next(iter(KnowledgeLoader(cache, batch_size=24)))
    assert batch.attention[4].valid_BK.all()
    assert_rows(cache, batch, "int4", heads=4)


def same(ours: Batch, theirs: Batch) -> bool:
    sizes = [(one.row_ids, one.num_rows, one.num_positions, one.num_pairs, one.weight) for one in (ours, theirs)]
    tensors = [
        [(layer, name, getattr(target, name)) for layer, target in one.attention.items() for name in vars(target)]
        for one in (ours, theirs)
    ]
    return sizes[0] == sizes[1] and all(
        first[:2] == second[:2] and torch.equal(first[2], second[2]) for first, second in zip(*tensors, strict=True)
    )


@pytest.mark.parametrize("residency", RESIDENCIES)
@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("long_row", [1, 1024])
def test_batches_are_the_same_in_every_residency_and_from_every_place(
    residency: Any, prefetch: int, long_row: int, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    """True if rows are copied whole or entry by entry, and with rows carried from window to window."""
    cache = written(encoding="int4")
    settings: dict[str, Any] = {"batch_size": 5, "window_shards": 2, "seed": 1}
    expected = list(KnowledgeLoader(cache, residency="host", prefetch=0, **settings))
    monkeypatch.setattr(block, "_LONG_ROW", long_row)
    found = list(KnowledgeLoader(cache, residency=residency, prefetch=prefetch, **settings))
    assert all(same(*pair) for pair in zip(found, expected, strict=True))
    resumed = KnowledgeLoader(cache, residency=residency, prefetch=prefetch, **settings)
    resumed.seek(0, 2)
    assert all(same(*pair) for pair in zip(resumed, expected[2:], strict=True))


def test_every_slice_knows_the_pairs_of_the_whole_batch(written: Written) -> None:
    cache = written()
    whole = list(KnowledgeLoader(cache, batch_size=8))
    counts = {row: len(cache.row(row)["attention"][2]["positions"]) for row in range(24)}
    assert len(set(counts.values())) > 1, "or squares and products are the same"
    for rank in (0, 1):
        own = list(KnowledgeLoader(cache, batch_size=2, world_size=2, accumulation=2, rank=rank))
        for index, batch in enumerate(own):
            assert batch.num_pairs == sum(counts[row] ** 2 for row in whole[index // 2].row_ids)
    assert next(iter(KnowledgeLoader(cache, fields=("hidden",)))).num_pairs == 0


def test_layers_and_fields_that_are_not_asked_for_are_not_loaded(written: Written) -> None:
    cache = written()
    batch = next(iter(KnowledgeLoader(cache, fields=("attention",), layers={"attention": (4,)})))
    assert (batch.logits, batch.hidden, list(batch.attention)) == (None, {}, [4])
    batch = next(iter(KnowledgeLoader(cache, layers={"attention": (), "hidden": (0,)})))
    assert (list(batch.hidden), batch.attention) == ([0], {})
    whole, part = (KnowledgeLoader(cache, layers=layers).reader.num_bytes for layers in ({}, {"attention": (4,)}))
    assert part < whole
    with pytest.raises(MismatchError, match="has no attention of layer 3; it keeps 2, 4"):
        KnowledgeLoader(cache, layers={"attention": (3,)})
    with pytest.raises(MismatchError, match="has no field attention to load; it has logits, hidden"):
        KnowledgeLoader(written(attention=False), fields=("attention",))


def test_arrays_are_told_apart_by_the_kind_of_their_field_and_not_by_its_name(written: Written) -> None:
    """A second field of hidden states or of logits needs nothing but a name."""
    fields = written(encoding="int8").fields
    assert axis_of("logits_50", fields["logits"], "logits") == ROW
    assert axis_of("hidden_b", fields["hidden"], "layer_02/values") == "hidden_b/position"
    assert axis_of("inputs", fields["inputs"], "labels") == ROW
    assert axis_of("inputs", fields["inputs"], "token_type_ids") == "inputs/token"
    found = [axis_of("maps", fields["attention"], f"layer_02/{part}") for part in ("positions", "scales", "values")]
    assert found == ["maps/position", "maps/vector", "maps/value"]


@pytest.mark.parametrize("encoding", ["bfloat16", "int8", "int4"])
@pytest.mark.parametrize("tokens", [4, 9])
def test_nothing_asks_the_device_for_a_value(encoding: str, tokens: int, written: Written) -> None:
    """Tensors on the meta device have shapes and no values: whatever would wait for one fails there."""
    loader = KnowledgeLoader(written(encoding=encoding, tokens=tokens))
    meta = torch.device("meta")
    loader.device = meta
    sizes = [Sizes(3, 3, {"hidden": 30, "attention": 300})]
    pool = loader._decoder.pool(loader.reader.read([0, 1]).to(meta), np.array([7, 0, 3]), sizes)
    (batch,) = loader._decoder.decode(pool)
    length = batch.inputs["input_ids"].shape[1]
    target = batch.attention[2]
    assert target.scores_BHKK.shape == (3, 4, tokens, tokens)
    student = torch.randn(3, 4, length, 8, device=meta, requires_grad=True)
    scores = scores_between(student, student, target.positions_BK, 0.5)
    for heads in (HeadPairs(), HeadPairs(mean=True), HeadPairs(student=(1,), stored=(2,))):
        loss = attention_loss(scores, target, 300, heads)
        loss.backward(retain_graph=True)
        assert loss.shape == ()
    assert batch.hidden[2].values_PW.shape[0] == batch.hidden[2].index_P.shape[0]
