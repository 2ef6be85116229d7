"""Single states come once an epoch in an order of their own, as a cache decodes them, wherever a pass begins."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from hskcache.cache import Cache, open_cache
from hskcache.errors import MismatchError, SpecError
from trainer.loading import KnowledgeLoader, TokenBatch, TokenLoader

GOLDEN = Path(__file__).resolve().parents[2] / "golden"


@pytest.fixture(params=["uniform", "indices", "bitmask", "pca", "all"])
def cache(request: pytest.FixtureRequest, caches: Any) -> Cache:
    return caches(request.param)


def loader_of(cache: Cache, **given: Any) -> TokenLoader:
    return TokenLoader(**{"cache": cache, "layer": 4, "batch_size": 50, "window_shards": 3} | given)


def joined(batches: list[TokenBatch]) -> TokenBatch:
    return TokenBatch(*(torch.cat(parts) for parts in list(zip(*batches, strict=True))[:-1]))


def test_every_kept_state_comes_once_and_is_what_the_cache_holds(cache: Cache) -> None:
    loader = loader_of(cache)
    batches = list(loader)
    assert len(batches) == len(loader)
    assert {len(batch.states_BD) for batch in batches[:-10]} == {50}
    found = joined(batches)
    expected = {}
    for row, data in enumerate(cache):
        for place, state in zip(data["hidden.4.positions"], data["hidden.4"], strict=True):
            expected[row, int(place)] = (state, data["input_ids"][place], data["label"])
    keys = list(zip(found.row_ids_B.tolist(), found.positions_B.tolist(), strict=True))
    assert Counter(keys) == Counter(expected.keys())
    assert found.labels_B is not None
    for key, state, token, label in zip(keys, found.states_BD.numpy(), found.token_ids_B, found.labels_B, strict=True):
        assert np.allclose(state, expected[key][0], atol=1e-6)
        assert (int(token), int(label)) == tuple(map(int, expected[key][1:]))
    # Mixed across rows and shards, not row after row.
    first = batches[0].row_ids_B
    assert len(set(first.tolist())) > 12
    assert len({int(row) // 8 for row in first}) == 3


def test_the_order_is_that_of_the_seed_and_of_the_epoch(caches: Any) -> None:
    cache = caches("bitmask")
    one, same, other = loader_of(cache), loader_of(cache), loader_of(cache, seed=1)
    epochs = [[joined(list(loader)).states_BD for _ in range(2)] for loader in (one, same, other)]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*epochs[:2], strict=True))
    assert not torch.equal(epochs[0][0], epochs[0][1])
    assert not torch.equal(epochs[0][0], epochs[2][0])


@pytest.mark.parametrize("done", [1, 7, 13])
def test_a_pass_goes_on_exactly_where_a_saved_state_stands(done: int, caches: Any) -> None:
    whole = list(loader_of(caches("bitmask")))
    begun = loader_of(caches("bitmask"))
    for _ in zip(range(done), begun, strict=False):
        pass
    again = loader_of(caches("bitmask"))
    again.load_state_dict(begun.state_dict())
    rest = list(again)
    assert len(rest) == len(whole) - done
    assert all(torch.equal(ours[0], theirs[0]) for ours, theirs in zip(rest, whole[done:], strict=True))
    with pytest.raises(MismatchError, match="identity"):
        loader_of(caches("bitmask"), layer=2).load_state_dict(begun.state_dict())


def test_ranks_take_slices_of_the_same_batches(caches: Any) -> None:
    whole = list(loader_of(caches("all"), batch_size=40))
    parts = [list(loader_of(caches("all"), batch_size=20, rank=rank, world_size=2)) for rank in range(2)]
    for batch, *slices in zip(whole, *parts, strict=True):
        together = Counter(tuple(state) for part in slices for state in part.states_BD.tolist())
        assert together == Counter(map(tuple, batch.states_BD.tolist()))


def test_a_view_and_a_cache_by_an_older_format_are_read(caches: Any) -> None:
    view = caches("all").view("1l_2t_0.5h,rows=16:60")
    found = joined(list(loader_of(view)))
    assert len(found.states_BD) == 2 * 44
    assert set(found.row_ids_B.tolist()) == set(range(44))
    assert ((found.states_BD != 0).sum(1) == 16).all()
    for name in ("tiny", "tiny-2"):
        golden = open_cache(GOLDEN / f"{name}.hsk")
        layer = golden.fields["hidden"].stored_layers[0]
        states = joined(list(loader_of(golden, layer=layer, batch_size=3))).states_BD
        assert len(states) == len(np.concatenate(list(golden.hidden(layer))))


def test_the_unit_of_the_one_loader_makes_the_other(caches: Any) -> None:
    made = KnowledgeLoader(caches("all"), unit="token", layer=4, batch_size=50, window_shards=3)
    assert isinstance(made, TokenLoader)
    assert torch.equal(joined(list(made)).states_BD, joined(list(loader_of(caches("all")))).states_BD)
    with pytest.raises(SpecError, match="unit 'tokens' is none of row and token; do you mean 'token'"):
        KnowledgeLoader(caches("all"), unit="tokens")


def test_what_is_not_there_is_told(caches: Any) -> None:
    with pytest.raises(MismatchError, match=r"no hidden layer 3; it keeps \[2, 4\]"):
        loader_of(caches("all"), layer=3)
    with pytest.raises(MismatchError, match="no hidden states hiden; it has hidden; do you mean 'hidden'"):
        loader_of(caches("all"), name="hiden")


@pytest.mark.parametrize("unit", ["row", "token"])
def test_a_data_loader_hands_whole_batches_on(unit: str, caches: Any) -> None:
    def made() -> Any:
        given = {"layer": 4} if unit == "token" else {}
        return KnowledgeLoader(caches("bitmask"), unit=unit, batch_size=10, **given)  # type: ignore[arg-type]

    plain, inside = list(made()), made()
    assert isinstance(inside, IterableDataset)
    wrapped = DataLoader(inside, batch_size=None)
    assert len(wrapped) == len(plain)
    ids = [list(map(int, batch.row_ids if unit == "row" else batch.row_ids_B)) for batch in plain]
    first = iter(wrapped)
    seen = [next(first) for _ in range(4)]
    assert inside.state_dict()["position"] == 4
    again = made()
    again.load_state_dict(inside.state_dict())
    seen += list(DataLoader(again, batch_size=None))
    assert [list(map(int, batch.row_ids if unit == "row" else batch.row_ids_B)) for batch in seen] == ids
    with pytest.raises(SpecError, match="reads and decodes ahead by itself"):
        next(iter(DataLoader(made(), batch_size=None, num_workers=1)))


def test_a_batch_moves_whole_to_a_device(caches: Any) -> None:
    """As trainers such as Lightning move it, which take no frozen dataclass apart."""
    batch = next(iter(KnowledgeLoader(caches("bitmask"), batch_size=4)))
    assert batch.to("cpu") is batch
    moved = batch.to("meta")
    assert batch.labels is not None
    assert moved.labels is not None
    assert moved.logits is not None
    assert {part.device.type for part in (*moved.inputs.values(), moved.labels, moved.logits)} == {"meta"}
    assert {target.values_PW.device.type for target in moved.hidden.values()} == {"meta"}
    assert (moved.row_ids, moved.num_rows, moved.num_positions) == (batch.row_ids, batch.num_rows, batch.num_positions)


@pytest.mark.parametrize("unit", ["row", "token"])
def test_who_counts_the_batches_of_an_epoch_gets_the_next_one_whole(unit: str, caches: Any) -> None:
    """As Lightning does, which asks a loader of a known length for no batch beyond it."""

    def made() -> Any:
        given = {"layer": 4} if unit == "token" else {}
        return KnowledgeLoader(caches("bitmask"), unit=unit, batch_size=40, **given)  # type: ignore[arg-type]

    def ids(batch: Any) -> list[int]:
        return list(map(int, batch.row_ids if unit == "row" else batch.row_ids_B))

    whole, counted = made(), made()
    expected = [[ids(batch) for batch in whole] for _ in range(3)]
    epochs = []
    for _ in range(3):
        one = iter(counted)
        epochs.append([ids(next(one)) for _ in range(len(counted))])
    assert epochs == expected
    again = made()
    again.load_state_dict(counted.state_dict())
    assert [ids(batch) for batch in again] == [ids(batch) for batch in whole]
