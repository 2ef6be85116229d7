"""A cache of any size without a teacher: random inputs, logits, hidden states and attention, as builds store them."""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.harness import synthetic
from hskcache import console
from hskcache.cache import AttentionField, HiddenField, InputsField, LogitsField
from hskcache.spec import Attention, Depth, Hidden, Length, Spec, Width
from hskcache.store.files import tokenizer_digest
from hskcache.store.ledger import Ledger
from hskcache.store.manifest import DataInfo, Field, LayerKept, Request, TeacherInfo, TokenizerInfo

VOCABULARY, LENGTH, LAYER = 1000, 32, 12


class Sizes(NamedTuple):
    """Contents of a cache: of each row hidden states of one layer and attention of as many positions, in int8.

    Attributes:
        num_rows: N.
        shard_rows: rows of a shard; as many as a build gives one where rows are as small as these.
        positions: K, of hidden states and of attention.
        width: D, of which a tenth is kept, told by bitmasks.
        heads: H.
    """

    num_rows: int
    shard_rows: int = 4096
    positions: int = 10
    width: int = 768
    heads: int = 12

    @property
    def columns(self) -> int:
        """W."""
        return self.width // 10

    @property
    def row_bytes(self) -> int:
        """Bytes of a row before compression, about; random integers and masks hardly shrink."""
        hidden = self.positions * (self.columns + 4 + self.width // 8)
        attention = self.heads * self.positions * (self.positions + 4)
        return hidden + attention + LENGTH * 3 + 50


def write(out: Path, sizes: Sizes) -> int:
    """Write a cache, or finish one that was cut off; returns the bytes of its shards."""
    ledger = Ledger(out)
    tokenizer = synthetic.write_tokenizer(out.parent / "tokenizer", VOCABULARY)
    request, fields = _request(sizes, tokenizer), _fields(sizes)
    ledger.begin(request)
    shutil.copytree(tokenizer, out / "tokenizer", dirs_exist_ok=True)
    with console.progress("shards") as bar:
        task = bar.add_task(f"write {out.name}", total=request.num_shards)
        for shard, rows in enumerate(request.shards):
            if not all(ledger.is_committed(field, shard) for field in fields):
                for field, stored in _arrays(range(*rows), sizes).items():
                    ledger.commit(field, shard, rows, stored)
            bar.advance(task)
    manifest = ledger.finish(request, fields, {})
    return sum(record.num_bytes for record in manifest.records)


def _arrays(rows: range, sizes: Sizes) -> dict[str, dict[str, Any]]:
    """A shard of every field, by field, drawn from its first row's number."""
    draw, count = np.random.default_rng(rows.start), len(rows)
    order = np.arange(count + 1, dtype=np.int64)
    kept, vectors = count * sizes.positions, count * sizes.positions * sizes.heads
    positions = np.tile(np.arange(sizes.positions, dtype=np.uint16), count)
    chosen = draw.random((kept, sizes.width)).argpartition(sizes.columns, axis=1)[:, : sizes.columns]
    bits = np.zeros((kept, sizes.width), bool)
    np.put_along_axis(bits, chosen, True, axis=1)
    return {
        "inputs": {
            "input_ids": draw.integers(5, VOCABULARY, count * LENGTH).astype(np.uint16),
            "row_offsets": order * LENGTH,
            "row_ids": np.arange(rows.start, rows.stop, dtype=np.int64),
            "token_type_ids": np.zeros(count * LENGTH, np.uint8),
            "labels": draw.integers(0, 2, count),
        },
        "logits": {"logits": draw.standard_normal((count, 2), np.float32)},
        "hidden": {
            "position_offsets": order * sizes.positions,
            f"layer_{LAYER}/positions": positions,
            f"layer_{LAYER}/values": draw.integers(-127, 128, (kept, sizes.columns)).astype(np.int8),
            f"layer_{LAYER}/scales": draw.random(kept, np.float32),
            f"layer_{LAYER}/bitmask": np.packbits(bits, axis=1, bitorder="little"),
        },
        "attention": {
            "position_offsets": order * sizes.positions,
            f"layer_{LAYER}/positions": positions,
            f"layer_{LAYER}/values": draw.integers(-127, 128, vectors * sizes.positions).astype(np.int8),
            f"layer_{LAYER}/scales": draw.random(vectors, np.float32),
        },
    }


def _fields(sizes: Sizes) -> dict[str, Field]:
    kept: dict[str, Any] = {"encoding": "int8", "layers": [LAYER], "max_tokens": sizes.positions}
    heads = list(range(sizes.heads))
    return {
        "inputs": InputsField(id_dtype="uint16", has_token_types=True, has_labels=True),
        "logits": LogitsField(num_labels=2),
        "hidden": HiddenField(width=sizes.width, num_columns=sizes.columns, columns="bitmask", **kept),
        "attention": AttentionField(num_heads=sizes.heads, heads=heads, teacher_heads=sizes.heads, **kept),
    }


def _request(sizes: Sizes, tokenizer: Path) -> Request:
    """Request that would have led to such a cache."""
    depth, length = Depth(student_layers=4, target=LAYER, num_layers=1), Length(tokens=sizes.positions)
    spec = Spec(
        hidden=Hidden(depth=depth, length=length, width=Width(fraction=0.1), encoding="int8"),
        attention=Attention(depth=depth, length=length, encoding="int8"),
        max_length=LENGTH,
    )
    teacher = TeacherInfo(
        name="none",
        weights_sha256="0" * 64,
        config={},
        model_type="bert",
        num_layers=LAYER,
        num_heads=sizes.heads,
        width=sizes.width,
        vocab_size=VOCABULARY,
    )
    digest = tokenizer_digest(tokenizer)
    return Request(
        spec=spec,
        teacher=teacher,
        tokenizer=TokenizerInfo(sha256=digest, vocab_size=VOCABULARY, pad_token_id=0, has_token_types=True),
        data=DataInfo(
            name="random",
            fingerprint=f"{sizes.num_rows} random rows",
            num_rows=sizes.num_rows,
            problem="classification",
            label_names=list(synthetic.CLASSES),
        ),
        shard_rows=sizes.shard_rows,
        layers=[LayerKept(student=4, teacher=LAYER)],
        attention_layers=[LayerKept(student=4, teacher=LAYER)],
    )
