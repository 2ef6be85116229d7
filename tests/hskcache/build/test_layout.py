"""Shapes and sizes are known before the teacher runs, and are true."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from hskcache.build.kinds.abc import eligible_counts
from hskcache.build.kinds.hidden import position_bytes
from hskcache.build.layout import id_dtype, plan
from hskcache.errors import SpecError
from hskcache.resolved import hidden_field
from hskcache.spec import Hidden, Length, Spec, Width
from hskcache.teacher.load import Teacher
from hskcache.text import TokenizedRows


def test_special_tokens_after_the_first_are_not_counted_as_eligible() -> None:
    ids = [1, 8, 2, 9, 2, 1, 8, 9, 9, 2, 1, 3]
    rows = TokenizedRows(np.array(ids, np.int32), np.array([0, 5, 10, 12]), None, frozenset({0, 1, 2}))
    assert eligible_counts(Length(specials=False), rows).tolist() == [3, 4, 2]
    assert eligible_counts(Length(), rows).tolist() == [5, 5, 2]
    assert eligible_counts(Length(score="cls", specials=False), rows).tolist() == [1, 1, 1]
    nothing = dataclasses.replace(rows, special_ids=frozenset())
    assert eligible_counts(Length(specials=False), nothing).tolist() == [5, 5, 2]


@pytest.mark.parametrize(
    ("scheme", "fraction", "columns", "num_columns"),
    [
        ("magnitude", 1.0, "all", 32),
        ("magnitude", 0.25, "bitmask", 8),
        ("magnitude", 0.03, "indices", 1),
        ("uniform", 0.05, "shared", 1),
        ("random", 0.3, "shared", 10),
        ("pca", 0.3, "pca", 10),
        ("pca", 1.0, "all", 32),
        ("all", 1.0, "all", 32),
    ],
)
def test_columns_are_stored_in_the_smallest_of_the_ways_that_fit(
    teacher: Teacher, scheme: Any, fraction: float, columns: str, num_columns: int
) -> None:
    field = hidden_field(Hidden(width=Width(scheme=scheme, fraction=fraction)), teacher.info)
    assert (field.columns, field.num_columns) == (columns, num_columns)
    per_column = {"bitmask": 4, "indices": 2}.get(columns, 0)
    assert position_bytes(field) == 2 + num_columns + 4 + per_column


def test_more_tokens_than_any_row_has_are_no_error(job_of: Any) -> None:
    job = job_of("1l_999999999t_0.25h")
    assert np.array_equal(job.layout.kept_N["hidden"], job.layout.lengths_N)
    enormous = plan(Spec(hidden=Hidden(length=Length(tokens=10**30))), job.teacher.info, 2, job.rows)
    assert enormous.kept_N["hidden"].max() == job.layout.lengths_N.max()


def test_large_vocabularies_take_four_bytes_an_id(teacher: Teacher, job_of: Any) -> None:
    assert (id_dtype(65536), id_dtype(65537)) == ("uint16", "int32")
    job = job_of("none")
    large = teacher.info.model_copy(update={"vocab_size": 250_000})
    tokens = int(job.layout.lengths_N.sum())
    difference = plan(job.spec, large, 2, job.rows).num_bytes["inputs"] - job.layout.num_bytes["inputs"]
    assert difference == 2 * tokens


def test_the_size_of_a_shard_follows_the_size_of_a_row(job_of: Any) -> None:
    assert job_of("none", shard_rows=None).layout.shard_rows == 4096
    job = job_of("full", shard_rows=None)
    wide = job.teacher.info.model_copy(update={"width": 1 << 20})
    assert plan(job.spec, wide, 2, job.rows).shard_rows == 16


def test_shards_that_no_reader_would_accept_are_refused(job_of: Any) -> None:
    job = job_of("full", shard_rows=40)
    wide = job.teacher.info.model_copy(update={"width": 1 << 22})
    with pytest.raises(SpecError, match="--shard-rows"):
        plan(job.spec, wide, 2, job.rows)


def test_components_count_in_the_size_of_the_hidden_field(job_of: Any) -> None:
    job = job_of("1l_4t_0.5h", width__scheme="pca")
    wide = job.teacher.info.model_copy(update={"width": 4096})
    layout = plan(job.spec, wide, 2, job.rows)
    shards = sum(layout.most_bytes("hidden", *shard) for shard in layout.shards)
    # The mean and 2048 components of 4096 float32.
    assert layout.num_bytes["hidden"] - shards >= 4 * 4096 * 2049
