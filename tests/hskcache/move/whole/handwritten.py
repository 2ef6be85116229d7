"""Caches of any shape, written with the store alone from random arrays that fit together."""

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hskcache.cache import open_cache
from hskcache.store.fields import AttentionField, Field, HiddenField, InputsField, LogitsField, layer_name
from hskcache.store.files import sha256_hex, write_atomic
from hskcache.store.ledger import Ledger
from hskcache.store.manifest import Manifest, Request
from hskcache.store.tokenizer import tokenizer_digest

Arrays = dict[str, NDArray[Any]]

GOLDEN = Path(__file__).resolve().parents[3] / "golden"
CACHES = [GOLDEN / name for name in ("tiny.hsk", "added.hsk", "corpus.hsk")]

_VALUES = {"float32": "<f4", "float16": "<f2", "bfloat16": "<i2", "int8": "<i1", "int4": "<u1"}


@dataclass(frozen=True)
class Shape:
    """What a cache is to hold: tokens of each row, kept ones of each row, and how they are stored."""

    lengths: Sequence[int] = (4, 3, 5, 2, 6, 1, 3)
    appended: Sequence[int] = ()
    shard_rows: int = 3
    tokens: int = 3
    width: int = 9
    num_columns: int = 5
    columns: Any = "bitmask"
    encoding: Any = "int8"
    layers: Sequence[int] = (1, 3)
    heads: Sequence[int] | str = (1, 0)
    has_token_types: bool = True
    has_labels: bool = True
    id_dtype: Any = "uint16"

    @property
    def rows(self) -> list[int]:
        """Tokens of every row."""
        return [*self.lengths, *self.appended]


def write_cache(root: Path, shape: Shape, seed: int = 0) -> Manifest:
    """Write a cache of inputs, logits where there are labels, hidden states and attention."""
    write_atomic(root / "tokenizer" / "vocab.txt", b"[PAD]\n[UNK]\n[CLS]\n[SEP]\ngood\nbad\nfilm\nvery\n")
    write_atomic(root / "tokenizer" / "extra" / "config.json", b"{}\n")
    request, fields = _request(root, shape), _fields(shape)
    draw, ledger = np.random.default_rng(seed), Ledger(root)
    for shard, (start, stop) in enumerate(request.shards):
        for name, field in fields.items():
            ledger.commit(name, shard, (start, stop), _arrays(draw, shape, field, (start, stop)))
    if constants := _constants(draw, shape):
        ledger.commit_constants("hidden", constants)
    return ledger.finish(request, fields, {"hskcache": "0", "numcodecs": "0.0.1"})


def contents(root: Path) -> dict[str, str]:
    """Digest of every file."""
    paths = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): sha256_hex(path.read_bytes()) for path in paths}


def killer(event: str, times: int) -> Callable[[str, tuple[Any, ...]], None]:
    """A hook that kills when something happens for the ``times``-th time, before it does."""
    seen = 0

    def hook(name: str, _arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        seen += name == event
        if name == event and seen == times:
            os.kill(os.getpid(), signal.SIGKILL)

    return hook


def _request(root: Path, shape: Shape) -> Request:
    request = open_cache(CACHES[0]).manifest.request
    data = request.data.model_copy(update={"num_rows": len(shape.lengths)})
    more = request.data.model_copy(update={"num_rows": len(shape.appended), "fingerprint": "1" * 64})
    tokenizer = request.tokenizer.model_copy(update={"sha256": tokenizer_digest(root / "tokenizer")})
    return request.model_copy(
        update={
            "spec": request.spec.model_copy(update={"max_length": 64}),
            "data": data,
            "appended": [more] if shape.appended else [],
            "shard_rows": shape.shard_rows,
            "tokenizer": tokenizer,
        }
    )


def _fields(shape: Shape) -> dict[str, Field]:
    stored = shape.width if shape.columns == "all" else shape.num_columns
    fields: dict[str, Field] = {
        "inputs": InputsField(
            id_dtype=shape.id_dtype, has_token_types=shape.has_token_types, has_labels=shape.has_labels
        )
    }
    if shape.has_labels:
        fields["logits"] = LogitsField(num_labels=2)
    layers = {"layers": list(shape.layers), "encoding": shape.encoding, "max_tokens": shape.tokens}
    fields["hidden"] = HiddenField(width=shape.width, num_columns=stored, columns=shape.columns, **layers)
    heads = shape.heads if isinstance(shape.heads, str) else list(shape.heads)
    num_heads = 1 if isinstance(heads, str) else len(heads)
    fields["attention"] = AttentionField(num_heads=num_heads, heads=heads, teacher_heads=2, **layers)
    return fields


def _random(draw: np.random.Generator, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """Any bits, so that whatever reads them as numbers in between would change them."""
    kind = np.dtype(dtype)
    bits = draw.integers(0, 256, int(np.prod(shape)) * kind.itemsize, np.uint8)
    return bits.view(kind).reshape(shape)


def _arrays(draw: np.random.Generator, shape: Shape, field: Field, rows: tuple[int, int]) -> Arrays:
    lengths = shape.rows[slice(*rows)]
    kept = [min(shape.tokens, length) for length in lengths]
    if isinstance(field, LogitsField):
        return {"logits": _random(draw, (len(lengths), 2), "<f4")}
    if isinstance(field, InputsField):
        arrays = {
            "input_ids": draw.integers(0, 8, sum(lengths)).astype(shape.id_dtype),
            "row_offsets": np.cumsum([0, *lengths], dtype=np.int64),
            "row_ids": np.arange(*rows, dtype=np.int64),
        }
        if shape.has_token_types:
            arrays["token_type_ids"] = draw.integers(0, 2, sum(lengths)).astype(np.uint8)
        if shape.has_labels:
            arrays["labels"] = draw.integers(0, 2, len(lengths))
        return arrays
    arrays = {"position_offsets": np.cumsum([0, *kept], dtype=np.int64)}
    for layer in map(layer_name, field.layers):
        places = [draw.permutation(length)[:count] for length, count in zip(lengths, kept, strict=True)]
        arrays[f"{layer}/positions"] = np.concatenate(places).astype(np.uint16)
        if isinstance(field, AttentionField):
            arrays |= _attention(draw, shape, field, layer, kept)
        else:
            arrays |= _hidden(draw, shape, field, layer, sum(kept))
    return arrays


def _attention(draw: np.random.Generator, shape: Shape, field: AttentionField, layer: str, kept: list[int]) -> Arrays:
    entries = [(count + 1) // 2 if shape.encoding == "int4" else count for count in kept]
    vectors = [field.num_heads * count for count in kept]
    total = sum(a * b for a, b in zip(vectors, entries, strict=True))
    arrays = {f"{layer}/values": _random(draw, (total,), _VALUES[shape.encoding])}
    if shape.encoding in {"int8", "int4"}:
        arrays[f"{layer}/scales"] = _random(draw, (sum(vectors),), "<f4")
    return arrays


def _hidden(draw: np.random.Generator, shape: Shape, field: HiddenField, layer: str, count: int) -> Arrays:
    stored = (field.num_columns + 1) // 2 if shape.encoding == "int4" else field.num_columns
    arrays = {f"{layer}/values": _random(draw, (count, stored), _VALUES[shape.encoding])}
    if shape.encoding in {"int8", "int4"}:
        arrays[f"{layer}/scales"] = _random(draw, (count,), "<f4")
    if shape.columns == "indices":
        arrays[f"{layer}/columns"] = draw.integers(0, shape.width, (count, field.num_columns)).astype(np.uint16)
    if shape.columns == "bitmask":
        bits = np.zeros((count, shape.width), np.uint8)
        for row in bits:
            row[draw.permutation(shape.width)[: field.num_columns]] = 1
        arrays[f"{layer}/bitmask"] = np.packbits(bits, axis=1, bitorder="little")
    return arrays


def _constants(draw: np.random.Generator, shape: Shape) -> Arrays:
    arrays: Arrays = {}
    for layer in map(layer_name, shape.layers):
        if shape.columns == "shared":
            arrays[f"{layer}/columns"] = np.sort(draw.permutation(shape.width)[: shape.num_columns]).astype(np.uint16)
        if shape.columns == "pca":
            arrays[f"{layer}/mean"] = _random(draw, (shape.width,), "<f4")
            arrays[f"{layer}/basis"] = _random(draw, (shape.num_columns, shape.width), "<f4")
    return arrays
