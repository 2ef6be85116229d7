"""A cache is a sequence of decoded rows, whose values are the teacher's, in whichever form they are asked for."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from stored import shard_file

from hskcache.build.build import build
from hskcache.cache import Cache, open_cache
from hskcache.errors import MismatchError
from hskcache.rows import read_rows
from hskcache.spec import Attention, Depth, Length
from hskcache.values import columns as columns_module

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
WIDTHS = {"all": 1.0, "magnitude": 0.25, "uniform": 0.25, "pca": 0.5}


@pytest.fixture(scope="module")
def built(job_of: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Cache]:
    """40 rows by 10 shards, two layers in float32, by the scheme of their columns; with attention."""
    made: dict[str, Cache] = {}
    attention = Attention(depth=Depth(student_layers=2), length=Length(tokens=9), encoding="float32")

    def of(width: str) -> Cache:
        if width not in made:
            folder = tmp_path_factory.mktemp("values") / width
            build(job_of(f"9t_{WIDTHS[width]}h", width__scheme=width, attention=attention), folder)
            made[width] = open_cache(folder)
        return made[width]

    return of


@pytest.fixture(params=["tiny", "tiny-2", "added-2", "corpus-2", "grown-2"])
def golden(request: pytest.FixtureRequest) -> Cache:
    return open_cache(GOLDEN / f"{request.param}.hsk")


def assert_same(here: Any, there: Any) -> None:
    """Two rows by column, whatever holds them."""
    assert list(here) == list(there)
    for name, value in here.items():
        other = there[name]
        if value is None or np.ndim(value) == 0:
            assert value == other, name
        else:
            assert np.array_equal(np.asarray(value), np.asarray(other)), name


@pytest.mark.parametrize("width", WIDTHS)
def test_hidden_states_and_attention_are_the_teachers(width: str, built: Any, eager: Any) -> None:
    cache = built(width)
    for row in (cache[0], cache[-1], cache[17]):
        inputs = {name: torch.tensor(row[name].tolist())[None] for name in ("input_ids", "token_type_ids")}
        with torch.no_grad():
            output = eager(**inputs, output_hidden_states=True, output_attentions=True)
        assert np.allclose(row["logits"], output.logits[0].numpy(), atol=1e-5)
        for layer in cache.fields["hidden"].stored_layers:
            states = output.hidden_states[layer][0].numpy()[row[f"hidden.{layer}.positions"]]
            ours = row[f"hidden.{layer}"]
            assert ours.shape == states.shape
            kept = ours != 0
            if width != "pca":
                assert np.allclose(ours[kept], states[kept], atol=1e-5)
                assert (kept.sum(1) == round(WIDTHS[width] * states.shape[1])).all()
            else:
                assert np.abs(ours - states).mean() < np.abs(states - states.mean(0)).mean()
        for layer in cache.fields["attention"].stored_layers:
            places = row[f"attention.{layer}.positions"]
            maps = output.attentions[layer - 1][0].numpy()[:, places][:, :, places]
            scores = np.exp(row[f"attention.{layer}"])
            ours = scores / scores.sum(-1, keepdims=True)
            assert np.allclose(ours, maps / maps.sum(-1, keepdims=True), atol=1e-5)


def test_rows_are_the_same_one_by_one_in_slices_and_in_turn(golden: Cache) -> None:
    assert len(golden) == golden.num_rows == len(list(golden))
    part = golden[1:7:2]
    for place, index in enumerate(range(golden.num_rows)[1:7:2]):
        row = golden[index]
        assert list(row) == list(golden.columns)
        for name, value in row.items():
            assert np.array_equal(np.asarray(part[name][place]), np.asarray(-1 if value is None else value)), name
    for index, row in enumerate(golden):
        assert_same(row, golden[index])


def test_raw_arrays_are_what_is_stored(golden: Cache) -> None:
    rows = np.arange(golden.num_rows)
    inputs = read_rows(golden, "inputs", rows)
    assert np.concatenate(list(golden.column("input_ids"))).tolist() == inputs["input_ids"].tolist()
    assert golden.column("row_id").tolist() == inputs["row_ids"].tolist()
    if "logits" in golden.fields:
        assert golden.logits().tolist() == read_rows(golden, "logits", rows)["logits"].tolist()


def test_shapes_are_those_that_columns_tell(built: Any) -> None:
    cache = built("magnitude")
    assert cache.columns["logits"] == (2,)
    assert cache.columns["hidden.4"] == (None, 32)
    assert cache.columns["attention.4"] == (4, None, None)
    same = [row for row in range(40) if len(cache[row]["hidden.4"]) == 9]
    assert cache.hidden(4, range(same[0], same[0] + 1)).shape == (1, 9, 32)
    ragged = cache.hidden(4)
    assert isinstance(ragged, list)
    assert {states.shape[1] for states in ragged} == {32}
    empty = cache[5:5]
    assert empty["hidden.4"].shape == (0, 0, 32)
    assert empty["logits"].shape == (0, 2)
    assert cache.logits(3).shape == cache.logits((4, 7)).shape == (3, 2)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns_module, "BLOCK_BYTES", 500)


@pytest.mark.usefixtures("small_blocks")
def test_arrow_comes_in_blocks_and_holds_every_row(golden: Cache) -> None:
    reader = golden.to_arrow()
    batches = list(reader)
    assert list(reader.schema.names) == list(golden.columns)
    if "hidden" in golden.fields:
        assert len(batches) > len(golden.shards)
    rows = [row for batch in batches for row in batch.to_pylist()]
    assert len(rows) == len(golden)
    for row, ours in zip(rows, golden, strict=True):
        assert_same(
            ours,
            {
                name: np.asarray(value).reshape(np.shape(ours[name])) if isinstance(value, list) else value
                for name, value in row.items()
            },
        )


def test_a_frame_holds_the_same(golden: Cache) -> None:
    frame = golden.to_pandas((1, len(golden)))
    for place, index in enumerate(range(1, len(golden))):
        ours = golden[index]
        assert list(frame.columns) == list(ours)
        for name, value in ours.items():
            cell = frame[name].iloc[place]
            assert (cell != cell) if value is None else np.array_equal(cell, value), name


def test_columns_that_are_not_asked_for_are_not_read(tmp_path: Path) -> None:
    root = shutil.copytree(GOLDEN / "tiny-2.hsk", tmp_path / "c")
    whole = open_cache(root).to_arrow(columns=["logits", "input_ids"]).read_all()
    for shard in range(3):
        shard_file(root, "hidden", shard).unlink()
    again = open_cache(root).to_arrow(columns=["logits", "input_ids"]).read_all()
    assert again.equals(whole)
    assert again.schema.names == ["input_ids", "logits"]


@pytest.fixture
def own_hf_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.mark.usefixtures("own_hf_cache")
def test_a_data_set_holds_the_same(golden: Cache) -> None:
    data = golden.to_datasets(rows=3)
    assert len(data) == 3
    for row, ours in zip(data, golden, strict=False):
        assert list(row) == list(ours)
        for name, value in ours.items():
            assert (
                row[name] == value
                if value is None
                else np.array_equal(np.asarray(row[name]).reshape(np.shape(value)), value)
            ), name
    if "label" in golden.columns:
        assert data.features["label"].names == golden.manifest.request.data.label_names


@pytest.mark.usefixtures("own_hf_cache")
def test_states_are_written_as_saelens_caches_activations(built: Any, tmp_path: Path) -> None:
    cache = built("all")
    made = cache.to_datasets(4, hook_name="blocks.3.hook_resid_post", context_size=5)
    made.save_to_disk(tmp_path / "acts")
    # What ActivationsStore.load_cached_activation_dataset asks of it, and what it reads.
    read = datasets.load_from_disk(str(tmp_path / "acts"))
    assert read.features["blocks.3.hook_resid_post"].shape == (5, 32)
    read.set_format(type="torch", columns=["blocks.3.hook_resid_post", "token_ids"], dtype=torch.float32)
    states, tokens = read[:]["blocks.3.hook_resid_post"], read[:]["token_ids"]
    assert states.shape == (len(read), 5, 32)
    assert tokens.shape == (len(read), 5)
    flat = np.concatenate(cache.hidden(4))
    places, ids = cache.column("hidden.4.positions"), cache.column("input_ids")
    all_ids = np.concatenate([row[place] for row, place in zip(ids, places, strict=True)])
    whole = len(flat) // 5 * 5
    assert len(flat) - whole > 0
    assert np.array_equal(states.reshape(-1, 32).numpy(), flat[:whole])
    assert tokens.reshape(-1).tolist() == all_ids[:whole].tolist()
    with pytest.raises(MismatchError, match=r"fewer than 9999 states of hidden.4"):
        cache.to_datasets(4, context_size=9999)
    other = cache.to_datasets(4, hook_name="blocks.3.hook_resid_post", context_size=5, rows=10)
    assert 0 < len(other) < len(made)


def test_a_shard_is_a_group_of_zarr(built: Any) -> None:
    import zarr

    cache = built("magnitude")
    for one in (cache, cache.view("1l_2t_0.1h")):
        group, arrays = one.zarr("hidden", 3), one.read("hidden", 3)
        found = {name: array for name, array in group.members(max_depth=None) if isinstance(array, zarr.Array)}
        assert found.keys() == arrays.keys()
        for name, array in arrays.items():
            assert np.array_equal(found[name][...], array)
        assert group["layer_04/positions"].metadata.dimension_names == ("position",)
    with pytest.raises(MismatchError, match="no shard 99 of hidden"):
        cache.zarr("hidden", 99)


def test_views_have_the_face_of_a_cache(built: Any) -> None:
    cache = built("all")
    seen = cache.view("1l_2t_0.25h,rows=8:20")
    assert len(seen) == 12
    assert (
        list(seen.columns)
        == ["row_id", "input_ids", "token_type_ids", "label", "logits", "hidden.4", "hidden.4.positions"]
        or "attention.4" in seen.columns
    )
    for place in range(12):
        ours, whole = seen[place], cache[8 + place]
        assert ours["row_id"] == whole["row_id"]
        kept = ours["hidden.4"] != 0
        assert (kept.sum(1) == 8).all()
        assert np.array_equal(ours["hidden.4"][kept], whole["hidden.4"][:2][kept])


def test_names_that_do_not_exist_are_told_the_nearest(built: Any) -> None:
    cache = built("all")
    with pytest.raises(MismatchError, match=r"no column hidden.3; it has .*; do you mean 'hidden.[24]'"):
        cache.hidden(3)
    with pytest.raises(MismatchError, match="do you mean 'input_ids'"):
        cache.to_arrow(columns=["inputs_ids"])
    with pytest.raises(IndexError, match="has no row 40; it has 40"):
        cache[40]
    for rows in (slice(None, None, -1), range(5, 50), "5"):
        with pytest.raises(MismatchError, match="rows "):
            cache.logits(rows)


def test_a_notebook_is_shown_the_fields_and_nothing_that_a_stranger_wrote_is_markup(golden: Cache) -> None:
    request = golden.manifest.request
    named = request.model_copy(update={"data": request.data.model_copy(update={"name": "<script>x</script>"})})
    shown = Cache(golden.manifest.model_copy(update={"request": named}), golden.shelf)._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
    assert golden.id[:12] in shown
    for column in golden.columns:
        assert f"{column} [" in shown


def test_looking_needs_no_torch(golden: Cache) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; import hskcache, trainer;"
        f"cache = hskcache.open_cache({str(golden.root)!r}); len(cache); repr(cache); cache._repr_html_();"
        "cache.column('input_ids'); cache.to_arrow(columns=['input_ids', 'row_id']).read_all(); cache.zarr('inputs', 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=GOLDEN.parents[1])
