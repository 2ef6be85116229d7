"""Caches written with the store alone, from a teacher run row by row with transformers' eager attention.

Nothing of hskcache's teacher side takes part, so that what the trainer reads is checked against something else.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from hskcache.cache import AttentionField, Cache, HiddenField, InputsField, LogitsField, open_cache
from hskcache.encoding import get_encoding
from hskcache.selection.depth import kept_layers, stored_layers
from hskcache.spec import Attention, Depth, Hidden, Length, Spec
from hskcache.store.fields import layer_name
from hskcache.store.ledger import Ledger
from hskcache.store.manifest import DataInfo, Field, LayerKept, Request, TeacherInfo, TokenizerInfo
from hskcache.store.tokenizer import tokenizer_digest

MAX_LENGTH = 24
TEACHER_LAYERS = 4


@dataclass(frozen=True)
class Plan:
    """What to keep. Rows of the tiny data set have 5 to 17 tokens, so 9 positions are ragged."""

    depth: Depth = field(default_factory=lambda: Depth(student_layers=2))
    tokens: int | None = 9
    heads: Literal["all", "mean"] | tuple[int, ...] = "all"
    encoding: Any = "float32"
    corpus: bool = False
    hidden: bool = True
    attention: bool = True
    num_rows: int = 24


def eager(folder: Path, auto: Any = AutoModelForSequenceClassification) -> PreTrainedModel:
    """A model whose attention is the slow one of transformers, in eval mode."""
    return auto.from_pretrained(folder, attn_implementation="eager").eval()


@contextmanager
def watched(model: nn.Module) -> Iterator[dict[int, Tensor]]:
    """Scores QK^T / sqrt(d) [B, H, L, L] of every layer, counted from 1, from what its query and key Linear give."""
    found: dict[int, Tensor] = {}
    outputs: dict[str, Tensor] = {}
    handles = []

    def hook(name: str, heads: int, layer: int) -> Any:
        def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            outputs[name] = output.unflatten(-1, (heads, -1)).transpose(1, 2)
            if name == "key":
                found[layer] = outputs["query"] @ outputs["key"].mT / outputs["key"].shape[-1] ** 0.5

        return keep

    layers = [module for name, module in model.named_modules() if name.endswith("attention.self")]
    for number, module in enumerate(layers, start=1):
        heads = module.num_attention_heads
        handles += [
            module.get_submodule(name).register_forward_hook(hook(name, heads, number)) for name in ("query", "key")
        ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def write(root: Path, teacher: Path, data: Path, plan: Plan) -> Cache:
    """Write a cache of the first rows of the tiny data set, five to a shard, and open it."""
    model, tokenizer = eager(teacher), AutoTokenizer.from_pretrained(teacher)
    lines = [line.split("\t") for line in data.read_text(encoding="utf-8").splitlines()[1 : plan.num_rows + 1]]
    rows = [tokenizer(text)["input_ids"] for text, _ in lines]
    labels = [int(label) for _, label in lines]
    root.mkdir(parents=True)
    tokenizer.save_pretrained(root / "tokenizer")
    fields = _fields(plan)
    request = _request(root, model, tokenizer, plan)
    ledger = Ledger(root)
    for shard, (start, stop) in enumerate(request.shards):
        kept = [_row(model, ids, plan, seed) for seed, ids in enumerate(rows[start:stop], start)]
        arrays = {
            "inputs": {
                "input_ids": np.concatenate([np.array(ids, np.uint16) for ids in rows[start:stop]]),
                "token_type_ids": np.zeros(sum(map(len, rows[start:stop])), np.uint8),
                "row_offsets": np.cumsum([0, *map(len, rows[start:stop])], dtype=np.int64),
                "row_ids": np.arange(start, stop, dtype=np.int64),
                "labels": np.array(labels[start:stop], np.int64),
            },
            **{
                name: {key: np.concatenate([row[name][key] for row in kept]) for key in kept[0][name]}
                for name in kept[0]
            },
        }
        for name in ("hidden", "attention"):
            counts = [min(plan.tokens or len(ids), len(ids)) for ids in rows[start:stop]]
            arrays[name]["position_offsets"] = np.cumsum([0, *counts], dtype=np.int64)
        if plan.corpus:
            del arrays["inputs"]["labels"]
        for name in fields:
            ledger.commit(name, shard, (start, stop), arrays[name])
    ledger.finish(request, fields, {"hskcache": "0"})
    return open_cache(root)


def _row(model: PreTrainedModel, ids: list[int], plan: Plan, seed: int) -> dict[str, Any]:
    """Arrays of one row by field; its positions are drawn anew for every layer."""
    with torch.no_grad(), watched(model) as scores:
        output = model(torch.tensor([ids]), output_hidden_states=True)
    draw = np.random.default_rng(seed)
    count = min(plan.tokens or len(ids), len(ids))
    found: dict[str, Any] = {"logits": {"logits": output.logits.numpy()}, "hidden": {}, "attention": {}}
    encoding = get_encoding(plan.encoding)
    for layer in stored_layers(plan.depth, TEACHER_LAYERS):
        positions = draw.permutation(len(ids))[:count]
        values = output.hidden_states[layer][0, positions]
        found["hidden"] |= _named(layer, positions, encoding.encode(values), flat=False)
        if layer == 0:
            continue
        positions = draw.permutation(len(ids))[:count]
        maps = scores[layer][0][:, positions][:, :, positions]
        if plan.heads == "mean":
            maps = maps.mean(0, keepdim=True)
        elif plan.heads != "all":
            maps = maps[list(plan.heads)]
        found["attention"] |= _named(layer, positions, encoding.encode(maps), flat=True)
    return found


def _named(layer: int, positions: Any, parts: dict[str, Tensor], flat: bool) -> dict[str, Any]:
    arrays = {part: tensor.flatten().numpy() if flat else tensor.numpy() for part, tensor in parts.items()}
    return {
        f"{layer_name(layer)}/{part}": array
        for part, array in {"positions": positions.astype(np.uint16), **arrays}.items()
    }


def _fields(plan: Plan) -> dict[str, Field]:
    layers = list(stored_layers(plan.depth, TEACHER_LAYERS))
    heads = list(range(4)) if plan.heads == "all" else plan.heads if plan.heads == "mean" else list(plan.heads)
    fields: dict[str, Field] = {
        "inputs": InputsField(id_dtype="uint16", has_token_types=True, has_labels=not plan.corpus)
    }
    if not plan.corpus:
        fields["logits"] = LogitsField(num_labels=2)
    if plan.hidden:
        fields["hidden"] = HiddenField(
            width=32, num_columns=32, columns="all", encoding=plan.encoding, layers=layers, max_tokens=plan.tokens
        )
    if plan.attention:
        fields["attention"] = AttentionField(
            num_heads=1 if heads == "mean" else len(heads),
            heads=heads,
            teacher_heads=4,
            encoding=plan.encoding,
            layers=[layer for layer in layers if layer > 0],
            max_tokens=plan.tokens,
        )
    return fields


def _request(root: Path, model: PreTrainedModel, tokenizer: Any, plan: Plan) -> Request:
    length = Length(tokens=plan.tokens, score="random")
    pairs = [LayerKept(student=pair.student, teacher=pair.teacher) for pair in kept_layers(plan.depth, TEACHER_LAYERS)]
    attention = Attention(
        depth=plan.depth,
        length=length,
        heads=plan.heads if isinstance(plan.heads, str) else list(plan.heads),
        encoding=plan.encoding,
    )
    spec = Spec(
        hidden=Hidden(depth=plan.depth, length=length, encoding=plan.encoding) if plan.hidden else None,
        attention=attention if plan.attention else None,
        max_length=MAX_LENGTH,
        shard_rows=5,
    )
    return Request(
        spec=spec,
        teacher=TeacherInfo(
            name="tiny",
            weights_sha256="0" * 64,
            config={},
            model_type="bert",
            num_layers=TEACHER_LAYERS,
            num_heads=4,
            width=32,
            vocab_size=int(model.config.vocab_size),
        ),
        tokenizer=TokenizerInfo(
            sha256=tokenizer_digest(root / "tokenizer"),
            vocab_size=len(tokenizer),
            pad_token_id=tokenizer.pad_token_id,
            has_token_types=True,
        ),
        data=DataInfo(
            name="rows",
            fingerprint="0" * 64,
            num_rows=plan.num_rows,
            task=None if plan.corpus else "sst2",
            problem="text" if plan.corpus else "classification",
            label_names=[] if plan.corpus else ["0", "1"],
        ),
        shard_rows=5,
        layers=pairs if plan.hidden else [],
        attention_layers=[pair for pair in pairs if pair.student > 0] if plan.attention else [],
    )
