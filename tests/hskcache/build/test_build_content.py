"""A cache holds what the eager model computes for each row alone: the same positions, columns and values."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from direct import CLOSE, Direct, assert_best, direct
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel

from hskcache.build.build import build
from hskcache.build.job import Job
from hskcache.cache import Cache, open_cache
from hskcache.encoding import get_encoding
from hskcache.encoding.bitmask import unpack_columns
from hskcache.selection.columns import uniform_columns
from hskcache.selection.width import random_columns
from hskcache.spec import Hidden
from hskcache.store.fields import HiddenField
from hskcache.teacher.load import load_teacher
from hskcache.text import Examples
from hskcache.verify import verify

SCORES = ["attention", "attention-logit", "received", "left", "right", "random", "cls"]
WIDTHS = ["uniform", "random", "pca"]
ENCODINGS = ["float32", "float16", "bfloat16", "int8", "int4"]
# Every third row, and so rows of every shard.
LOOKED_AT = range(0, 40, 3)


@pytest.fixture(scope="module")
def reference(eager: PreTrainedModel) -> Callable[[Job, int], Direct]:
    """The eager model on one row of a job, padded to the longest of all rows; each row once."""
    known: dict[tuple[int, ...], Direct] = {}

    def run(job: Job, row: int) -> Direct:
        where = slice(job.rows.offsets[row], job.rows.offsets[row + 1])
        ids, types = job.rows.input_ids[where].tolist(), job.rows.token_type_ids[where].tolist()
        key = (*ids, *types)
        if key not in known:
            known[key] = direct(eager, ids, types, int(job.rows.lengths.max()))
        return known[key]

    return run


def built(job: Job, out: Path) -> Cache:
    build(job, out)
    assert verify(out).ok
    return open_cache(out)


def eligible(hidden: Hidden, ids: list[int], special: frozenset[int]) -> list[int]:
    if hidden.length.score == "cls":
        return [0]
    return [i for i, token in enumerate(ids) if i == 0 or hidden.length.specials or token not in special]


def values_of(field: HiddenField, arrays: dict[str, Any]) -> Tensor:
    parts = {name: torch.from_numpy(array) for name, array in arrays.items() if name in {"values", "scales"}}
    return get_encoding(field.encoding).decode(parts, field.num_columns)


def columns_of(field: HiddenField, arrays: dict[str, Any], shared: dict[str, Any], layer: int) -> Tensor | None:
    """Kept columns of every position, [P, W]; None where they are components."""
    num = len(arrays["positions"])
    if field.columns == "pca":
        return None
    if field.columns == "bitmask":
        return unpack_columns(torch.from_numpy(arrays["bitmask"]), field.num_columns, field.width)
    if field.columns == "indices":
        return torch.from_numpy(arrays["columns"].astype(np.int64))
    if field.columns == "shared":
        return torch.from_numpy(shared[f"layer_{layer:02d}/columns"].astype(np.int64)).expand(num, -1)
    return torch.arange(field.width).expand(num, -1)


def check(cache: Cache, job: Job, reference: Callable[[Job, int], Direct]) -> None:
    """Compare rows of a cache with the eager model's."""
    hidden, field = job.spec.hidden, cache.fields["hidden"]
    assert hidden is not None
    assert isinstance(field, HiddenField)
    shared = cache.constants("hidden")
    for row in LOOKED_AT:
        stored, expected = cache.row(row), reference(job, row)
        assert stored["row_id"] == row
        ids = stored["input_ids"].tolist()
        assert len(ids) == len(expected.hidden[0])
        torch.testing.assert_close(torch.from_numpy(stored["logits"]), expected.logits, rtol=CLOSE, atol=CLOSE)
        for layer in field.layers:
            arrays = stored["hidden"][layer]
            positions = arrays["positions"].tolist()
            one_for_all = {"last": 3, "mapped": (hidden.depth.target or 4) - 1}
            source = one_for_all.get(hidden.length.score_layer, max(layer - 1, 0))
            ranking = expected.ranking(hidden.length.score, source, row, hidden.length.seed)
            assert_best(positions, ranking, eligible(hidden, ids, job.rows.special_ids), hidden.length.tokens)
            check_values(field, arrays, shared, (layer, expected.hidden[layer][positions]))


def check_values(field: HiddenField, arrays: dict[str, Any], shared: dict[str, Any], truth: tuple[int, Tensor]) -> None:
    """The kept states [P, D] are stored at the right columns, within the bound of their encoding."""
    layer, states = truth
    columns = columns_of(field, arrays, shared, layer)
    if columns is None:
        mean, basis = (torch.from_numpy(shared[f"layer_{layer:02d}/{name}"]) for name in ("mean", "basis"))
        kept = (states - mean) @ basis.T
    else:
        kept = states.gather(1, columns)
    if field.columns in {"bitmask", "indices"}:
        assert bool((columns[:, 1:] > columns[:, :-1]).all())
        dropped = states.abs().scatter(1, columns, -1.0)
        assert bool((kept.abs().min(1).values + CLOSE >= dropped.max(1).values).all())
    assert kept.shape[1] == field.num_columns
    error = (values_of(field, arrays) - kept).abs()
    assert bool((error <= get_encoding(field.encoding).bound(kept) + 4 * CLOSE).all())


@pytest.mark.parametrize("score", SCORES)
def test_positions_are_the_best_of_each_score(score: str, job_of: Any, reference: Any, tmp_path: Path) -> None:
    job = job_of("4t_0.25h", encoding="int8", length__score=score, length__seed=7)
    check(built(job, tmp_path / "c"), job, reference)


@pytest.mark.parametrize("score", ["attention", "received"])
def test_positions_of_every_layer_may_be_scored_by_the_last(
    score: str, job_of: Any, reference: Any, tmp_path: Path
) -> None:
    job = job_of("5t", length__score=score, length__score_layer="last")
    cache = built(job, tmp_path / "c")
    check(cache, job, reference)
    layers = cache.row(0)["hidden"]
    assert all(np.array_equal(layers[layer]["positions"], layers[4]["positions"]) for layer in layers)


def test_positions_of_every_layer_may_be_scored_by_the_last_of_the_map(
    job_of: Any, reference: Any, tmp_path: Path
) -> None:
    """Student layers 1 and 2 take teacher layers 2 and 3 of 4: the attention that made layer 3 scores both."""
    job = job_of("2l_5t", length__score_layer="mapped", depth__target=3)
    cache = built(job, tmp_path / "c")
    check(cache, job, reference)
    layers = cache.row(0)["hidden"]
    assert list(layers) == [2, 3]
    assert np.array_equal(layers[2]["positions"], layers[3]["positions"])


def test_any_student_layers_may_be_kept(job_of: Any, reference: Any, tmp_path: Path) -> None:
    job = job_of("3t_0.25h", depth__kept=[1, 0])
    cache = built(job, tmp_path / "c")
    check(cache, job, reference)
    assert [(pair.student, pair.teacher) for pair in cache.manifest.request.layers] == [(0, 0), (1, 2)]
    assert list(cache.row(0)["hidden"]) == [0, 2]
    # The top ones by another name are the same cache.
    by_number, by_count = (job_of("3t", depth__kept=[2]), job_of("1l_3t"))
    assert by_number.request.digest == by_count.request.digest
    assert job_of("3t", depth__kept=[2, 1, 0]).request.digest == job_of("3t").request.digest


@pytest.mark.parametrize("score", ["attention", "all"])
def test_without_a_number_of_tokens_every_position_is_kept_in_order(
    score: str, job_of: Any, reference: Any, tmp_path: Path
) -> None:
    job = job_of("2l_0.5h", length__score=score)
    check(built(job, tmp_path / "c"), job, reference)


@pytest.mark.parametrize("scheme", WIDTHS)
def test_columns_are_those_of_each_scheme(scheme: str, job_of: Any, reference: Any, tmp_path: Path) -> None:
    job = job_of("4t_0.3h", width__scheme=scheme, width__seed=3)
    cache = built(job, tmp_path / "c")
    check(cache, job, reference)
    shared = cache.constants("hidden")
    expected = {"uniform": uniform_columns(32, 0.3), "random": random_columns(32, 10, 3).tolist()}
    if scheme in expected:
        assert all(array.tolist() == expected[scheme] for array in shared.values())


def test_the_width_s_seed_and_the_length_s_seed_both_count(job_of: Any, tmp_path: Path) -> None:
    def first(seed: int) -> tuple[Any, Any]:
        job = job_of("1l_4t_0.25h", length__score="random", length__seed=seed, width__scheme="random", width__seed=seed)
        cache = built(job, tmp_path / f"{seed}")
        return cache.row(1)["hidden"][4]["positions"].tolist(), cache.constants("hidden")["layer_04/columns"].tolist()

    one, other = first(1), first(2)
    assert one[0] != other[0]
    assert one[1] != other[1]


def test_few_columns_are_stored_as_indices(job_of: Any, reference: Any, tmp_path: Path) -> None:
    job = job_of("1l_4t_0.03h")
    cache = built(job, tmp_path / "c")
    assert cache.fields["hidden"].columns == "indices"  # type: ignore[union-attr]
    check(cache, job, reference)


def test_components_hold_as_much_of_the_variance_as_any_directions_can(
    job_of: Any, reference: Any, tmp_path: Path
) -> None:
    job = job_of("1l_0.25h", width__scheme="pca")
    shared = built(job, tmp_path / "c").constants("hidden")
    basis = torch.from_numpy(shared["layer_04/basis"]).double()
    torch.testing.assert_close(basis @ basis.T, torch.eye(8, dtype=torch.float64), atol=1e-6, rtol=0)
    states = torch.cat([reference(job, row).hidden[4] for row in range(len(job.rows))]).double()
    assert np.allclose(shared["layer_04/mean"], states.mean(0), atol=1e-5)
    centred = states - states.mean(0)
    best = torch.linalg.svdvals(centred)[:8].square().sum()
    assert float((centred @ basis.T).square().sum()) == pytest.approx(float(best), rel=1e-6)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("keep", ["6t_0.5h", "full"])
def test_values_are_within_the_bound_of_each_encoding(
    keep: str, encoding: str, job_of: Any, reference: Any, tmp_path: Path
) -> None:
    job = job_of(keep, encoding=encoding)
    check(built(job, tmp_path / "c"), job, reference)


@pytest.mark.parametrize("score", ["attention", "random", "left"])
def test_no_separator_of_a_pair_is_kept_without_specials(
    score: str, pairs: Examples, job_of: Any, reference: Any, tmp_path: Path
) -> None:
    job = job_of("9t_0.25h", pairs, length__score=score, length__specials=False)
    cache = built(job, tmp_path / "c")
    check(cache, job, reference)
    separator = job.teacher.tokenizer.sep_token_id
    for row in range(len(pairs)):
        stored = cache.row(row)
        assert stored["input_ids"].tolist().count(separator) == 2
        assert stored["token_type_ids"].max() == 1
        for arrays in stored["hidden"].values():
            assert separator not in stored["input_ids"][arrays["positions"]]


def test_inputs_are_those_of_the_tokenizer_and_labels_those_of_the_data(
    examples: Examples, job_of: Any, tmp_path: Path
) -> None:
    job = job_of("none")
    cache = built(job, tmp_path / "c")
    assert list(cache.fields) == ["inputs", "logits"]
    assert cache.manifest.request.data.label_names == ["0", "1"]
    for row, text in enumerate(examples.texts):
        stored = cache.row(row)
        alone = job.teacher.tokenizer(text)
        assert stored["input_ids"].tolist() == alone["input_ids"]
        assert stored["token_type_ids"].tolist() == alone["token_type_ids"]
        assert stored["label"] == examples.labels[row]  # type: ignore[index]


def test_rows_without_labels_make_a_cache_without_labels(unlabelled: Examples, job_of: Any, tmp_path: Path) -> None:
    cache = built(job_of("1l_2t_0.25h", unlabelled), tmp_path / "c")
    assert not cache.fields["inputs"].has_labels  # type: ignore[union-attr]
    assert "label" not in cache.row(0)


def test_a_regression_teacher_gives_one_score_beside_float_labels(
    scored: Examples, tiny_teacher_dir: Path, job_of: Any, tmp_path: Path
) -> None:
    config = BertConfig.from_pretrained(tiny_teacher_dir, num_labels=1, problem_type="regression")
    BertForSequenceClassification(config).save_pretrained(tmp_path / "regression")
    job_of("none").teacher.tokenizer.save_pretrained(tmp_path / "regression")
    regression = load_teacher(str(tmp_path / "regression"), "cpu")
    cache = built(job_of("1l_2t_0.25h", scored, by=regression), tmp_path / "c")
    assert cache.manifest.request.data.problem == "regression"
    assert cache.read("logits", 0)["logits"].shape == (4, 1)
    labels = np.concatenate([cache.read("inputs", shard)["labels"] for shard in range(len(cache.shards))])
    assert labels.dtype == np.float32
    assert np.array_equal(labels, scored.labels)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_teacher_of_16_bits_builds_a_cache_close_to_that_of_32(
    dtype: Any, tiny_teacher_dir: Path, job_of: Any, reference: Any, tmp_path: Path
) -> None:
    half = load_teacher(str(tiny_teacher_dir), "cpu", dtype)
    job = job_of("1l", by=half, compute_dtype=dtype)
    cache = built(job, tmp_path / "c")
    for row in LOOKED_AT:
        found = torch.from_numpy(cache.row(row)["hidden"][4]["values"])
        assert float((found - reference(job, row).hidden[4]).abs().mean()) < 0.05
