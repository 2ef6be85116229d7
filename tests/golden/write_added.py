"""Write the golden cache to which fields were added: ``python tests/golden/write_added.py``.

Like write.py it was run once and refuses to write over its files.
"""

import sys
from pathlib import Path

import numpy as np
from write import VOCABULARY, Arrays, request

from hskcache.spec import Depth, Hidden, Length
from hskcache.store.additions import FieldDraft, begin_field, finish_field
from hskcache.store.files import write_atomic
from hskcache.store.ledger import Ledger
from hskcache.store.manifest import Added, HiddenField, InputsField, LayerKept, LogitsField, Request

ROOT = Path(__file__).resolve().parent / "added.hsk"
ROWS = ((2, 4, 3), (2, 5, 6, 3), (2, 3))


def own_request(root: Path) -> Request:
    """What the cache was built with: logits alone."""
    task = request(root)
    spec = task.spec.model_copy(update={"hidden": None})
    data = task.data.model_copy(update={"num_rows": len(ROWS)})
    return task.model_copy(update={"spec": spec, "data": data, "shard_rows": 2, "layers": []})


def drafts(own: Request) -> dict[str, FieldDraft]:
    """Logits of a sparse version of the teacher, and hidden states of another teacher."""
    teacher = own.teacher.model_copy(update={"name": "golden/sparse", "weights_sha256": "30" * 32})
    spec = own.spec.model_copy(update={"shard_rows": 2})
    sparse = Added(teacher=teacher, spec=spec, environment={"hskcache": "0.2.0"})
    hidden = Hidden(depth=Depth(student_layers=1, target=6), length=Length(tokens=1), encoding="float32")
    wide = Added(
        teacher=own.teacher.model_copy(update={"weights_sha256": "ab" * 32, "num_layers": 6, "width": 2}),
        spec=spec.model_copy(update={"hidden": hidden}),
        layers=[LayerKept(student=1, teacher=6)],
    )
    field = HiddenField(width=2, num_columns=2, columns="all", encoding="float32", layers=[6], max_tokens=1)
    return {"s30": FieldDraft(field=LogitsField(num_labels=2), added=sparse), "h2": FieldDraft(field=field, added=wide)}


def arrays(name: str, start: int, stop: int) -> Arrays:
    """The rows; their logits (i, -i), one more in ``s30``; and the state of [CLS], (i, 0.5)."""
    rows, numbers = ROWS[start:stop], np.arange(start, stop, dtype=np.float32)
    ids = np.array([token for row in rows for token in row], np.uint16)
    return {
        "inputs": {
            "input_ids": ids,
            "token_type_ids": np.zeros(len(ids), np.uint8),
            "row_offsets": np.cumsum([0, *map(len, rows)], dtype=np.int64),
            "row_ids": np.arange(start, stop, dtype=np.int64),
            "labels": np.arange(start, stop, dtype=np.int64) % 2,
        },
        "logits": {"logits": np.stack([numbers, -numbers], axis=1)},
        "s30": {"logits": np.stack([numbers, -numbers], axis=1) + np.float32(1)},
        "h2": {
            "position_offsets": np.arange(stop - start + 1, dtype=np.int64),
            "layer_06/positions": np.zeros(stop - start, np.uint16),
            "layer_06/values": np.stack([numbers, np.full_like(numbers, 0.5)], axis=1),
        },
    }[name]


def main() -> None:
    """Write the cache, then add to it."""
    if ROOT.exists():
        sys.exit(f"{ROOT} exists; golden files are written once")
    write_atomic(ROOT / "tokenizer" / "vocab.txt", "".join(f"{token}\n" for token in VOCABULARY).encode())
    write_atomic(ROOT / "tokenizer" / "tokenizer_config.json", b'{"tokenizer_class": "BertTokenizer"}\n')
    wanted, ledger = own_request(ROOT), Ledger(ROOT)
    fields = {
        "inputs": InputsField(id_dtype="uint16", has_token_types=True, has_labels=True),
        "logits": LogitsField(num_labels=2),
    }
    for name in fields:
        for shard, (start, stop) in enumerate(wanted.shards):
            ledger.commit(name, shard, (start, stop), arrays(name, start, stop))
    ledger.finish(wanted, fields, {"hskcache": "0.1.0", "device": "none"})
    for name, draft in drafts(wanted).items():
        begin_field(ledger, name, draft)
        for shard, (start, stop) in enumerate(wanted.shards):
            ledger.commit(name, shard, (start, stop), arrays(name, start, stop))
        finish_field(ledger, name, draft)


if __name__ == "__main__":
    main()
