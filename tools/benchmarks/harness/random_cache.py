"""Caches of any size without a teacher: random inputs, logits and knowledge, as builds store them."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

from benchmarks.harness import synthetic
from hskcache import console
from hskcache.cache import AttentionField, HiddenField, InputsField, LogitsField
from hskcache.spec import Attention, Depth, Hidden, Length, Spec, Width
from hskcache.store.fields import layer_name
from hskcache.store.ledger import Ledger
from hskcache.store.manifest import DataInfo, Field, LayerKept, Request, TeacherInfo, TokenizerInfo
from hskcache.store.tokenizer import tokenizer_digest

VOCABULARY, LAYER = 1000, 12
POSITIONS, WIDTH, HEADS = 10, 768, 12
COLUMNS = WIDTH // 10

Arrays = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Plan:
    """A cache to write.

    Attributes:
        num_rows: N.
        shard_rows: rows of a shard.
        spec: to keep of layer 12; ``max_length`` is the length of every row.
        knowledge: its fields beside inputs and logits.
        draw: makes the arrays of those for so many rows.
    """

    num_rows: int
    shard_rows: int
    spec: Spec
    knowledge: dict[str, Field]
    draw: Callable[[Generator, int], Arrays]

    @property
    def fields(self) -> dict[str, Field]:
        """All fields."""
        inputs = InputsField(id_dtype="uint16", has_token_types=True, has_labels=True)
        return {"inputs": inputs, "logits": LogitsField(num_labels=2), **self.knowledge}

    def arrays(self, rows: range) -> Arrays:
        """A shard of every field, by field, drawn from its first row's number."""
        draw, count, length = np.random.default_rng(rows.start), len(rows), self.spec.max_length
        inputs = {
            "input_ids": draw.integers(5, VOCABULARY, count * length).astype(np.uint16),
            "row_offsets": offsets(count, length),
            "row_ids": np.arange(rows.start, rows.stop, dtype=np.int64),
            "token_type_ids": np.zeros(count * length, np.uint8),
            "labels": draw.integers(0, 2, count),
        }
        logits = {"logits": draw.standard_normal((count, 2), np.float32)}
        return {"inputs": inputs, "logits": logits, **self.draw(draw, count)}

    def request(self, tokenizer: Path) -> Request:
        """The request that would have led to such a cache."""
        hidden = self.knowledge["hidden"]
        assert self.spec.hidden is not None
        assert isinstance(hidden, HiddenField)
        students = range(self.spec.hidden.depth.student_layers, -1, -1)
        kept = [
            LayerKept(student=one, teacher=layer) for one, layer in zip(students, hidden.layers[::-1], strict=False)
        ]
        kept.sort(key=lambda one: one.student)
        return Request(
            spec=self.spec,
            teacher=TeacherInfo(
                name="none",
                weights_sha256="0" * 64,
                config={},
                model_type="bert",
                num_layers=LAYER,
                num_heads=HEADS,
                width=hidden.width,
                vocab_size=VOCABULARY,
            ),
            tokenizer=TokenizerInfo(
                sha256=tokenizer_digest(tokenizer), vocab_size=VOCABULARY, pad_token_id=0, has_token_types=True
            ),
            data=DataInfo(
                name="random",
                fingerprint=f"{self.num_rows} random rows",
                num_rows=self.num_rows,
                problem="classification",
                label_names=list(synthetic.CLASSES),
            ),
            shard_rows=self.shard_rows,
            layers=kept,
            attention_layers=kept if self.spec.attention is not None else [],
        )


def offsets(num_rows: int, each: int) -> Any:
    """Row offsets of rows of one length."""
    return np.arange(num_rows + 1, dtype=np.int64) * each


def write(out: Path, plan: Plan) -> int:
    """Write a cache as a build does, or finish one that was cut off; returns the bytes of its shards."""
    ledger, fields = Ledger(out), plan.fields
    tokenizer = synthetic.write_tokenizer(out.parent / "tokenizer", VOCABULARY)
    request = plan.request(tokenizer)
    ledger.begin(request)
    shutil.copytree(tokenizer, out / "tokenizer", dirs_exist_ok=True)
    with console.progress("shards") as bar:
        task = bar.add_task(f"write {out.name}", total=request.num_shards)
        for shard, rows in enumerate(request.shards):
            if not all(ledger.is_committed(field, shard) for field in fields):
                for field, stored in plan.arrays(range(*rows)).items():
                    ledger.commit(field, shard, rows, stored)
            bar.advance(task)
    manifest = ledger.finish(request, fields, {})
    return sum(record.num_bytes for record in manifest.records)


def typical(megabytes: int) -> Plan:
    """A cache of about that size as a build of ``1l_10t_0.1h`` writes it in int8, with attention of as many positions.

    Columns are told by bitmasks, and a shard has as many rows as a build gives it where they are as small as these.
    """
    length = 32
    # Before compression, about; random integers and masks hardly shrink.
    row_bytes = POSITIONS * (COLUMNS + 4 + WIDTH // 8) + HEADS * POSITIONS * (POSITIONS + 4) + length * 3 + 50
    depth, kept = Depth(student_layers=4, target=LAYER, num_layers=1), Length(tokens=POSITIONS)
    spec = Spec(
        hidden=Hidden(depth=depth, length=kept, width=Width(fraction=0.1), encoding="int8"),
        attention=Attention(depth=depth, length=kept, encoding="int8"),
        max_length=length,
    )
    common: dict[str, Any] = {"encoding": "int8", "layers": [LAYER], "max_tokens": POSITIONS}
    knowledge: dict[str, Field] = {
        "hidden": HiddenField(width=WIDTH, num_columns=COLUMNS, columns="bitmask", **common),
        "attention": AttentionField(num_heads=HEADS, heads=list(range(HEADS)), teacher_heads=HEADS, **common),
    }
    return Plan(max(1, megabytes * 1_000_000 // row_bytes), 4096, spec, knowledge, _typical_arrays)


def _typical_arrays(draw: Generator, num_rows: int) -> Arrays:
    kept, vectors = num_rows * POSITIONS, num_rows * POSITIONS * HEADS
    chosen = draw.random((kept, WIDTH)).argpartition(COLUMNS, axis=1)[:, :COLUMNS]
    bits = np.zeros((kept, WIDTH), bool)
    np.put_along_axis(bits, chosen, True, axis=1)
    places = {
        "position_offsets": offsets(num_rows, POSITIONS),
        f"layer_{LAYER}/positions": np.tile(np.arange(POSITIONS, dtype=np.uint16), num_rows),
    }
    return {
        "hidden": {
            **places,
            f"layer_{LAYER}/values": draw.integers(-127, 128, (kept, COLUMNS)).astype(np.int8),
            f"layer_{LAYER}/scales": draw.random(kept, np.float32),
            f"layer_{LAYER}/bitmask": np.packbits(bits, axis=1, bitorder="little"),
        },
        "attention": {
            **places,
            f"layer_{LAYER}/values": draw.integers(-127, 128, vectors * POSITIONS).astype(np.int8),
            f"layer_{LAYER}/scales": draw.random(vectors, np.float32),
        },
    }


def full(num_rows: int) -> Plan:
    """All states that a student of 6 layers learns from, in float16, of so many rows of 32 tokens."""
    length, layers = 32, list(range(0, LAYER + 1, 2))
    spec = Spec(hidden=Hidden(depth=Depth(student_layers=6, target=LAYER), encoding="float16"), max_length=length)
    hidden = HiddenField(width=WIDTH, num_columns=WIDTH, columns="all", encoding="float16", layers=layers)

    def draw(draw: Generator, count: int) -> Arrays:
        arrays: dict[str, Any] = {"position_offsets": offsets(count, length)}
        for layer in layers:
            name = layer_name(layer)
            arrays[f"{name}/positions"] = np.tile(np.arange(length, dtype=np.uint16), count)
            arrays[f"{name}/values"] = draw.standard_normal((count * length, WIDTH), np.float32).astype(np.float16)
        return {"hidden": arrays}

    return Plan(num_rows, 64, spec, {"hidden": hidden}, draw)


def hidden_alone(num_rows: int) -> Plan:
    """The hidden states of :func:`typical` without its attention, of so many rows."""
    plan = typical(1)

    def draw(draw: Generator, count: int) -> Arrays:
        return {"hidden": plan.draw(draw, count)["hidden"]}

    spec = plan.spec.model_copy(update={"attention": None})
    return Plan(num_rows, 4096, spec, {"hidden": plan.knowledge["hidden"]}, draw)
