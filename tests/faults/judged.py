"""What verify and training make of a cache that was damaged."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from damages import Damage

from hskcache.cache import open_cache
from hskcache.errors import CacheError
from hskcache.verify import verify
from trainer.loading import KnowledgeLoader
from trainer.recipe import AttentionTerm, HiddenTerm, LabelTerm, Losses, Recipe, SoftTerm, Stage
from trainer.source.gate import check_recipe, check_student
from trainer.source.objective import Objective
from trainer.source.source import Slice, cached_source
from trainer.student.create import create_student

Verdict = Literal["refused", "the same batches", "other batches"]


def is_detected(root: Path, damage: Damage) -> bool:
    """Whether verify sees a damage and names every place of it."""
    try:
        problems = verify(root).problems
    except CacheError:
        # There is no cache, or none that can be judged; only of its manifest can that be said.
        return damage.touched[0].startswith("manifest.")
    named = {(problem.file, problem.field, problem.shard) for problem in problems}
    return bool(named) and (damage.places is None or {tuple(place) for place in damage.places} <= named)


def trained_on(root: Path, whole: list[str], residency: Any = "host") -> Verdict:
    """What training makes of it: every batch that is handed out must be the same as of the whole cache."""
    count = 0
    try:
        for batch in batches(root, residency):
            if count >= len(whole) or batch != whole[count]:
                return "other batches"
            count += 1
    except CacheError:
        return "refused"
    return "the same batches" if count == len(whole) else "other batches"


def batches(root: Path, residency: Any = "host") -> Iterator[str]:
    """Digest of every batch of an epoch over the cache's own fields, and of one over each added field."""
    cache = open_cache(root)
    own = tuple(name for name in cache.manifest.own_fields if name != "inputs")
    for fields in (own, *((name,) for name in cache.manifest.added)):
        for batch in KnowledgeLoader(cache, batch_size=3, fields=fields, residency=residency):
            yield _digest(batch)


def learned(root: Path, student: Any) -> None:
    """Go the way of ``hsktrain fit`` with a student that fits the true cache, up to the losses of every batch."""
    losses = Losses(hidden=HiddenTerm(), attention=AttentionTerm(), soft=SoftTerm(), label=LabelTerm())
    stage = Stage(name="all", losses=losses, epochs=1, batch_size=3, learning_rate=1e-3)
    recipe = Recipe(name="all", stages=(stage,))
    added = open_cache(root).manifest.added
    for fields in ((), *((name,) for name in added)):
        source = cached_source(root, residency="host", fields=fields)
        check_recipe(source.knowledge, recipe)
        check_student(source.knowledge, recipe, student)
        objective = Objective(student, losses, source.knowledge.matches)
        with torch.no_grad():
            for batch in source.loader(losses, Slice(3, 0, 1, 1, "cpu"), 0):
                objective(batch)


def a_student(root: Path) -> Any:
    """A student of random weights that fits a cache."""
    config = root.parent / "student.json"
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    config.write_text(json.dumps({"model_type": "bert", "max_position_embeddings": 32, **shape}), encoding="utf-8")
    return create_student(str(config), cached_source(root).knowledge.interface(), seed=0).eval()


def _digest(batch: Any) -> str:
    digest = hashlib.sha256()
    for piece in _pieces(batch):
        digest.update(piece)
    return digest.hexdigest()


def _pieces(value: Any) -> Iterator[bytes]:
    if isinstance(value, torch.Tensor):
        yield value.contiguous().numpy().tobytes()
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _pieces(getattr(value, field.name))
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield repr(key).encode()
            yield from _pieces(part)
    elif isinstance(value, tuple) and any(isinstance(part, torch.Tensor) for part in value):
        for part in value:
            yield from _pieces(part)
    else:
        yield repr(value).encode()
