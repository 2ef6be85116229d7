"""The bound of an estimate holds for the cache that is then built, and its guess is near."""

from pathlib import Path
from typing import Any

import pytest

from hskcache.build.build import build
from hskcache.build.estimate import estimate
from hskcache.cache import open_cache

SPECS: list[tuple[str, dict[str, Any]]] = [
    ("none", {}),
    ("full", {}),
    ("1l_1t_0.04h", {"shard_rows": 40}),
    ("4t_0.25h", {"encoding": "int4", "shard_rows": 1}),
    ("2l_0.5h", {"encoding": "bfloat16", "length__specials": False}),
    ("6t_0.5h", {"width__scheme": "pca", "shard_rows": 40}),
    ("6t_0.5h", {"width__scheme": "uniform", "length__score": "cls"}),
]


@pytest.mark.parametrize(("keep", "given"), SPECS)
def test_no_field_is_larger_than_the_bound_and_the_guess_is_within_a_third(
    keep: str, given: dict[str, Any], job_of: Any, tmp_path: Path
) -> None:
    job = job_of(keep, **given)
    guess = estimate(job)
    assert not (tmp_path / "c").exists()
    build(job, tmp_path / "c")
    cache = open_cache(tmp_path / "c")
    assert (guess.num_rows, guess.num_shards) == (cache.num_rows, len(cache.shards))
    assert list(guess.num_bytes) == list(guess.most_bytes) == list(cache.fields)
    for field in cache.fields:
        stored = sum(array.nbytes for shard in range(len(cache.shards)) for array in cache.read(field, shard).values())
        assert max(stored, cache.num_bytes(field)) <= guess.most_bytes[field]
        assert 0.75 < guess.num_bytes[field] / cache.num_bytes(field) < 1.33, field
    assert guess.seconds > 0


def test_the_bound_counts_every_kept_value(job_of: Any) -> None:
    """Uncompressed sizes by hand: 5 layers of 32 float32 and a position each, for every token."""
    job = job_of("full", depth__target=4, shard_rows=40)
    layers = len(job.layout.fields["hidden"].layers)
    tokens = int(job.layout.lengths_N.sum())
    raw = tokens * layers * (32 * 4 + 2) + 8 * 41
    bound = estimate(job).most_bytes["hidden"]
    assert raw <= bound < 1.3 * raw
    assert estimate(job).full_hidden_bytes == tokens * 5 * 32 * 4
