"""Rows that were appended are trained on like those that were there before."""

from pathlib import Path

import handmade
import numpy as np
import pytest

from hskcache.cache import Cache, open_cache
from hskcache.store.appending import RowsDraft, begin_append, finish_append
from hskcache.store.ledger import Ledger
from hskcache.store.manifest import DataInfo
from trainer.loading import KnowledgeLoader

NUM_OLD, NUM_NEW = 12, 8


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory, tiny_teacher_dir: Path, tsv_file: Path) -> Cache:
    """12 rows in shards of 5, 5 and 2, and the first 8 of them again in shards of 5 and 3."""
    root = tmp_path_factory.mktemp("grown") / "c"
    old = handmade.write(root, tiny_teacher_dir, tsv_file, handmade.Plan(num_rows=NUM_OLD))
    again = handmade.write(root.parent / "again", tiny_teacher_dir, tsv_file, handmade.Plan(num_rows=NUM_NEW))
    ledger, manifest = Ledger(root), old.manifest
    data: DataInfo = manifest.request.data.model_copy(update={"fingerprint": "1" * 64, "num_rows": NUM_NEW})
    begin_append(ledger, manifest, data)
    for shard, (start, stop) in enumerate(again.shards):
        for name in again.fields:
            arrays = again.read(name, shard)
            if name == "inputs":
                arrays["row_ids"] += NUM_OLD
            ledger.commit(name, len(old.shards) + shard, (NUM_OLD + start, NUM_OLD + stop), arrays)
    finish_append(ledger, RowsDraft(data=data, start=NUM_OLD), {})
    return open_cache(root)


@pytest.mark.parametrize("residency", ["device", "host", "stream"])
def test_every_row_comes_once_in_an_epoch_with_what_was_stored_of_it(grown: Cache, residency: str) -> None:
    loader = KnowledgeLoader(grown, batch_size=6, seed=3, residency=residency)  # type: ignore[arg-type]
    logits = {}
    for batch in loader:
        assert batch.logits is not None
        logits |= dict(zip(batch.row_ids, batch.logits.numpy(), strict=False))
    assert sorted(logits) == list(range(NUM_OLD + NUM_NEW))
    for row, found in logits.items():
        np.testing.assert_array_equal(found, grown.row(row)["logits"])
        if row >= NUM_OLD:
            np.testing.assert_array_equal(found, logits[row - NUM_OLD])
