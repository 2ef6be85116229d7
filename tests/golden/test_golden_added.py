"""Added fields as format version 1 was first written with them: read to the same values by every later version.

What they hold was typed in twice, here and in write_added.py; nothing writes the files again.
"""

from pathlib import Path

import pytest

from hskcache.cache import Cache, HiddenField, LogitsField, open_cache
from hskcache.verify import verify

ROOT = Path(__file__).resolve().parent / "added.hsk"
CACHE_ID = "1736d4a4a364e35973f4490fa12207187b7113510a79ae589dc4f2584b74f80c"
REQUEST_DIGEST = "8f6359fcbd37514e7409e4c7b56a86bd68a799936585f6a02e4b6a6caf829c24"
OWN_IDENTITY = "da3fc48ce0b79140009f724d9e679995883035c25ab4664b71ee7e16f4c15cf6"
S30_IDENTITY = "2c527f8982564e1cb7c7893bf0e13b5f02a5e719a3aea1a30b1558b143ce8ca5"


@pytest.fixture(scope="module")
def cache() -> Cache:
    return open_cache(ROOT)


def test_golden_files_are_all_there_and_whole() -> None:
    assert verify(ROOT).problems == []
    assert len([path for path in ROOT.rglob("*") if path.is_file()]) == 19


def test_digests_are_computed_as_they_were(cache: Cache) -> None:
    """A change of either identity would part every run over such a cache from its checkpoints."""
    assert cache.id == CACHE_ID
    assert cache.manifest.request.digest == REQUEST_DIGEST
    assert cache.identity(cache.manifest.own_fields) == OWN_IDENTITY
    assert cache.identity(("inputs", "s30")) == S30_IDENTITY


def test_provenance_of_each_field_is_read(cache: Cache) -> None:
    manifest = cache.manifest
    assert list(manifest.own_fields) == ["inputs", "logits"]
    assert set(manifest.added) == {"s30", "h2"}
    sparse, wide = manifest.request_for("s30"), manifest.request_for("h2")
    assert (sparse.teacher.name, sparse.teacher.weights_sha256, sparse.layers) == ("golden/sparse", "30" * 32, [])
    assert (wide.teacher.num_layers, wide.teacher.width) == (6, 2)
    assert [(pair.student, pair.teacher) for pair in wide.layers] == [(1, 6)]
    assert wide.spec.hidden is not None
    assert (wide.spec.hidden.depth.target, wide.spec.hidden.length.tokens) == (6, 1)
    assert wide.data == sparse.data == manifest.request.data
    assert manifest.added["s30"].environment == {"hskcache": "0.2.0"}
    assert cache.fields["s30"] == LogitsField(num_labels=2)
    assert cache.fields["h2"] == HiddenField(
        width=2, num_columns=2, columns="all", encoding="float32", layers=[6], max_tokens=1
    )


def test_values_are_read(cache: Cache) -> None:
    row = cache.row(2)
    assert row["logits"].tolist() == [2, -2]
    assert row["added"]["s30"].tolist() == [3, -1]
    assert {name: array.tolist() for name, array in row["added"]["h2"][6].items()} == {
        "positions": [0],
        "values": [[2, 0.5]],
    }
