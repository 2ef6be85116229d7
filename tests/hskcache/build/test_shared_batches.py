"""Rows of small shards share the batches of the teacher, by which nothing else of a build or a repair is changed."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folders import contents
from forked import in_child
from stored import shard_file

from hskcache.build.addition import add_field, prepare_addition
from hskcache.build.batching import (
    BATCHES,
    NEWEST,
    WAYS,
    Batching,
    LeastPadding,
    ShardByShard,
    batching_of,
    told,
)
from hskcache.build.build import build
from hskcache.build.job import Job
from hskcache.build.writing import Writing
from hskcache.cache import open_cache
from hskcache.repair.recompute import recompute, source_of
from hskcache.store.additions import begin_field
from hskcache.store.ledger import Ledger
from hskcache.store.manifest import Manifest
from hskcache.store.reading import read_shard

SMALL = {"keep": "4t_0.25h", "encoding": "float32", "shard_rows": 2, "token_budget": 100}
"""Shards of two rows, of which a batch holds several."""


@pytest.fixture(scope="module")
def small(job_of: Any) -> Job:
    return job_of(**SMALL)


@pytest.fixture(scope="module")
def of_small(small: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("small") / "c"
    build(small, out)
    return out


def test_the_teacher_is_asked_for_full_batches(small: Job, tmp_path: Path) -> None:
    batches: list[int] = []

    def run() -> None:
        small.teacher.model.register_forward_pre_hook(
            lambda _module, _args, given: batches.append(given["input_ids"].numel()), with_kwargs=True
        )
        build(small, tmp_path / "c")
        groups = batching_of(small).groups
        assert len(groups) < len(small.layout.shards) / 2
        text = int(small.layout.lengths_N.sum())
        assert len(batches) < len(small.layout.shards)
        assert text <= sum(batches) < 1.2 * text

    assert in_child(run) == 0


def test_values_are_those_of_shards_that_are_computed_alone(small: Job, of_small: Path, tmp_path: Path) -> None:
    """But for the last bits, which the shape of a batch moves."""
    alone = Ledger(tmp_path / "alone")
    Writing(small, alone, {name: name for name in small.fields}, way=ShardByShard).write()
    cache = open_cache(of_small)
    for name, field in small.fields.items():
        for shard in range(len(cache.shards)):
            record = alone.record(name, shard)
            expected = read_shard(alone.shard_path(record), record, field)
            arrays = cache.read(name, shard)
            assert arrays.keys() == expected.keys()
            for key, array in arrays.items():
                np.testing.assert_allclose(array, expected[key], rtol=1e-4, atol=1e-5, err_msg=f"{name} {shard} {key}")


@pytest.mark.parametrize("lost", [("hidden",), ("hidden", "logits", "inputs")])
def test_some_shards_of_a_group_are_made_again_to_the_same_bytes(
    small: Job, of_small: Path, tmp_path: Path, lost: tuple[str, ...]
) -> None:
    out = Path(shutil.copytree(of_small, tmp_path / "c"))
    group = batching_of(small).groups[1]
    assert len(group) > 2
    for field in lost:
        for shard in (group[0], group[2]):
            shard_file(out, field, shard).unlink()
    reported: list[int] = []
    build(small, out, reported.append)
    assert contents(out) == contents(of_small)
    assert sum(reported) == len(small.rows)


def test_several_threads_write_what_one_does(small: Job, of_small: Path, tmp_path: Path) -> None:
    class Threaded(Writing):
        num_writers = 4

    whole, ledger = Ledger(of_small), Ledger(tmp_path / "c")
    Threaded(small, ledger, {name: name for name in small.fields}).write()
    for name in small.fields:
        for shard in range(len(small.layout.shards)):
            assert ledger.record(name, shard) == whole.committed(name, shard)


@pytest.fixture(scope="module", params=list(WAYS.values()), ids=lambda way: str(way.name))
def of_way(request: pytest.FixtureRequest, small: Job, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A way of making batches and a cache that was built by it, from its beginning."""
    way: type[Batching] = request.param
    out = tmp_path_factory.mktemp("way") / "c"
    ledger = Ledger(out)
    ledger.begin(small.request, told(way))
    build(small, out)
    return way, out


def test_the_ways_of_before_give_other_bits(of_way: tuple[Any, Path], of_small: Path) -> None:
    """Else the tests below could not tell one from the other. The newest counts long rows alone otherwise."""
    way, out = of_way
    manifest = open_cache(out).manifest
    assert manifest.environment.get(BATCHES) == way.name
    assert (manifest.cache_id == open_cache(of_small).manifest.cache_id) == (way in {LeastPadding, NEWEST})


def test_a_build_that_was_cut_off_goes_on_as_it_was_begun(of_way: tuple[Any, Path], small: Job, tmp_path: Path) -> None:
    way, whole = of_way
    out = tmp_path / "c"
    ledger = Ledger(out)
    ledger.begin(small.request, told(way))
    for name in small.fields:
        for shard, rows in enumerate(small.layout.shards):
            if shard % 2:
                ledger.commit(name, shard, rows, open_cache(whole).read(name, shard))
    build(small, out)
    assert contents(out) == contents(whole)


def test_a_cache_is_mended_and_completed_as_it_was_built(of_way: tuple[Any, Path], small: Job, tmp_path: Path) -> None:
    _, whole = of_way
    damaged, out = (Path(shutil.copytree(whole, tmp_path / name)) for name in ("damaged", "c"))
    manifest = open_cache(whole).manifest
    assert _mended(damaged, small, manifest) == manifest.shards["hidden"][3].sha256
    shard_file(out, "hidden", 3).unlink()
    build(small, out)
    assert contents(out) == contents(whole)


def test_a_field_that_was_being_added_is_added_as_it_was_begun(
    of_way: tuple[Any, Path], small: Job, tmp_path: Path
) -> None:
    way, of_teacher = of_way
    out = Path(shutil.copytree(of_teacher, tmp_path / "c"))
    addition = prepare_addition(small.teacher, open_cache(out), "logits", "more")
    added = addition.draft.added.model_copy(update={"environment": told(way)})
    begin_field(Ledger(out), "more", addition.draft.model_copy(update={"added": added}))
    manifest = add_field(addition)
    assert manifest.added["more"].environment.get(BATCHES) == way.name
    # The batches are those of the build, and so are the bits.
    assert [one.sha256 for one in manifest.shards["more"]] == [one.sha256 for one in manifest.shards["logits"]]


def _mended(root: Path, job: Job, manifest: Manifest) -> str:
    """Digest of a shard that was lost and is computed again."""
    cache, record = open_cache(root), manifest.shards["hidden"][3]
    shard_file(root, "hidden", 3).unlink()
    mended, reasons = recompute(source_of(job, cache), cache, [record])
    assert reasons == {}
    return mended[0].sha256
