"""Values of the same rows are compared however they are stored, and only what both caches have of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rewritten import changing, golden, rewritten, values_of

from hskcache.cache import AttentionField, Cache, HiddenField
from hskcache.compare import values
from hskcache.compare.difference import SameShards, difference, work_rows
from hskcache.decoded import Vectors, decode
from hskcache.encoding import get_encoding
from hskcache.encoding.bitmask import pack_columns
from hskcache.errors import DamageError
from hskcache.rows import read_rows, take


def vectors_of(cache: Cache, field: str, layer: int) -> Vectors:
    arrays = read_rows(cache, field, np.arange(cache.num_rows))
    return decode(cache.fields[field], arrays, layer, cache.constants(field))


def test_the_values_that_differ_are_told_by_layer_with_how_much(tmp_path: Path) -> None:
    def change(arrays: dict[str, Any]) -> None:
        arrays["layer_04/values"][1, 2] -= 20

    other = rewritten(golden(), tmp_path / "c", changing("hidden", 1, change))
    seen: list[int] = []
    found = difference(golden(), other, on_rows=seen.append)
    assert sum(seen) == work_rows(golden(), other) == 5 * 4
    assert (found.changes, found.fields_here, found.fields_there, found.same) == ([], [], [], False)
    here, there = (vectors_of(cache, "hidden", 4).values_VE[4:8].double() for cache in (golden(), other))
    one = values_of(found, "hidden", 4)
    assert (one.num_rows, one.num_values, one.num_nonfinite) == (2, 12, 0)
    assert one.max_abs == pytest.approx(float((here - there).abs().max()))
    assert one.max_abs > 0
    assert one.mean_abs == pytest.approx(one.max_abs / 12)
    cosines = torch.nn.functional.cosine_similarity(here, there)
    assert one.cosine == pytest.approx(float(cosines.mean()))
    assert values_of(found, "hidden", 2).max_abs == 0
    assert values_of(found, "logits").num_rows == 0
    same = {shard.field: shard for shard in found.shards}
    assert same["hidden"] == SameShards(field="hidden", ranges=[(0, 2), (4, 5)], num_rows=3)
    assert same["inputs"] == SameShards(field="inputs", ranges=[(0, 5)], num_rows=5)


@pytest.mark.parametrize("encoding", ["float32", "float16", "bfloat16", "int4"])
def test_other_encodings_are_compared_by_what_they_decode_to(tmp_path: Path, encoding: str) -> None:
    source = golden()
    field = source.fields["hidden"]
    assert isinstance(field, HiddenField)

    def encode(name: str, _number: int, arrays: dict[str, Any]) -> dict[str, Any] | None:
        if name != "hidden":
            return None
        found = {key: array for key, array in arrays.items() if not key.endswith(("/values", "/scales"))}
        for layer in field.layers:
            parts = get_encoding(encoding).encode(decode(field, arrays, layer, {}).values_VE)
            found |= {f"layer_{layer:02d}/{part}": tensor.numpy() for part, tensor in parts.items()}
        return found

    other = rewritten(source, tmp_path / "c", encode, {"hidden": (field.model_copy(update={"encoding": encoding}), {})})
    found = difference(source, other)
    assert [(change.key, change.there) for change in found.changes] == [("fields.hidden.encoding", encoding)]
    for layer in field.layers:
        one, stored = values_of(found, "hidden", layer), vectors_of(source, "hidden", layer).values_VE
        assert one.max_abs <= float(get_encoding(encoding).bound(stored).max())
        # Products of so few bits as these are exact in float16.
        assert (one.max_abs == 0) == (encoding in {"float32", "float16"})
        assert (one.num_rows, one.same_positions, one.same_entries) == (5, 1, 1)
    assert not found.same


def test_positions_and_columns_that_only_one_has_are_not_compared(tmp_path: Path) -> None:
    def change(arrays: dict[str, Any]) -> None:
        """The first row keeps another position, and the second state of it another column, with absurd values."""
        arrays["layer_02/positions"][0] = 3
        arrays["layer_02/values"][0] = 127
        columns = vectors_of(golden(), "hidden", 2).entries_VE[1]
        columns = torch.cat([columns[1:], torch.tensor([next(c for c in range(15, 0, -1) if c not in columns)])])
        order = columns.argsort()
        arrays["layer_02/bitmask"][1] = pack_columns(columns.sort().values, 16).numpy()
        stored = arrays["layer_02/values"][1].copy()
        arrays["layer_02/values"][1] = np.append(stored[1:], 127)[order.numpy()]

    kept = golden().row(0)["hidden"][2]["positions"]
    assert 3 not in kept
    found = difference(golden(), rewritten(golden(), tmp_path / "c", changing("hidden", 0, change)))
    one = values_of(found, "hidden", 2)
    assert one.max_abs == 0
    assert one.same_positions == pytest.approx(3 / 4)
    assert one.same_entries == pytest.approx(8 / 9)
    assert one.num_values == 8
    assert not found.same


def test_components_are_compared_as_the_states_that_they_stand_for(tmp_path: Path) -> None:
    """With as many components as columns nothing is lost."""
    source = golden()
    field = source.fields["hidden_uniform"]
    assert isinstance(field, HiddenField)
    draw = torch.Generator().manual_seed(0)
    states = {
        number: torch.randn(stop - start, 16, generator=draw) for number, (start, stop) in enumerate(source.shards)
    }
    basis = torch.linalg.qr(torch.randn(16, 16, generator=draw))[0]
    mean = torch.arange(16.0)

    coordinates = {number: (one - mean) @ basis.T for number, one in states.items()}

    def storing(stored: dict[int, torch.Tensor], extra: dict[str, Any]) -> Any:
        def change(name: str, number: int, arrays: dict[str, Any]) -> dict[str, Any] | None:
            if name != "hidden_uniform":
                return None
            count = len(stored[number])
            more = {key: np.tile(array, (count, 1)) for key, array in extra.items()}
            return arrays | more | {"layer_04/values": stored[number].numpy()}

        return change

    whole = field.model_copy(update={"num_columns": 16, "encoding": "float32"})
    constants = {"layer_04/mean": mean.numpy(), "layer_04/basis": basis.numpy()}
    pca = {"hidden_uniform": (whole.model_copy(update={"columns": "pca"}), constants)}
    plain = {"hidden_uniform": (whole.model_copy(update={"columns": "indices"}), {})}
    columns = {"layer_04/columns": np.arange(16, dtype=np.uint16)}
    here = rewritten(source, tmp_path / "p", storing(coordinates, {}), pca)
    there = rewritten(source, tmp_path / "i", storing(states, columns), plain)
    one = values_of(difference(here, there), "hidden_uniform", 4)
    assert one.num_values == 5 * 16
    assert one.max_abs < 1e-4
    assert one.same_positions == one.same_entries == 1


def test_heads_are_matched_by_their_number_in_the_teacher(tmp_path: Path) -> None:
    source = golden("corpus")
    field = source.fields["attention"]
    assert isinstance(field, AttentionField)
    assert field.heads == [1, 0]

    def storing(of_row: Any) -> Any:
        """Maps of every row, two heads one after the other, changed to others."""

        def change(name: str, _number: int, arrays: dict[str, Any]) -> dict[str, Any] | None:
            if name != "attention":
                return None
            rows = [take(field, arrays, np.array([row])) for row in range(len(arrays["position_offsets"]) - 1)]
            names = ("layer_02/values", "layer_02/scales")
            return arrays | {key: np.concatenate([of_row(np.split(one[key], 2)) for one in rows]) for key in names}

        return change

    turn = storing(lambda heads: np.concatenate(heads[::-1]))
    for number, heads in enumerate(([0, 1], [1, 0])):
        turned = {"attention": (field.model_copy(update={"heads": heads}), {})}
        one = values_of(difference(source, rewritten(source, tmp_path / str(number), turn, turned)), "attention", 2)
        assert one.same_positions == 1
        assert (one.max_abs == 0) == (heads == [0, 1])
        assert (one.kl == 0) == (heads == [0, 1])
    mean = {"attention": (field.model_copy(update={"heads": "mean", "num_heads": 1}), {})}
    other = rewritten(source, tmp_path / "m", storing(lambda heads: heads[0]), mean)
    none = values_of(difference(source, other), "attention", 2)
    assert (none.num_values, none.same_positions, none.cosine) == (0, 0, None)


@pytest.mark.parametrize("name", ["tiny", "corpus"])
def test_pieces_of_any_size_give_the_same_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    field = "hidden" if name == "tiny" else "attention"

    def change(found: str, _number: int, arrays: dict[str, Any]) -> None:
        if found == field:
            arrays["layer_02/values"][...] = np.roll(arrays["layer_02/values"], 1, -1)

    other = rewritten(golden(name), tmp_path / "c", change, shard_rows=3)
    whole = difference(golden(name), other)
    monkeypatch.setattr(values, "_MOST_VALUES", 1)
    pieces = difference(golden(name), other)
    for one, two in zip(whole.values or (), pieces.values or (), strict=True):
        assert one.model_dump() == pytest.approx(two.model_dump())
    assert values_of(whole, field, 2).max_abs > 0


def test_positions_that_no_row_has_are_refused(tmp_path: Path) -> None:
    def change(arrays: dict[str, Any]) -> None:
        arrays["layer_02/positions"][0] = 60_000

    other = rewritten(golden("corpus"), tmp_path / "c", changing("attention", 0, change))
    with pytest.raises(DamageError, match="layer_02/positions points beyond the end of every row"):
        difference(golden("corpus"), other)
