"""Caches of noise for tests of transport: eight shards of five rows, token ids, logits and hidden states."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hskcache.cache import Cache, Field, HiddenField, InputsField, LogitsField, open_cache
from hskcache.store.additions import FieldDraft, begin_field, finish_field
from hskcache.store.ledger import Ledger
from hskcache.store.manifest import Added

GOLDEN = open_cache(Path(__file__).resolve().parent / "golden" / "tiny.hsk")
NUM_SHARDS, SHARD_ROWS, NUM_LABELS = 8, 5, 2000
FIELDS = ("inputs", "logits", "hidden_uniform")


def write_cache(root: Path, seed: int = 0, appended: int = 0) -> Cache:
    """A complete cache; ``appended`` rows come after its 40, in shards of their own."""
    golden = GOLDEN.manifest.request
    data = golden.data.model_copy(update={"num_rows": NUM_SHARDS * SHARD_ROWS, "fingerprint": str(seed)})
    more = [data.model_copy(update={"num_rows": appended, "fingerprint": f"{seed} more"})] if appended else []
    request = golden.model_copy(update={"data": data, "shard_rows": SHARD_ROWS, "appended": more})
    shutil.copytree(GOLDEN.tokenizer_path, root / "tokenizer")
    ledger = Ledger(root)
    for shard, rows in enumerate(request.shards):
        for name, arrays in _arrays(seed, shard, rows).items():
            ledger.commit(name, shard, rows, arrays)
    ledger.commit_constants("hidden_uniform", GOLDEN.constants("hidden_uniform"))
    fields: dict[str, Field] = {
        "inputs": InputsField(id_dtype="uint16", has_token_types=True, has_labels=True),
        "logits": LogitsField(num_labels=NUM_LABELS),
        "hidden_uniform": GOLDEN.fields["hidden_uniform"],
    }
    ledger.finish(request, fields, {"hskcache": "0"})
    return open_cache(root)


def add_logits(cache: Cache, name: str) -> Cache:
    """Add another teacher's logits to a cache, where it stands."""
    ledger, request = Ledger(cache.root), cache.manifest.request
    teacher = request.teacher.model_copy(update={"weights_sha256": "1" * 64})
    draft = FieldDraft(field=LogitsField(num_labels=2), added=Added(spec=request.spec, teacher=teacher))
    begin_field(ledger, name, draft)
    for shard, (start, stop) in enumerate(request.shards):
        ledger.commit(name, shard, (start, stop), {"logits": np.full((stop - start, 2), shard, np.float32)})
    finish_field(ledger, name, draft)
    return open_cache(cache.root)


def files(root: Path) -> dict[str, bytes]:
    """Content of every file but the card and the list of the tokenizer's files, which a push adds."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.name not in {"README.md", ".tokenizer.json"}
    }


def _arrays(seed: int, shard: int, rows: tuple[int, int]) -> dict[str, dict[str, NDArray[Any]]]:
    draw, num_rows = np.random.default_rng([seed, shard]), rows[1] - rows[0]
    hidden: HiddenField = GOLDEN.fields["hidden_uniform"]  # type: ignore[assignment]
    return {
        "inputs": {
            "input_ids": draw.integers(0, 5, 3 * num_rows).astype(np.uint16),
            "token_type_ids": np.zeros(3 * num_rows, np.uint8),
            "row_offsets": np.arange(0, 3 * num_rows + 1, 3, dtype=np.int64),
            "row_ids": np.arange(*rows, dtype=np.int64),
            "labels": np.zeros(num_rows, np.int64),
        },
        "logits": {"logits": draw.integers(0, 2**32, (num_rows, NUM_LABELS), np.uint32).view(np.float32)},
        "hidden_uniform": {
            "layer_04/positions": np.zeros(num_rows, np.uint16),
            "layer_04/values": draw.integers(0, 100, (num_rows, hidden.num_columns)).astype(np.int16),
            "position_offsets": np.arange(num_rows + 1, dtype=np.int64),
        },
    }
