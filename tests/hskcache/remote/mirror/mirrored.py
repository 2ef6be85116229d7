"""What the tests of mirrors have in common: a cache of eight shards, and what is read of it."""

import shutil
from pathlib import Path

import numpy as np

from hskcache.cache import Cache, InputsField, LogitsField, open_cache
from hskcache.store.ledger import Ledger

GOLDEN = open_cache(Path(__file__).resolve().parents[3] / "golden" / "added.hsk")
NUM_SHARDS, SHARD_ROWS, NUM_LABELS = 8, 4, 4000
SHARD_BYTES = 4 * SHARD_ROWS * NUM_LABELS
"""Of the logits, which are noise that does not compress; the inputs are small beside them."""
PLENTY = 10**9


def write_cache(root: Path, seed: int = 0) -> Cache:
    """A cache of eight shards of logits, 64 kB each."""
    golden = GOLDEN.manifest.request
    num_rows = NUM_SHARDS * SHARD_ROWS
    data = golden.data.model_copy(update={"num_rows": num_rows, "fingerprint": str(seed)})
    request = golden.model_copy(update={"data": data, "shard_rows": SHARD_ROWS})
    draw = np.random.default_rng(seed)
    shutil.copytree(GOLDEN.tokenizer_path, root / "tokenizer")
    ledger = Ledger(root)
    for shard, (start, stop) in enumerate(request.shards):
        inputs = {
            "input_ids": draw.integers(0, 5, 3 * SHARD_ROWS).astype(np.uint16),
            "token_type_ids": np.zeros(3 * SHARD_ROWS, np.uint8),
            "row_offsets": np.arange(0, 3 * SHARD_ROWS + 1, 3, dtype=np.int64),
            "row_ids": np.arange(start, stop, dtype=np.int64),
            "labels": np.zeros(SHARD_ROWS, np.int64),
        }
        logits = draw.integers(0, 2**32, (SHARD_ROWS, NUM_LABELS), np.uint32).view(np.float32)
        ledger.commit("inputs", shard, (start, stop), inputs)
        ledger.commit("logits", shard, (start, stop), {"logits": logits})
    fields = {
        "inputs": InputsField(id_dtype="uint16", has_token_types=True, has_labels=True),
        "logits": LogitsField(num_labels=NUM_LABELS),
    }
    ledger.finish(request, fields, {})
    return open_cache(root)


def read_all(cache: Cache, shards: range = range(NUM_SHARDS)) -> list[bytes]:
    return [cache.read(field, shard)[name].tobytes() for shard in shards for field, name in ARRAYS.items()]


ARRAYS = {"inputs": "input_ids", "logits": "logits"}


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder, as far as they are not removed while we look."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def shards_in(local: Path) -> list[Path]:
    return sorted((local / "shards").glob("*.zarr.zip"))
