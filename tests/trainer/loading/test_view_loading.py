"""A loader gives the batches of a view that it gives of the cache which a build of the narrower spec writes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import MAX_LENGTH, cache_of, job_of

from hskcache.cache import Cache
from hskcache.errors import MismatchError
from hskcache.spec import Attention, Depth, Hidden, Length, Spec, Width
from trainer.batch import Batch
from trainer.loading import KnowledgeLoader

Build = Callable[[Hidden | None, Attention | None], Cache]


def hidden(layers: int | None, tokens: int, fraction: float, encoding: Any = "float32") -> Hidden:
    depth = Depth(student_layers=2, num_layers=layers)
    return Hidden(depth=depth, length=Length(tokens=tokens), width=Width(fraction=fraction), encoding=encoding)


def attention(layers: int | None, tokens: int) -> Attention:
    return Attention(depth=Depth(student_layers=2, num_layers=layers), length=Length(tokens=tokens))


@pytest.fixture(scope="module")
def build(tiny_teacher_dir: Path, tsv_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Build:
    def make(hidden: Hidden | None, attention: Attention | None) -> Cache:
        spec = Spec(hidden=hidden, attention=attention, max_length=MAX_LENGTH, shard_rows=8)
        return cache_of(job_of(tiny_teacher_dir, tsv_file, spec), tmp_path_factory.mktemp("view") / "c")

    return make


@pytest.fixture(scope="module")
def whole(build: Build) -> Cache:
    return build(hidden(None, MAX_LENGTH, 1.0), attention(None, 6))


@pytest.fixture(scope="module")
def narrow(build: Build) -> Cache:
    return build(hidden(2, 5, 0.3), attention(1, 6))


VIEW = "2l_5t_0.3h,attention=1l"


def content(batch: Batch) -> dict[str, Any]:
    """Everything in a batch, as plain values."""
    found: dict[str, Any] = {f"inputs/{name}": tensor for name, tensor in batch.inputs.items()}
    for name in ("labels", "logits", "row_ids", "num_rows", "num_positions", "num_pairs", "weight"):
        found[name] = getattr(batch, name)
    for kind in ("hidden", "attention"):
        for layer, target in getattr(batch, kind).items():
            found |= {f"{kind}/{layer}/{name}": value for name, value in vars(target).items()}
    return {name: value.tolist() if isinstance(value, torch.Tensor) else value for name, value in found.items()}


@pytest.mark.parametrize("residency", ["device", "host", "stream"])
def test_batches_of_a_view_are_those_of_a_built_cache(whole: Cache, narrow: Cache, residency: Any) -> None:
    loaders = [
        KnowledgeLoader(cache, batch_size=7, seed=3, residency=residency, window_shards=3)
        for cache in (whole.view(VIEW), narrow)
    ]
    for _ in range(2):
        ours, theirs = ([content(batch) for batch in loader] for loader in loaders)
        assert ours == theirs
    assert len(ours) > 3
    assert {"hidden/2/values_PW", "hidden/4/values_PW"} <= ours[0].keys()


def test_batches_of_some_rows_are_those_of_the_first_rows(whole: Cache, narrow: Cache) -> None:
    view = whole.view(VIEW, rows=21)
    ours = [content(batch) for batch in KnowledgeLoader(view, batch_size=5)]
    theirs = [content(batch) for batch in KnowledgeLoader(narrow, batch_size=5, num_rows=21)]
    assert ours == theirs


def test_a_place_in_one_view_is_none_in_another(whole: Cache) -> None:
    state = KnowledgeLoader(whole.view("5t"), batch_size=7).state_dict()
    KnowledgeLoader(whole.view(tokens=5), batch_size=7).load_state_dict(state)
    for other in (whole, whole.view("4t"), whole.view("5t,rows=16")):
        with pytest.raises(MismatchError, match="the saved order has"):
            KnowledgeLoader(other, batch_size=7).load_state_dict(state)
