"""Fields added to a cache with the store alone, from other caches of the same rows."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from models import saved
from tiny import cache_of, job_of, spec_of
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from hskcache.cache import Cache, Field, LogitsField, open_cache
from hskcache.spec import Attention, Depth, Length
from hskcache.store.additions import FieldDraft, begin_field, finish_field
from hskcache.store.ledger import Ledger
from hskcache.store.manifest import Added


class Grown(NamedTuple):
    """A cache with added fields, and the caches that they come from.

    Attributes:
        cache: its own fields, and ``s30``, ``s50`` (logits), ``hidden2``, ``attention2`` and ``odd`` (logits of three
            outputs).
        plain: the same cache before anything was added.
        three: that of a teacher of 3 layers, whose logits are ``s30``.
        six: that of a narrower teacher of 6 layers, which the other fields come from.
    """

    cache: Cache
    plain: Cache
    three: Cache
    six: Cache


def grow(folder: Path, teacher: Path, data: Path) -> Grown:
    """Build all of them."""
    attention = Attention(depth=Depth(student_layers=2), length=Length(tokens=8), encoding="float32")
    own = spec_of("bitmask", attention=attention)
    plain = cache_of(job_of(teacher, data, own), folder / "plain")
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    caches = {}
    for name, layers, width, heads in (("three", 3, 32, 4), ("six", 6, 24, 3)):
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=32,
            max_position_embeddings=64,
            initializer_range=0.25,
            id2label={0: "0", 1: "1"},
            label2id={"0": 0, "1": 1},
        )
        made = saved(lambda config=config: BertForSequenceClassification(config), tokenizer, folder / f"{name}-teacher")
        spec = spec_of("pca", attention=attention.model_copy(update={"length": Length(tokens=10)}))
        caches[name] = cache_of(job_of(made, data, spec), folder / name)
    cache = copied(plain, folder / "grown")
    for name, donor, field in (
        ("s30", "three", "logits"),
        ("s50", "six", "logits"),
        ("hidden2", "six", "hidden"),
        ("attention2", "six", "attention"),
    ):
        cache = graft(cache, name, caches[donor], field)
    return Grown(add_odd(cache, caches["six"]), plain, **caches)


def copied(cache: Cache, folder: Path) -> Cache:
    """The same cache elsewhere, to change."""
    return open_cache(shutil.copytree(cache.root, folder))


def graft(cache: Cache, name: str, donor: Cache, field: str) -> Cache:
    """The cache with one more field, which is another cache's."""
    ledger, request = Ledger(cache.root), donor.manifest.request
    if constants := donor.constants(field):
        ledger.commit_constants(name, constants)
    kept = {kind: getattr(request.spec, kind) if kind == field else None for kind in ("hidden", "attention")}
    added = Added(
        teacher=request.teacher,
        spec=request.spec.model_copy(update=kept),
        layers=request.layers if field == "hidden" else [],
        attention_layers=request.attention_layers if field == "attention" else [],
    )
    arrays = [donor.read(field, shard) for shard in range(len(donor.shards))]
    return add(cache, name, arrays, (donor.fields[field], added))


def add_odd(cache: Cache, donor: Cache) -> Cache:
    """The cache with logits of a task of three classes."""
    request = donor.manifest.request
    added = Added(teacher=request.teacher, spec=request.spec.model_copy(update={"hidden": None, "attention": None}))
    arrays = [{"logits": np.zeros((stop - start, 3), np.float32)} for start, stop in cache.shards]
    return add(cache, "odd", arrays, (LogitsField(num_labels=3), added))


def add(cache: Cache, name: str, shards: Sequence[dict[str, Any]], described: tuple[Field, Added]) -> Cache:
    """The cache with one more field, opened anew."""
    ledger, draft = Ledger(cache.root), FieldDraft(field=described[0], added=described[1])
    begin_field(ledger, name, draft)
    for shard, arrays in enumerate(shards):
        ledger.commit(name, shard, cache.shards[shard], arrays)
    finish_field(ledger, name, draft)
    return open_cache(cache.root)
