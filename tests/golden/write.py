"""Write the golden cache of format version 1 beside this file: ``python tests/golden/write.py``.

It was run once. The files stay as they are for as long as format version 1 is read, which is why this script refuses to
write over them and no test runs it; it shows what the files were made from.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hskcache.spec import Depth, Hidden, Length, Spec, Width
from hskcache.store.files import write_atomic
from hskcache.store.ledger import Ledger
from hskcache.store.manifest import (
    DataInfo,
    Field,
    HiddenField,
    InputsField,
    LayerKept,
    LogitsField,
    Request,
    TeacherInfo,
    TokenizerInfo,
)
from hskcache.store.tokenizer import tokenizer_digest

Arrays = dict[str, NDArray[Any]]

ROOT = Path(__file__).resolve().parent / "tiny.hsk"
VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "very")
ROWS = ((2, 4, 6, 3), (2, 5, 3), (2, 7, 4, 6, 3), (2, 3), (2, 7, 5, 3))
LABELS = (1, 0, 1, 0, 0)
SHARD_ROWS = 2
TOKENS = 2
WIDTH = 16
LAYERS = (2, 4)


def request(root: Path) -> Request:
    """What the cache was asked to hold."""
    return Request(
        spec=Spec(
            hidden=Hidden(
                depth=Depth(student_layers=2, target=4, num_layers=2),
                length=Length(tokens=TOKENS),
                width=Width(fraction=0.2),
            ),
            max_length=8,
            shard_rows=SHARD_ROWS,
        ),
        teacher=TeacherInfo(
            name="golden/teacher",
            revision="1",
            weights_sha256="0123456789abcdef" * 4,
            config={"hidden_size": WIDTH, "layer_norm_eps": 1e-12, "_name_or_path": "golden/teacher"},
            model_type="bert",
            num_layers=4,
            num_heads=2,
            width=WIDTH,
            vocab_size=len(VOCABULARY),
        ),
        tokenizer=TokenizerInfo(
            sha256=tokenizer_digest(root / "tokenizer"),
            vocab_size=len(VOCABULARY),
            pad_token_id=0,
            has_token_types=True,
        ),
        data=DataInfo(
            name="golden.tsv",
            split="train",
            fingerprint="fedcba9876543210" * 4,
            num_rows=len(ROWS),
            task="sst2",
            problem="classification",
            label_names=["0", "1"],
        ),
        shard_rows=SHARD_ROWS,
        layers=[LayerKept(student=1, teacher=2), LayerKept(student=2, teacher=4)],
    )


def inputs(start: int, stop: int) -> Arrays:
    """The tokenized rows; the token type is 1 from the second half of a row on."""
    rows = ROWS[start:stop]
    return {
        "input_ids": np.array([token for row in rows for token in row], np.uint16),
        "token_type_ids": np.array([int(2 * at >= len(row)) for row in rows for at in range(len(row))], np.uint8),
        "row_offsets": np.cumsum([0, *map(len, rows)], dtype=np.int64),
        "row_ids": np.arange(start, stop, dtype=np.int64),
        "labels": np.array(LABELS[start:stop], np.int64),
    }


def logits(start: int, stop: int) -> Arrays:
    """Row i has logits [i + 0.5, -i]."""
    return {"logits": np.array([[row + 0.5, -row] for row in range(start, stop)], np.float32)}


def hidden(start: int, stop: int) -> Arrays:
    """int8 values with a bitmask. Row i keeps positions 0 and 1; its columns are i, i + 5 and i + 10."""
    num_positions = TOKENS * (stop - start)
    rows = np.repeat(np.arange(start, stop), TOKENS)
    mask = np.zeros((num_positions, WIDTH), np.uint8)
    for step in (0, 5, 10):
        mask[np.arange(num_positions), rows + step] = 1
    arrays: Arrays = {"position_offsets": np.arange(0, num_positions + 1, TOKENS, dtype=np.int64)}
    for layer in LAYERS:
        arrays[f"layer_{layer:02d}/positions"] = np.tile(np.arange(TOKENS, dtype=np.uint16), stop - start)
        arrays[f"layer_{layer:02d}/values"] = np.stack([-rows * layer, rows + 100, np.full(len(rows), 127)], 1).astype(
            np.int8
        )
        arrays[f"layer_{layer:02d}/scales"] = (rows + 1).astype(np.float32) / 8
        arrays[f"layer_{layer:02d}/bitmask"] = np.packbits(mask, axis=1, bitorder="little")
    return arrays


def hidden_uniform(start: int, stop: int) -> Arrays:
    """bfloat16 bits of the [CLS] state in columns that all rows share: row i holds 1.0 in all but 2.0 in the last."""
    count = stop - start
    return {
        "position_offsets": np.arange(count + 1, dtype=np.int64),
        "layer_04/positions": np.zeros(count, np.uint16),
        "layer_04/values": np.tile(np.array([0x3F80, 0x3F80, 0x4000], np.int16), (count, 1)),
    }


def main() -> None:
    """Write the cache."""
    if ROOT.exists():
        sys.exit(f"{ROOT} exists; golden files are written once")
    write_atomic(ROOT / "tokenizer" / "vocab.txt", "".join(f"{token}\n" for token in VOCABULARY).encode())
    write_atomic(ROOT / "tokenizer" / "tokenizer_config.json", b'{"tokenizer_class": "BertTokenizer"}\n')
    wanted = request(ROOT)
    fields: dict[str, Field] = {
        "inputs": InputsField(id_dtype="uint16", has_token_types=True, has_labels=True),
        "logits": LogitsField(num_labels=2),
        "hidden": HiddenField(
            width=WIDTH, num_columns=3, columns="bitmask", encoding="int8", layers=list(LAYERS), max_tokens=TOKENS
        ),
        "hidden_uniform": HiddenField(
            width=WIDTH, num_columns=3, columns="shared", encoding="bfloat16", layers=[4], max_tokens=1
        ),
    }
    ledger = Ledger(ROOT)
    makers = {"inputs": inputs, "logits": logits, "hidden": hidden, "hidden_uniform": hidden_uniform}
    for name, make in makers.items():
        for shard, (start, stop) in enumerate(wanted.shards):
            ledger.commit(name, shard, (start, stop), make(start, stop))
    ledger.commit_constants("hidden_uniform", {"layer_04/columns": np.array([0, 5, 10], np.uint16)})
    ledger.finish(wanted, fields, {"hskcache": "0.1.0", "device": "none"})


if __name__ == "__main__":
    main()
