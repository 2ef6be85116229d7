"""A view of the first values of embeddings: those that a build stores, or as near as what is stored can tell."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commanded import parsed, run
from embedders import WIDTH, embedder

from hskcache.cache import Cache, open_cache
from hskcache.encoded import ENCODED
from hskcache.errors import MismatchError, SpecError

DIMS = 7


@pytest.fixture(scope="module")
def teachers(tiny_tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    folder = tmp_path_factory.mktemp("teachers")
    return {
        normalized: embedder(tiny_tokenizer_dir, folder / str(normalized), "mean", ("Normalize",) * normalized)
        for normalized in (True, False)
    }


def built(teacher: Path, data: Path, out: Path, *options: object) -> Cache:
    asked = ("--teacher", teacher, "--data", data, "--text", "sentence", "--embedding", "model", "--device", "cpu")
    result = run("build", *asked, *options, "--out", out)
    assert result.exit_code == 0, result.output
    return open_cache(out)


def vectors(cache: Cache) -> Any:
    """All vectors of a cache, decoded."""
    return np.stack([np.asarray(cache[row]["embedding"]) for row in range(cache.num_rows)])


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("encoding", list(ENCODED))
def test_first_values_are_those_of_a_build(
    teachers: dict[bool, Path], tsv_file: Path, tmp_path: Path, encoding: str, normalized: bool
) -> None:
    teacher, options = teachers[normalized], ("--encoding", encoding)
    whole = built(teacher, tsv_file, tmp_path / "whole", *options)
    narrow = built(teacher, tsv_file, tmp_path / "narrow", *options, "--dims", DIMS)
    view = whole.view(dims=DIMS)
    assert view.manifest.request == narrow.manifest.request
    ours, all_values = vectors(view), vectors(whole)[:, :DIMS].astype(np.float64)
    expected = all_values / np.linalg.norm(all_values, axis=1, keepdims=True) if normalized else all_values
    # Of what is stored nothing is lost but a last rounding of floats.
    digits = {"float16": 2.0**-11, "bfloat16": 2.0**-8}.get(encoding, 2.0**-22)
    np.testing.assert_allclose(ours, expected, rtol=digits, atol=1e-7)
    is_exact = not normalized and encoding.startswith(("float", "bfloat"))
    if is_exact:
        assert np.array_equal(ours, vectors(narrow))
    out = tmp_path / "extracted"
    result = run("extract", whole.root, "--view", f"dims={DIMS}", "--out", out)
    assert result.exit_code == 0, result.output
    assert (open_cache(out).id == narrow.id) == is_exact
    assert np.array_equal(vectors(open_cache(out)), ours)
    assert run("verify", out).exit_code == 0
    audited = run("audit", out, "--teacher", teacher, "--device", "cpu")
    assert audited.exit_code == 0, audited.output


def test_the_bound_of_a_prefix_is_that_of_the_vectors_that_were_encoded(
    teachers: dict[bool, Path], tsv_file: Path, tmp_path: Path
) -> None:
    """Wider than of vectors that were encoded alone, and no wider than it must be."""
    whole = built(teachers[True], tsv_file, tmp_path / "whole", "--encoding", "int8")
    built(teachers[True], tsv_file, tmp_path / "narrow", "--encoding", "int8", "--dims", DIMS)
    field = whole.view(dims=DIMS).fields["embedding"]
    assert field.num_encoded == WIDTH  # type: ignore[attr-defined]
    assert run("extract", whole.root, "--view", f"dims={DIMS}", "--out", tmp_path / "view").exit_code == 0
    bounds = {
        name: parsed("audit", tmp_path / name, "--teacher", teachers[True], "--device", "cpu")["layers"][0]["bound"]
        for name in ("view", "narrow")
    }
    steps = np.abs(vectors(whole)).max(1) / 127 / np.linalg.norm(vectors(whole)[:, :DIMS], axis=1)
    assert bounds["narrow"] < bounds["view"] < 2 * steps.max()


def test_what_a_view_of_dims_cannot_be(teachers: dict[bool, Path], tsv_file: Path, tmp_path: Path) -> None:
    cache = built(teachers[True], tsv_file, tmp_path / "c", "--dims", 10)
    with pytest.raises(MismatchError, match=r"11 values are asked for, and 10 are stored; ask for at most 10"):
        cache.view("dims=11")
    with pytest.raises(SpecError, match=r"an embedding of .* has 32 values"):
        cache.view("dims=33")
    with pytest.raises(SpecError, match=r"dims is 0, which is not a number of values from 1 on"):
        cache.view("dims=0")
    assert cache.view("dims=10").manifest is cache.manifest
    assert str(cache.view("rows=4,dims=3").name).startswith("the view dims=3,rows=0:4")
