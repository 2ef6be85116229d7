"""Write the golden cache to which rows were appended, and which lacks one: ``python tests/golden/write_grown.py``.

Like write.py it was run once and refuses to write over its files.
"""

import sys
from pathlib import Path

import numpy as np
from write import VOCABULARY
from write_added import arrays, own_request

from hskcache.store.appending import RowsDraft, begin_append, finish_append
from hskcache.store.files import write_atomic
from hskcache.store.ledger import Ledger
from hskcache.store.manifest import InputsField, LogitsField

ROOT = Path(__file__).resolve().parent / "grown.hsk"
FIELDS = {
    "inputs": InputsField(id_dtype="uint16", has_token_types=True, has_labels=True),
    "logits": LogitsField(num_labels=2),
}
SKIPPED = 1


def commit(ledger: Ledger, shard: int, first: int, rows: tuple[int, int]) -> None:
    """A shard of rows that are the same in every part, numbered from ``first`` in the cache."""
    start, stop = rows
    for name in FIELDS:
        content = arrays(name, start, stop)
        nonfinite = {}
        if name == "inputs":
            content["row_ids"] = np.arange(first + start, first + stop, dtype=np.int64)
        elif first + start <= SKIPPED < first + stop:
            content["logits"][SKIPPED - first - start] = 0
            nonfinite = {SKIPPED: 2}
        ledger.commit(name, shard, (first + start, first + stop), content, nonfinite)


def main() -> None:
    """Write the cache, of which row 1 has no logits, then append the same three rows once more."""
    if ROOT.exists():
        sys.exit(f"{ROOT} exists; golden files are written once")
    write_atomic(ROOT / "tokenizer" / "vocab.txt", "".join(f"{token}\n" for token in VOCABULARY).encode())
    write_atomic(ROOT / "tokenizer" / "tokenizer_config.json", b'{"tokenizer_class": "BertTokenizer"}\n')
    wanted, ledger = own_request(ROOT), Ledger(ROOT)
    for shard, rows in enumerate(wanted.shards):
        commit(ledger, shard, 0, rows)
    manifest = ledger.finish(wanted, FIELDS, {"hskcache": "0.1.0", "device": "none"})
    data = wanted.data.model_copy(update={"name": "more.tsv", "fingerprint": "0011223344556677" * 4})
    begin_append(ledger, manifest, data)
    for shard, rows in enumerate(wanted.shards):
        commit(ledger, wanted.num_shards + shard, wanted.num_rows, rows)
    finish_append(ledger, RowsDraft(data=data, start=wanted.num_rows), {})


if __name__ == "__main__":
    main()
