"""Rows of small shards share the batches of the teacher, by which nothing else of a build or a repair is changed."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folders import contents
from forked import in_child
from stored import shard_file

from hskcache.build.build import build
from hskcache.build.job import Job
from hskcache.build.layout import GROUP_BATCHES
from hskcache.build.writing import BATCHES, Writing
from hskcache.cache import open_cache
from hskcache.repair.recompute import recompute, source_of
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
        num_groups = len(small.layout.groups(100))
        assert num_groups < len(small.layout.shards) / 2
        assert len(batches) <= num_groups * GROUP_BATCHES
        assert np.mean(batches) > 70

    assert in_child(run) == 0


def test_values_are_those_of_shards_that_are_computed_alone(small: Job, of_small: Path, tmp_path: Path) -> None:
    """But for the last bits, which the shape of a batch moves."""
    alone = Ledger(tmp_path / "alone")
    Writing(small, alone, {name: name for name in small.fields}, shares_batches=False).write()
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
    group = small.layout.groups(100)[1]
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


def test_a_cache_of_before_is_repaired_as_it_was_built(small: Job, of_small: Path, tmp_path: Path) -> None:
    """Its environment tells nothing of batches, and each of its shards was computed by itself."""
    out = tmp_path / "c"
    ledger = Ledger(out)
    shutil.copytree(of_small / "tokenizer", out / "tokenizer")
    names = {name: name for name in small.fields}
    Writing(small, ledger, names, shares_batches=False).write()
    manifest = ledger.finish(small.request, small.fields, {})
    assert BATCHES in open_cache(of_small).manifest.environment
    for root, known in ((out, manifest), (of_small, open_cache(of_small).manifest)):
        copy = Path(shutil.copytree(root, tmp_path / f"damaged-{root.name}-{len(known.environment)}"))
        assert _mended(copy, small, known) == known.shards["hidden"][3].sha256
    assert json.loads((out / "manifest.json").read_text())["environment"] == {}


def _mended(root: Path, job: Job, manifest: Manifest) -> str:
    """Digest of a shard that was lost and is computed again."""
    cache, record = open_cache(root), manifest.shards["hidden"][3]
    shard_file(root, "hidden", 3).unlink()
    mended, reasons = recompute(source_of(job, cache), cache, [record])
    assert reasons == {}
    return mended[0].sha256
