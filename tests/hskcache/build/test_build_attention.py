"""The attention field holds the eager model's scores before mask and softmax, between a row's kept positions."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from direct import CLOSE, Direct, assert_best, direct
from torch import Tensor
from transformers import PreTrainedModel

from hskcache.build.build import build
from hskcache.build.job import Job, prepare_job
from hskcache.cache import Cache, open_cache
from hskcache.encoded import ENCODED
from hskcache.encoding import get_encoding
from hskcache.errors import SpecError
from hskcache.spec import Attention, Depth, Length, Spec
from hskcache.store.fields import AttentionField
from hskcache.teacher.load import Teacher
from hskcache.text import Examples, tokenize
from hskcache.verify import verify

LOOKED_AT = range(0, 40, 3)
ENCODINGS = ["float32", "float16", "bfloat16", "int8", "int4"]


@pytest.fixture(scope="module")
def make_job(teacher: Teacher, examples: Examples) -> Callable[..., Job]:
    def make(attention: Attention, rows: Examples = examples, **given: Any) -> Job:
        spec = Spec(**{"hidden": None, "attention": attention, "shard_rows": 8, "token_budget": 60, **given})
        return prepare_job(teacher, rows, tokenize(rows, teacher.tokenizer, spec.max_length), spec)

    return make


def attention(tokens: int | None = None, encoding: Any = "float32", **given: Any) -> Attention:
    depth = Depth(student_layers=2, **{key: given.pop(key) for key in ("num_layers", "stored") if key in given})
    heads = given.pop("heads", "all")
    return Attention(depth=depth, length=Length(tokens=tokens, **given), heads=heads, encoding=encoding)


def built(job: Job, out: Path) -> Cache:
    build(job, out)
    assert verify(out).ok
    return open_cache(out)


def decoded(field: AttentionField, arrays: dict[str, Any]) -> Tensor:
    """Scores [H, K, K] of one row from its stored arrays, vector by vector."""
    kept = len(arrays["positions"])
    width = int(ENCODED[field.encoding].entries(kept))
    assert arrays["values"].shape == (field.num_heads * kept * width,)
    shapes = {"values": (field.num_heads, kept, width), "scales": (field.num_heads, kept)}
    parts = {name: torch.from_numpy(arrays[name]).reshape(shapes[name]) for name in shapes.keys() & arrays.keys()}
    return get_encoding(field.encoding).decode(parts, kept)


def heads_of(field: AttentionField, scores_HLL: Tensor) -> Tensor:
    return scores_HLL.mean(0, keepdim=True) if field.heads == "mean" else scores_HLL[field.heads]


def check(cache: Cache, job: Job, eager: PreTrainedModel) -> None:
    field, kept = cache.fields["attention"], job.spec.attention
    assert isinstance(field, AttentionField)
    assert kept is not None
    longest = int(job.rows.lengths.max())
    for row in LOOKED_AT:
        stored = cache.row(row)
        types = stored.get("token_type_ids")
        expected = direct(eager, stored["input_ids"].tolist(), None if types is None else types.tolist(), longest)
        for layer in field.layers:
            positions = stored["attention"][layer]["positions"].tolist()
            check_positions(job, row, (layer, positions), expected)
            scores = heads_of(field, expected.scores[layer - 1])[:, positions][:, :, positions]
            error = (decoded(field, stored["attention"][layer]) - scores).abs()
            assert bool((error <= get_encoding(field.encoding).bound(scores) + 4 * CLOSE).all())
            assert float(scores.std()) > 0.01


def check_positions(job: Job, row: int, found: tuple[int, list[int]], expected: Direct) -> None:
    layer, positions = found
    assert job.spec.attention is not None
    length = job.spec.attention.length
    source = 3 if length.score_layer == "last" else layer - 1
    ranking = expected.ranking(length.score, source, row, length.seed)
    ids = job.rows.input_ids[job.rows.offsets[row] : job.rows.offsets[row + 1]].tolist()
    eligible = [i for i, token in enumerate(ids) if i == 0 or length.specials or token not in job.rows.special_ids]
    assert_best(positions, ranking, eligible, length.tokens)


@pytest.mark.parametrize("tokens", [None, 5])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_scores_are_those_of_the_eager_model(
    tokens: int | None, encoding: str, make_job: Any, eager: PreTrainedModel, tmp_path: Path
) -> None:
    """Rows of different lengths, all positions and K x K, odd and even vectors, in every encoding."""
    job = make_job(attention(tokens, encoding))
    check(built(job, tmp_path / "c"), job, eager)


@pytest.mark.parametrize("heads", ["mean", [2], [3, 0]])
def test_heads_are_averaged_or_chosen_in_the_order_given(
    heads: Any, make_job: Any, eager: PreTrainedModel, tmp_path: Path
) -> None:
    job = make_job(attention(6, "int8", heads=heads))
    cache = built(job, tmp_path / "c")
    field = cache.fields["attention"]
    assert isinstance(field, AttentionField)
    assert (field.num_heads, field.heads, field.teacher_heads) == (1 if heads == "mean" else len(heads), heads, 4)
    check(cache, job, eager)


@pytest.mark.parametrize(
    "length",
    [
        {"score": "received"},
        {"score": "left"},
        {"score": "random", "seed": 3},
        {"score_layer": "last"},
        {"specials": False},
    ],
    ids=str,
)
def test_positions_are_chosen_as_those_of_hidden_states(
    length: dict[str, Any], make_job: Any, eager: PreTrainedModel, tmp_path: Path
) -> None:
    job = make_job(attention(4, **length))
    check(built(job, tmp_path / "c"), job, eager)


def test_all_positions_but_the_special_tokens(make_job: Any, pairs: Examples, eager: Any, tmp_path: Path) -> None:
    job = make_job(attention(None, specials=False), rows=pairs)
    check(built(job, tmp_path / "c"), job, eager)


@pytest.mark.parametrize(
    ("depth", "layers", "pairs"),
    [
        ({}, [2, 4], [(1, 2), (2, 4)]),
        ({"num_layers": 1}, [4], [(2, 4)]),
        ({"stored": "all"}, [1, 2, 3, 4], [(1, 2), (2, 4)]),
        ({"stored": [0, 1, 4]}, [1, 4], [(2, 4)]),
    ],
)
def test_layers_are_those_of_the_map_or_those_listed(
    depth: dict[str, Any], layers: list[int], pairs: list[tuple[int, int]], make_job: Any
) -> None:
    """Counted from 1: the embedding output has no attention."""
    job = make_job(attention(4, **depth))
    assert job.fields["attention"].layers == layers
    assert [(pair.student, pair.teacher) for pair in job.request.attention_layers] == pairs


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"heads": [4]}, "heads 0 to 3"),
        ({"heads": [1, 1]}, "each once"),
        ({"heads": []}, "heads 0 to 3"),
        ({"stored": [0]}, "the embedding output alone"),
        ({"stored": [5]}, "list some of those"),
        ({"score": "all"}, "--score all"),
    ],
    ids=str,
)
def test_what_the_teacher_does_not_have_is_refused(given: dict[str, Any], message: str, make_job: Any) -> None:
    with pytest.raises(SpecError, match=message):
        make_job(attention(4, **given))


def test_hidden_states_are_the_same_with_attention_beside_them(make_job: Any, job_of: Any, tmp_path: Path) -> None:
    """The fields of one cache do not depend on each other, down to the bytes."""
    alone = job_of("3t_0.25h", encoding="int8")
    both = make_job(attention(5, "int8"), hidden=alone.spec.hidden, shard_rows=4, token_budget=40, max_length=48)
    first, second = built(alone, tmp_path / "a"), built(both, tmp_path / "b")
    assert set(second.fields) == {"inputs", "logits", "hidden", "attention"}
    assert first.manifest.shards["hidden"] == second.manifest.shards["hidden"]
    assert first.id != second.id


def test_bytes_do_not_depend_on_the_rows_of_a_batch(make_job: Any) -> None:
    """A row's scores are encoded alone: a batch with a longer row in it gives the same, up to float noise."""
    job = make_job(attention(None, "int4"))
    longest, shortest = int(job.rows.lengths.argmax()), int(job.rows.lengths.argmin())
    from hskcache.build.constants import extractor_for

    extractor = extractor_for(job)
    selector = next(one for one in extractor.selectors if one.name == "attention")
    stored = {}
    for rows in ([shortest], [longest, shortest]):
        inputs, batch = extractor.batch(np.array(rows))
        kept = extractor.knowledge(inputs, batch)
        arrays = selector.encode(kept["attention"][4], batch).arrays
        kept_n = int(job.rows.lengths[shortest])
        stored[len(rows)] = arrays["values"][-4 * kept_n * ((kept_n + 1) // 2) :], arrays["scales"][-4 * kept_n :]
    torch.testing.assert_close(stored[1][1], stored[2][1], rtol=1e-5, atol=1e-6)
    assert float((stored[1][0] != stored[2][0]).float().mean()) < 0.02
