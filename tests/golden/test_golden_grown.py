"""Appended rows and rows that were left out, as format version 1 was first written with them.

What they hold was typed in twice, here and in write_grown.py; nothing writes the files again.
"""

from pathlib import Path

import numpy as np
import pytest

from hskcache.cache import Cache, open_cache
from hskcache.store.record import Skipped
from hskcache.verify import verify

ROOT = Path(__file__).resolve().parent / "grown.hsk"
CACHE_ID = "4f2435d4ce525edb42dc476a00ee8d249ea15d661f361b5e7332e1e375aa98b5"
REQUEST_DIGEST = "56ea1e38aa0e866ae94e7269033e7bdd7939bd328efea50d664471eed325d47d"
APPENDED_ALONE = "2b9ad3d04c2271111e9580d6a625737b444b726d1de64202fb437171c8ba62c4"
CHECKSUM = "8b27a54f8701dbd5cfd9f14207986d6221b77bb5d853dff39d50deb8b1d4447d"


@pytest.fixture(scope="module")
def cache() -> Cache:
    return open_cache(ROOT)


def test_golden_grown_files_are_all_there_and_whole() -> None:
    report = verify(ROOT)
    assert report.problems == []
    assert report.skipped == {"logits": [Skipped(row=1, reason="nonfinite")]}
    assert len([path for path in ROOT.rglob("*") if path.is_file()]) == 19


def test_digests_and_the_checksum_are_computed_as_they_were(cache: Cache) -> None:
    assert cache.id == CACHE_ID
    assert cache.manifest.request.digest == REQUEST_DIGEST
    assert cache.manifest.subset(["logits"], range(2, 4)).cache_id == APPENDED_ALONE
    assert (ROOT / "manifest.json").read_text().endswith(f',\n "checksum": "{CHECKSUM}"\n}}\n')


def test_parts_and_their_shards_are_read(cache: Cache) -> None:
    assert [(part.name, part.num_rows) for part in cache.manifest.request.parts] == [("golden.tsv", 3), ("more.tsv", 3)]
    assert cache.shards == [(0, 2), (2, 3), (3, 5), (5, 6)]
    assert cache.skipped(cache.fields).tolist() == [1]


def test_values_of_all_parts_are_read(cache: Cache) -> None:
    rows = [cache.row(row) for row in range(6)]
    assert [row["row_id"] for row in rows] == list(range(6))
    assert [row["logits"].tolist() for row in rows] == [[0, 0], [0, 0], [2, -2], [0, 0], [1, -1], [2, -2]]
    for row in range(3):
        assert np.array_equal(rows[row]["input_ids"], rows[row + 3]["input_ids"])
