"""Write the golden cache of a corpus, with attention scores: ``python tests/golden/write_corpus.py``.

Like write.py it was run once and refuses to write over its files.
"""

import sys
from pathlib import Path

import numpy as np
from write import VOCABULARY, Arrays, request

from hskcache.spec import Attention, Depth, Length
from hskcache.store.files import write_atomic
from hskcache.store.ledger import Ledger
from hskcache.store.manifest import AttentionField, DataInfo, Field, InputsField, LayerKept, Request

ROOT = Path(__file__).resolve().parent / "corpus.hsk"
ROWS = ((2, 4, 6, 3), (2, 3), (2, 7, 5, 3))
SHARD_ROWS = 2
TOKENS = 3


def corpus_request(root: Path) -> Request:
    """What the cache was asked to hold."""
    task = request(root)
    attention = Attention(
        depth=Depth(student_layers=1, mapping="bottom", stored=[2]), length=Length(tokens=TOKENS), encoding="int4"
    )
    data = DataInfo(
        name="corpus.txt", fingerprint="0011223344556677" * 4, num_rows=len(ROWS), problem="text", label_names=[]
    )
    spec = task.spec.model_copy(update={"hidden": None, "attention": attention})
    changes = {"spec": spec, "data": data, "shard_rows": SHARD_ROWS, "layers": []}
    return task.model_copy(update=changes | {"attention_layers": [LayerKept(student=1, teacher=2)]})


def inputs(start: int, stop: int) -> Arrays:
    """The packed rows."""
    rows = ROWS[start:stop]
    ids = np.array([token for row in rows for token in row], np.uint16)
    return {
        "input_ids": ids,
        "token_type_ids": np.zeros(len(ids), np.uint8),
        "row_offsets": np.cumsum([0, *map(len, rows)], dtype=np.int64),
        "row_ids": np.arange(start, stop, dtype=np.int64),
    }


def attention(start: int, stop: int) -> Arrays:
    """int4 scores of two heads; a row of K positions has vectors of K values -3, -2, ..., scale 1, 2, ... by vector."""
    counts = [min(len(row), TOKENS) for row in ROWS[start:stop]]
    vectors = [count for count in counts for _ in range(2 * count)]
    packed = []
    for width in vectors:
        levels = [*range(-3, -3 + width), *([0] if width % 2 else [])]
        packed += [(low & 15) | (high & 15) << 4 for low, high in zip(levels[::2], levels[1::2], strict=True)]
    return {
        "position_offsets": np.cumsum([0, *counts], dtype=np.int64),
        "layer_02/positions": np.array([at for count in counts for at in reversed(range(count))], np.uint16),
        "layer_02/values": np.array(packed, np.uint8),
        "layer_02/scales": np.arange(1, len(vectors) + 1, dtype=np.float32),
    }


def main() -> None:
    """Write the cache."""
    if ROOT.exists():
        sys.exit(f"{ROOT} exists; golden files are written once")
    write_atomic(ROOT / "tokenizer" / "vocab.txt", "".join(f"{token}\n" for token in VOCABULARY).encode())
    write_atomic(ROOT / "tokenizer" / "tokenizer_config.json", b'{"tokenizer_class": "BertTokenizer"}\n')
    wanted = corpus_request(ROOT)
    fields: dict[str, Field] = {
        "inputs": InputsField(id_dtype="uint16", has_token_types=True, has_labels=False),
        "attention": AttentionField(
            num_heads=2, heads=[1, 0], teacher_heads=2, encoding="int4", layers=[2], max_tokens=TOKENS
        ),
    }
    ledger = Ledger(ROOT)
    for name, make in {"inputs": inputs, "attention": attention}.items():
        for shard, (start, stop) in enumerate(wanted.shards):
            ledger.commit(name, shard, (start, stop), make(start, stop))
    ledger.finish(wanted, fields, {"hskcache": "0.1.0", "device": "none"})


if __name__ == "__main__":
    main()
