"""Vectors hold what the encodings say, entry by entry, and distances are those of the definitions."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hskcache.cache import AttentionField, HiddenField, open_cache
from hskcache.decoded import Distance, Same, decode, dense, layers_of, reconstructed
from hskcache.encoded import ENCODED
from hskcache.encoding import ENCODINGS
from hskcache.encoding.bitmask import pack_columns
from hskcache.errors import MismatchError

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def hidden(columns: Any, encoding: str) -> HiddenField:
    return HiddenField(width=10, num_columns=4, columns=columns, encoding=encoding, layers=[3], max_tokens=4)  # type: ignore[arg-type]


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
@pytest.mark.parametrize("columns", ["shared", "indices", "bitmask", "pca"])
def test_hidden_states_come_back_with_the_column_of_every_value(columns: str, encoding: str) -> None:
    """Three rows of 2, 0 and 1 positions."""
    draw = torch.Generator().manual_seed(0)
    values = torch.randn(3, 4, generator=draw)
    chosen = torch.stack([torch.randperm(10, generator=draw)[:4].sort().values for _ in range(3)])
    arrays = {f"layer_03/{name}": part.numpy() for name, part in ENCODINGS[encoding].encode(values).items()}
    arrays |= {"position_offsets": np.array([0, 2, 2, 3]), "layer_03/positions": np.array([5, 0, 2], np.uint16)}
    constants: dict[str, Any] = {}
    if columns == "indices":
        arrays["layer_03/columns"] = chosen.numpy().astype(np.uint16)
    elif columns == "bitmask":
        arrays["layer_03/bitmask"] = pack_columns(chosen, 10).numpy()
    elif columns == "shared":
        chosen = chosen[:1].expand(3, 4)
        constants["layer_03/columns"] = chosen[0].numpy().astype(np.uint16)
    else:
        chosen = torch.arange(4).expand(3, 4)
        basis = torch.linalg.qr(torch.randn(10, 10, generator=draw))[0][:4]
        constants = {"layer_03/mean": np.arange(10, dtype=np.float32), "layer_03/basis": basis.numpy()}
    field = hidden(columns, encoding)
    found = decode(field, arrays, 3, constants)
    assert found.rows_V.tolist() == [0, 0, 2]
    assert found.positions_V.tolist() == [5, 0, 2]
    assert found.heads_V.tolist() == [0, 0, 0]
    assert torch.equal(found.entries_VE, chosen)
    assert bool(((found.values_VE - values).abs() <= ENCODINGS[encoding].bound(values)).all())
    states = reconstructed(field, found, 3, constants)
    if columns == "pca":
        assert torch.allclose(states.values_VE, found.values_VE @ basis + torch.arange(10.0))
        assert states.entries_VE.tolist() == [list(range(10))] * 3
    else:
        assert states is found
    flat = dense(field, arrays, 3, constants)
    assert flat.shapes.tolist() == [[2, 10], [0, 10], [1, 10]]
    full = torch.zeros(3, 10).scatter_(1, states.entries_VE, states.values_VE)
    assert flat.values.reshape(3, 10).tolist() == full.tolist()


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
def test_attention_of_rows_of_any_length_comes_back_key_by_key(encoding: str) -> None:
    codec, counts, heads = ENCODINGS[encoding], [3, 0, 1, 5, 2], 2
    field = AttentionField(num_heads=2, heads=[3, 1], teacher_heads=4, encoding=encoding, layers=[2], max_tokens=5)  # type: ignore[arg-type]
    draw = torch.Generator().manual_seed(1)
    maps = [torch.randn(heads, count, count, generator=draw) for count in counts]
    positions = [torch.randperm(20, generator=draw)[:count] for count in counts]
    parts: dict[str, list[np.ndarray]] = {name: [] for name in ENCODED[encoding].of(1)}
    for one in maps:
        for vector in one.flatten(0, 1):
            for name, part in codec.encode(vector).items():
                parts[name].append(part.reshape(-1).numpy())
    arrays = {f"layer_02/{name}": np.concatenate(found) for name, found in parts.items()}
    arrays["layer_02/positions"] = torch.cat(positions).numpy().astype(np.uint16)
    arrays["position_offsets"] = np.cumsum([0, *counts])
    found = decode(field, arrays, 2, {})
    place = 0
    for row, count in enumerate(counts):
        for head in range(heads):
            for query in range(count):
                one = (found.rows_V[place], found.heads_V[place], found.positions_V[place])
                assert [int(value) for value in one] == [row, head, int(positions[row][query])]
                assert found.entries_VE[place].tolist() == positions[row].tolist() + [-1] * (5 - count)
                scores = maps[row][head, query]
                assert bool(((found.values_VE[place, :count] - scores).abs() <= codec.bound(scores)).all())
                assert found.values_VE[place, count:].tolist() == [0.0] * (5 - count)
                place += 1
    assert place == len(found.rows_V)
    flat, begin = dense(field, arrays, 2, {}), 0
    for row, count in enumerate(counts):
        assert flat.shapes[row].tolist() == [heads, count, count]
        scores = torch.from_numpy(flat.values[begin : begin + heads * count * count]).reshape(maps[row].shape)
        assert count == 0 or bool(((scores - maps[row]).abs() <= codec.bound(maps[row])).all())
        begin += heads * count * count
    assert begin == len(flat.values)


def test_logits_are_vectors_of_classes_and_inputs_are_none() -> None:
    cache = open_cache(GOLDEN / "tiny.hsk")
    field = cache.fields["logits"]
    assert layers_of(field) == [None]
    logits = cache.read("logits", 0)
    found = decode(field, logits, None, {})
    assert np.array_equal(found.values_VE.numpy(), logits["logits"])
    assert found.entries_VE.tolist() == [list(range(logits["logits"].shape[1]))] * len(logits["logits"])
    with pytest.raises(MismatchError, match="inputs are tokens"):
        decode(cache.fields["inputs"], cache.read("inputs", 0), None, {})


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 6))
def test_distances_are_those_of_the_definitions_however_the_vectors_are_cut(seed: int, count: int, width: int) -> None:
    draw = np.random.default_rng(seed)
    here, there = draw.normal(size=(2, count, width)).astype(np.float32)
    valid = draw.random((count, width)) < 0.7
    valid[:, 0] = True
    distance = Distance()
    for one in range(count):
        rows = (torch.from_numpy(side[one : one + 1]) for side in (here, there, valid))
        distance.add(*rows, are_scores=True)
    errors = np.abs(here.astype(np.float64) - there)[valid]
    assert distance.num_values == len(errors)
    assert distance.max_abs == pytest.approx(errors.max())
    assert distance.mean_abs == pytest.approx(errors.mean())
    cosines, divergences = [], []
    for a, b, kept in zip(here.astype(np.float64), there.astype(np.float64), valid, strict=True):
        cosines.append(a[kept] @ b[kept] / np.linalg.norm(a[kept]) / np.linalg.norm(b[kept]))
        p, q = (np.exp(side[kept]) / np.exp(side[kept]).sum() for side in (b, a))
        divergences.append((p * np.log(p / q)).sum())
    assert distance.cosine == pytest.approx(np.mean(cosines))
    assert distance.divergence == pytest.approx(np.mean(divergences), abs=1e-9)


def test_values_that_are_not_finite_are_counted_and_left_out() -> None:
    here = torch.tensor([[1.0, torch.nan], [torch.inf, 4.0]])
    distance = Distance()
    distance.add(here, torch.tensor([[1.5, 2.0], [3.0, 4.0]]), torch.ones(2, 2, dtype=torch.bool), are_scores=True)
    assert (distance.num_values, distance.num_nonfinite, distance.max_abs, distance.mean_abs) == (4, 2, 0.5, 0.25)
    assert distance.cosine == pytest.approx(1.0)
    assert distance.divergence == 0


def test_nothing_to_compare_has_neither_cosine_nor_divergence() -> None:
    distance = Distance()
    distance.add(torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.bool), are_scores=True)
    assert (distance.max_abs, distance.mean_abs, distance.cosine, distance.divergence) == (0, 0, None, None)


def test_a_share_is_of_the_larger_choice() -> None:
    same = Same()
    assert same.share == 1
    same.add(torch.tensor([True, True, False, False]), torch.tensor([True, False, True, True]))
    assert same.share == pytest.approx(1 / 3)
