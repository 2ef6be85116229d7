"""Batches of chosen fields: each as its own teacher's cache has it, logits averaged by weight, others untouched."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from additions import Grown, add_odd, copied, graft
from hypothesis import given
from hypothesis import strategies as st

from hskcache.cache import Cache
from hskcache.errors import MismatchError, SpecError
from trainer.batch import Batch
from trainer.loading import KnowledgeLoader
from trainer.loading.block import ROW, Block, Cuts, StoredRows, joined
from trainer.loading.kinds.logits import LogitsDecoder

RESIDENCIES = ("device", "host", "stream")
ENSEMBLE = ("s30", "s50", "hidden2", "attention2")
WEIGHTS = {"s30": 3.0, "s50": 1.0}


def tensors_of(batch: Batch) -> dict[str, torch.Tensor]:
    found = {**batch.inputs, "labels": batch.labels, "logits": batch.logits}
    for kind in ("hidden", "attention"):
        for layer, target in getattr(batch, kind).items():
            found |= {f"{kind} {layer} {name}": value for name, value in vars(target).items()}
    return {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}


def assert_same(ours: list[Batch], theirs: list[Batch]) -> None:
    """Every bit, and every size that the losses divide by."""
    for one, other in zip(ours, theirs, strict=True):
        assert (one.row_ids, one.num_rows, one.num_positions) == (other.row_ids, other.num_rows, other.num_positions)
        assert (one.num_pairs, one.weight) == (other.num_pairs, other.weight)
        first, second = tensors_of(one), tensors_of(other)
        assert first.keys() == second.keys()
        assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def logits_of(cache: Cache, field: str) -> Any:
    """All rows, [N, C], straight from the shards."""
    return np.concatenate([cache.read(field, shard)["logits"] for shard in range(len(cache.shards))])


def test_without_a_choice_a_cache_gives_what_it_gave_before_anything_was_added(grown: Grown) -> None:
    ours, theirs = KnowledgeLoader(grown.cache), KnowledgeLoader(grown.plain)
    assert ours.fields == ("logits", "hidden", "attention")
    assert ours.reader.num_bytes == theirs.reader.num_bytes
    assert ours.identity == theirs.identity == grown.plain.id != grown.cache.id
    assert_same(list(ours), list(theirs))


@pytest.mark.parametrize(
    ("name", "field", "donor"),
    [
        ("s30", "logits", "three"),
        ("s50", "logits", "six"),
        ("hidden2", "hidden", "six"),
        ("attention2", "attention", "six"),
        ("hidden", "hidden", "plain"),
    ],
)
def test_a_chosen_field_is_what_the_cache_of_its_own_teacher_gives(
    name: str, field: str, donor: str, grown: Grown
) -> None:
    """To the bit, principal components, other layers, widths and numbers of positions included."""
    ours = KnowledgeLoader(grown.cache, fields=(name,), batch_size=10, window_shards=2)
    theirs = KnowledgeLoader(getattr(grown, donor), fields=(field,), batch_size=10, window_shards=2)
    assert_same(list(ours), list(theirs))


def test_fields_of_two_teachers_stand_side_by_side(grown: Grown) -> None:
    mixed = KnowledgeLoader(grown.cache, fields=("s30", "hidden2", "attention"), batch_size=24)
    for batch in mixed:
        assert batch.logits is not None
        assert np.array_equal(batch.logits.numpy(), logits_of(grown.three, "logits")[list(batch.row_ids)])
        assert (list(batch.hidden), batch.hidden[6].width) == ([3, 6], 24)
        assert batch.hidden[6].basis_WD is not None
        assert [target.scores_BHKK.shape[1] for target in batch.attention.values()] == [4, 4]
        assert list(batch.attention) == [2, 4]


@pytest.mark.parametrize(
    ("weights", "shares"),
    [({}, (0.5, 0.5)), ({"s30": 0.7, "s50": 0.3}, (0.7, 0.3)), ({"s50": 6, "s30": 2}, (0.25, 0.75))],
)
def test_logits_are_averaged_by_weight(weights: dict[str, float], shares: tuple[float, float], grown: Grown) -> None:
    first, second = (logits_of(donor, "logits").astype(np.float64) for donor in (grown.three, grown.six))
    expected = shares[0] * first + shares[1] * second
    assert np.median(np.abs(first - second)) > 0.1, "or any weights would do"
    for batch in KnowledgeLoader(grown.cache, fields=("s50", "s30"), weights=weights, batch_size=7):
        assert batch.logits is not None
        assert batch.logits.dtype == torch.float32
        np.testing.assert_allclose(batch.logits, expected[list(batch.row_ids)], rtol=1e-6, atol=1e-7)


def block_of(fields: dict[str, Any]) -> Block:
    arrays = {f"{name}/logits": np.array(rows, np.float32) for name, rows in fields.items()}
    return joined([StoredRows(np.arange(4), {}, arrays, dict.fromkeys(arrays, ROW))])


def cuts_at(*rows: int) -> Cuts:
    return Cuts(np.array(rows), np.zeros(rows[-1], np.int64))


eighths = st.lists(
    st.lists(st.integers(-999, 999).map(lambda n: n / 8), min_size=3, max_size=3), min_size=4, max_size=4
)


@given(fields=st.lists(eighths, min_size=3, max_size=3), shares=st.permutations([0.5, 0.375, 0.125]))
def test_the_average_is_exact_where_float32_can_hold_it(fields: list[Any], shares: list[float]) -> None:
    names = ("a", "b", "c")
    block = block_of(dict(zip(names, fields, strict=True)))
    before = {name: tensor.clone() for name, tensor in block.tensors.items()}
    means = LogitsDecoder(dict(zip(names, shares, strict=True))).decode(block, cuts_at(0, 1, 4))
    expected = np.tensordot(np.array(shares), np.array(fields), 1)
    assert [len(mean) for mean in means] == [1, 3]
    assert np.array_equal(torch.cat([*means]).numpy(), expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in block.tensors.items()), "the cache is untouched"


def test_logits_of_one_field_are_handed_on_without_any_computation() -> None:
    block = block_of({"a": [[0.1]] * 4, "b": [[0.2]] * 4})
    (logits,) = LogitsDecoder({"b": 1.0}).decode(block, cuts_at(0, 4))
    assert logits.data_ptr() == block.tensors["b/logits"].data_ptr()


@pytest.mark.parametrize("residency", RESIDENCIES)
@pytest.mark.parametrize("prefetch", [0, 2])
def test_an_ensemble_is_the_same_in_every_residency(residency: Any, prefetch: int, grown: Grown) -> None:
    settings: dict[str, Any] = {"fields": ENSEMBLE, "weights": WEIGHTS, "batch_size": 10, "seed": 2}
    expected = list(KnowledgeLoader(grown.cache, residency="host", prefetch=0, **settings))
    found = KnowledgeLoader(grown.cache, residency=residency, prefetch=prefetch, **settings)
    assert_same(list(found), expected)


def test_slices_know_the_positions_and_pairs_of_the_whole_batch(grown: Grown) -> None:
    whole = list(KnowledgeLoader(grown.cache, fields=ENSEMBLE, batch_size=8, num_rows=40))
    assert len({batch.num_pairs for batch in whole}) > 1
    for rank in range(2):
        own = KnowledgeLoader(grown.cache, fields=ENSEMBLE, batch_size=4, num_rows=40, world_size=2, rank=rank)
        for part, batch in zip(own, whole, strict=True):
            assert set(part.row_ids) < set(batch.row_ids)
            assert (part.num_positions, part.num_pairs) == (batch.num_positions, batch.num_pairs)


def test_only_the_layers_asked_for_are_loaded_of_a_chosen_field(grown: Grown) -> None:
    loader = KnowledgeLoader(grown.cache, fields=("hidden2", "attention2"), layers={"hidden": (6,), "attention": ()})
    batch = next(iter(loader))
    assert (list(batch.hidden), batch.attention, batch.num_pairs) == ([6], {}, 0)
    whole = KnowledgeLoader(grown.cache, fields=("hidden2", "attention2"))
    assert loader.reader.num_bytes < whole.reader.num_bytes / 2


@pytest.mark.parametrize("fields", [None, ("s30",), ("s30", "hidden"), ("logits", "s30")])
def test_a_saved_place_is_gone_on_from_after_a_field_was_added(fields: Any, grown: Grown, tmp_path: Path) -> None:
    cache = graft(copied(grown.plain, tmp_path / "cache"), "s30", grown.three, "logits")
    settings: dict[str, Any] = {"fields": fields, "batch_size": 12}
    whole = list(KnowledgeLoader(cache, **settings))
    saved = KnowledgeLoader(cache, **settings)
    batches = iter(saved)
    for _ in range(3):
        next(batches)
    state = saved.state_dict()
    resumed = KnowledgeLoader(add_odd(cache, grown.six), **settings)
    resumed.load_state_dict(state)
    assert_same(list(resumed), whole[3:])


def test_a_place_among_other_knowledge_is_no_place_to_go_on_from(grown: Grown) -> None:
    """Other fields, other weights, other rows: as many identities."""
    two = {"fields": ("s30", "s50")}
    settings: list[dict[str, Any]] = [
        {},
        {"fields": ("s30",)},
        {"fields": ("s50",)},
        two,
        two | {"weights": {"s30": 0.7, "s50": 0.3}},
        two | {"num_rows": 40},
        {"fields": ("hidden2",)},
    ]
    loaders = [KnowledgeLoader(grown.cache, **one) for one in settings]
    assert len({loader.identity for loader in loaders}) == len(loaders)
    for other in loaders[:3]:
        with pytest.raises(MismatchError, match="identity"):
            other.load_state_dict(loaders[4].state_dict())


def test_the_same_knowledge_asked_for_in_another_way_is_the_same(grown: Grown) -> None:
    settings: list[dict[str, Any]] = [
        {"fields": ("s30", "s50")},
        {"fields": ("s50", "s30")},
        {"fields": ("s50", "s30"), "weights": {"s50": 0.1, "s30": 0.1}},
    ]
    loaders = [KnowledgeLoader(grown.cache, **one) for one in settings]
    assert len({loader.identity for loader in loaders}) == 1
    batches = [list(loader) for loader in loaders]
    assert_same(batches[0], batches[1])
    assert_same(batches[0], batches[2])
    named, part = (KnowledgeLoader(grown.cache, fields=fields) for fields in (("logits",), ("hidden",)))
    assert named.identity == part.identity == grown.plain.id, "whichever of the own fields a stage loads"


REFUSALS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "unknown": (
        {"fields": ("s70",)},
        MismatchError,
        "no field s70 to load; it has logits, hidden, attention, s30, s50, hidden2, attention2, odd",
    ),
    "the rows": ({"fields": ("inputs",)}, SpecError, "field inputs holds the rows, which are always loaded"),
    "twice": ({"fields": ("s30", "s50", "s30")}, SpecError, "field s30 is given twice"),
    "two of hidden states": (
        {"fields": ("hidden2", "hidden")},
        SpecError,
        "fields hidden and hidden2 both hold hidden states, which are not averaged; choose one",
    ),
    "two of attention": ({"fields": ("attention", "attention2")}, SpecError, "both hold attention scores"),
    "two widths": (
        {"fields": ("s30", "odd")},
        MismatchError,
        "fields odd and s30 hold logits of 3 and 2 outputs, which cannot be averaged",
    ),
    "weighted hidden states": (
        {"fields": ("s30", "hidden2"), "weights": {"s30": 1, "hidden2": 1}},
        SpecError,
        "field hidden2 holds hidden states, which have no weight",
    ),
    "one weight of two": (
        {"fields": ("s30", "s50"), "weights": {"s30": 1}},
        SpecError,
        "field s50 has no weight and another has one",
    ),
    "a weight of nothing": (
        {"fields": ("s30",), "weights": {"s30": 1, "s50": 1}},
        SpecError,
        "field s50 has a weight and is not among the fields",
    ),
    "an absent layer": (
        {"fields": ("hidden2",), "layers": {"hidden": (4,)}},
        MismatchError,
        "field hidden2 has no hidden layer 4; it keeps 3, 6",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_fields_that_cannot_be_loaded_are_refused_at_once(name: str, grown: Grown) -> None:
    changes, error, complaint = REFUSALS[name]
    with pytest.raises(error, match=complaint) as caught:
        KnowledgeLoader(grown.cache, **changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("weight", [0, -1, -0.0, float("nan"), float("inf")])
def test_a_weight_is_a_number_above_0(weight: float, grown: Grown) -> None:
    with pytest.raises(SpecError, match=r"field s50 has the weight .*; give a number above 0"):
        KnowledgeLoader(grown.cache, fields=("s30", "s50"), weights={"s30": 1, "s50": weight})
