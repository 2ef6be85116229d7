"""A view of a cache holds, array by array, what a build of the narrower spec stores."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hskcache.build.build import build
from hskcache.build.job import Job, prepare_job
from hskcache.cache import AttentionField, Cache, HiddenField, open_cache
from hskcache.decoded import decode
from hskcache.encoded import ENCODED
from hskcache.encoding import get_encoding
from hskcache.encoding.bitmask import pack_columns
from hskcache.errors import DamageError
from hskcache.selection.width import magnitude_columns
from hskcache.spec import Attention, Depth, Hidden, Length, Spec, Width
from hskcache.teacher.load import Teacher
from hskcache.text import Examples, tokenize
from hskcache.views.columns import largest

ENCODINGS = list(ENCODED)
# Rows have up to 17 tokens, so that these are all of them, best first, and others are fewer.
ALL_TOKENS = 40


@dataclass
class Builds:
    """Caches of the tiny teacher, each built once."""

    teacher: Teacher
    examples: Examples
    folder: Path
    known: dict[str, Cache] = field(default_factory=dict)

    def job(self, spec: Spec) -> Job:
        rows = tokenize(self.examples, self.teacher.tokenizer, spec.max_length)
        return prepare_job(self.teacher, self.examples, rows, spec)

    def __call__(self, hidden: Hidden | None, attention: Attention | None = None) -> Cache:
        spec = Spec(hidden=hidden, attention=attention, max_length=48, shard_rows=7, token_budget=60)
        job = self.job(spec)
        if job.request.digest not in self.known:
            out = self.folder / job.request.digest[:12]
            build(job, out)
            self.known[job.request.digest] = open_cache(out)
        return self.known[job.request.digest]


@pytest.fixture(scope="module")
def builds(teacher: Teacher, examples: Examples, tmp_path_factory: pytest.TempPathFactory) -> Builds:
    return Builds(teacher, examples, tmp_path_factory.mktemp("builds"))


def hidden(
    encoding: Any = "float32", layers: int | None = None, tokens: int | None = ALL_TOKENS, **width: Any
) -> Hidden:
    score = width.pop("score", "attention")
    depth = Depth(student_layers=3, num_layers=layers)
    return Hidden(depth=depth, length=Length(tokens=tokens, score=score), width=Width(**width), encoding=encoding)


def attention(encoding: Any = "float32", layers: int | None = None, tokens: int | None = ALL_TOKENS) -> Attention:
    return Attention(depth=Depth(student_layers=3, num_layers=layers), length=Length(tokens=tokens), encoding=encoding)


def assert_same(view: Cache, built: Cache) -> None:
    """The same request, fields, arrays and constants."""
    assert view.manifest.request == built.manifest.request
    assert view.fields == built.fields
    assert view.shards == built.shards
    for name in built.fields:
        assert_equal(view.constants(name), built.constants(name))
        for shard in range(len(built.shards)):
            assert_equal(view.read(name, shard), built.read(name, shard))


def assert_equal(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert ours[name].dtype == array.dtype, name
        assert ours[name].flags.c_contiguous
        assert ours[name].flags.writeable
        assert np.array_equal(ours[name], array), name


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    ("text", "layers", "tokens"), [("1l", 1, 40), ("3l_5t", 3, 5), ("9t", None, 9), ("1l_1t", 1, 1)]
)
def test_fewer_layers_and_positions_are_those_of_a_build(
    builds: Builds, encoding: str, text: str, layers: int | None, tokens: int
) -> None:
    whole = builds(hidden(encoding))
    assert_same(whole.view(text), builds(hidden(encoding, layers, tokens)))


@pytest.mark.parametrize("stored", [1.0, 0.5])
@pytest.mark.parametrize("fraction", [0.25, 0.03])
def test_fewer_columns_of_float32_are_those_of_a_build(builds: Builds, stored: float, fraction: float) -> None:
    whole = builds(hidden("float32", fraction=stored))
    built = builds(hidden("float32", 1, 5, fraction=fraction))
    assert_same(whole.view(f"1l_5t_{fraction}h"), built)
    assert {"columns", "bitmask"} & {name.rpartition("/")[2] for name in built.read("hidden", 0)}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("stored", [1.0, 0.7])
@pytest.mark.parametrize("fraction", [0.4, 0.03])
def test_fewer_columns_differ_from_a_build_only_where_the_encoding_makes_values_equal(
    builds: Builds, encoding: str, stored: float, fraction: float
) -> None:
    view = builds(hidden(encoding, fraction=stored)).view(f"2l_5t_{fraction}h")
    built = builds(hidden(encoding, 2, 5, fraction=fraction))
    assert view.manifest.request == built.manifest.request
    field = view.fields["hidden"]
    assert isinstance(field, HiddenField)
    num_other = 0
    for shard in range(len(view.shards)):
        ours, theirs = view.read("hidden", shard), built.read("hidden", shard)
        assert {name: array.shape for name, array in ours.items()} == {n: array.shape for n, array in theirs.items()}
        for name in ours:
            if name.rpartition("/")[2] in {"position_offsets", "positions", "scales"}:
                assert np.array_equal(ours[name], theirs[name])
        for layer in field.layers:
            here, there = (decode(field, arrays, layer, {}) for arrays in (ours, theirs))
            num_other += assert_ties(dense(here, field.width), dense(there, field.width), field.num_columns)
    if encoding == "float32":
        assert num_other == 0


def dense(vectors: Any, width: int) -> torch.Tensor:
    """Values at their columns; NaN elsewhere, so that a value of 0 is not taken for none."""
    return torch.full((len(vectors.values_VE), width), torch.nan).scatter_(1, vectors.entries_VE, vectors.values_VE)


def assert_ties(ours: torch.Tensor, theirs: torch.Tensor, num_columns: int) -> int:
    """Values of the same sizes, alike where both have one; where one alone has, the least."""
    sizes = [side.abs().nan_to_num(nan=-1.0).sort(descending=True).values[:, :num_columns] for side in (ours, theirs)]
    assert torch.equal(*sizes)
    both = ~(ours.isnan() | theirs.isnan())
    assert torch.equal(ours[both], theirs[both])
    for side, other in ((ours, theirs), (theirs, ours)):
        alone = ~side.isnan() & other.isnan()
        least = sizes[0][:, -1:].expand(side.shape)
        assert torch.equal(side.abs()[alone], least[alone])
    return int((ours.isnan() != theirs.isnan()).sum())


@pytest.mark.parametrize("encoding", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(
    ("scheme", "stored", "fraction"),
    [("uniform", 0.5, 0.25), ("random", 0.5, 0.2)],
)
def test_columns_that_all_positions_share_are_those_of_a_build_where_they_nest(
    builds: Builds, encoding: str, scheme: str, stored: float, fraction: float
) -> None:
    whole = builds(hidden(encoding, scheme=scheme, fraction=stored, seed=3))
    built = builds(hidden(encoding, 1, 4, scheme=scheme, fraction=fraction, seed=3))
    assert_same(whole.view(f"1l_4t_{fraction}h"), built)


def test_fewer_layers_of_principal_components_are_those_of_a_build(builds: Builds) -> None:
    """They are fitted to a sample of the positions that are kept, layer by layer."""
    whole = builds(hidden("int8", scheme="pca", fraction=0.25, tokens=6))
    assert_same(whole.view("1l"), builds(hidden("int8", 1, 6, scheme="pca", fraction=0.25)))


@pytest.mark.parametrize("score", ["left", "right", "random", "received", "cls"])
def test_positions_by_any_score_are_those_of_a_build(builds: Builds, score: str) -> None:
    whole = builds(hidden("int8", score=score))
    assert_same(whole.view("2t"), builds(hidden("int8", tokens=2, score=score)))


@pytest.mark.parametrize("score", ["left", "right", "random", "cls"])
@pytest.mark.parametrize("stored", ["attention", "received"])
@pytest.mark.parametrize("tokens", [3, 40])
def test_positions_by_another_score_are_those_of_a_build_where_all_are_stored(
    builds: Builds, score: str, stored: str, tokens: int
) -> None:
    """No row has as many as 48 tokens, the most that the cache could have."""
    whole = builds(hidden("int8", tokens=48, score=stored))
    assert_same(whole.view(f"2l_{tokens}t,score={score}"), builds(hidden("int8", 2, tokens, score=score)))


@pytest.mark.parametrize("score", ["attention", "left", "random"])
@pytest.mark.parametrize("tokens", [1, 3, 48])
def test_positions_without_special_tokens_are_those_of_a_build(builds: Builds, score: str, tokens: int) -> None:
    whole = builds(hidden("float16", tokens=48))
    asked = hidden("float16", 1, tokens, score=score)
    plain = asked.model_copy(update={"length": asked.length.model_copy(update={"specials": False})})
    other = "" if score == "attention" else f",score={score}"
    assert_same(whole.view(f"1l_{tokens}t,specials=no{other}"), builds(plain))


def test_positions_in_the_order_of_the_row_are_chosen_where_every_one_is_stored(builds: Builds) -> None:
    whole = builds(hidden("float32", tokens=None))
    assert_same(whole.view("2t,score=random"), builds(hidden("float32", tokens=2, score="random")))
    assert_same(whole.view("score=cls"), builds(hidden("float32", tokens=None, score="cls")))


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    ("text", "width"),
    [
        ("1l_5t", {}),
        ("1l_5t_0.25h", {"fraction": 0.25}),
        ("1l_5t_0.03h", {"fraction": 0.03}),
        ("1l_5t_0.25h,columns=uniform", {"scheme": "uniform", "fraction": 0.25}),
        ("1l_5t_0.25h,columns=random", {"scheme": "random", "fraction": 0.25}),
    ],
)
def test_what_is_stored_as_it_came_is_encoded_as_a_build_does(
    builds: Builds, encoding: str, text: str, width: dict[str, Any]
) -> None:
    """Columns of any choice, the positions' own or shared, and every encoding, from one cache in float32."""
    view = builds(hidden("float32")).view(f"{text},encoding={encoding}")
    assert_same(view, builds(hidden(encoding, 1, 5, **width)))


@pytest.mark.parametrize("target", [2, 3, 4])
@pytest.mark.parametrize("layers", [1, 3])
def test_another_target_gives_the_layers_of_its_map(builds: Builds, target: int, layers: int) -> None:
    whole = hidden("int8")
    every = whole.model_copy(update={"depth": whole.depth.model_copy(update={"stored": "all"})})
    narrow = hidden("int8", layers, 4)
    asked = narrow.model_copy(update={"depth": narrow.depth.model_copy(update={"target": target})})
    assert_same(builds(every).view(f"{layers}l_4t,target={target}"), builds(asked))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_fewer_layers_of_attention_are_those_of_a_build(builds: Builds, encoding: str) -> None:
    whole = builds(hidden(), attention(encoding, tokens=6))
    built = builds(hidden(tokens=3), attention(encoding, 1, 6))
    assert_same(whole.view("3t,attention=1l"), built)


@pytest.mark.parametrize(("encoding", "digits"), [("float32", 2e-6), ("float16", 2e-3), ("bfloat16", 2e-2)])
@pytest.mark.parametrize("tokens", [5, 1])
def test_attention_between_fewer_positions_is_that_of_a_build_but_for_the_last_digits(
    builds: Builds, encoding: str, digits: float, tokens: int
) -> None:
    """A build multiplies the queries and keys of the kept positions alone, and other sizes round otherwise."""
    whole = builds(None, attention(encoding))
    view, built = whole.view(f"attention=2l_{tokens}t"), builds(None, attention(encoding, 2, tokens))
    assert (view.manifest.request, view.fields) == (built.manifest.request, built.fields)
    field = view.fields["attention"]
    assert isinstance(field, AttentionField)
    for shard in range(len(view.shards)):
        for layer in field.layers:
            ours, theirs = (decode(field, cache.read("attention", shard), layer, {}) for cache in (view, built))
            assert torch.equal(ours.positions_V, theirs.positions_V)
            assert torch.equal(ours.entries_VE, theirs.entries_VE)
            assert (ours.values_VE - theirs.values_VE).abs().max() < digits


@pytest.mark.parametrize("stored", ["all", "bitmask", "indices"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_largest_columns_of_any_width_are_those_of_a_selection(stored: Any, encoding: Any) -> None:
    """As many columns as teachers have, told in every way; the values are few, so that the rule of ties decides."""
    draw, width = torch.Generator().manual_seed(0), 770
    states = torch.randint(-5, 6, (40, width), generator=draw) * torch.rand(40, 1, generator=draw)
    num_stored, num_seen = {"all": (width, 200), "bitmask": (200, 99), "indices": (40, 7)}[stored]
    common: dict[str, Any] = {"width": width, "encoding": encoding, "layers": [1], "max_tokens": 3}
    source = HiddenField(num_columns=num_stored, columns=stored, **common)
    kind: Any = "bitmask" if 2 * num_seen >= -(-width // 8) else "indices"
    field = HiddenField(num_columns=num_seen, columns=kind, **common)
    kept, expected = stored_as(source, states), stored_as(field, as_encoded(encoding, states))
    seen = largest(source, field, kept)
    assert {name: array.shape for name, array in seen.items()} == {n: array.shape for n, array in expected.items()}
    for name in expected.keys() - {"scales", "values"}:
        assert np.array_equal(seen[name], expected[name]), name
    ours, theirs = (
        get_encoding(encoding).decode(
            {name: torch.from_numpy(part[name]) for name in ENCODED[encoding].of(1)}, num_seen
        )
        for part in (seen, expected)
    )
    assert torch.allclose(ours, theirs, rtol=1e-6, atol=0)


def as_encoded(encoding: str, states: torch.Tensor) -> torch.Tensor:
    code = get_encoding(encoding)
    return code.decode(code.encode(states), states.shape[1])


def stored_as(field: HiddenField, states: torch.Tensor) -> dict[str, Any]:
    """The largest columns of some states as a build stores them."""
    columns = magnitude_columns(states, field.num_columns)
    encoded = get_encoding(field.encoding).encode(states.gather(-1, columns))
    parts = {"positions": np.arange(len(states), dtype=np.uint16)} | {n: part.numpy() for n, part in encoded.items()}
    if field.columns == "bitmask":
        parts["bitmask"] = pack_columns(columns, field.width).numpy()
    if field.columns == "indices":
        parts["columns"] = columns.numpy().astype(np.uint16)
    return parts


def test_a_bitmask_of_another_number_of_columns_is_damage() -> None:
    common: dict[str, Any] = {"width": 32, "encoding": "float32", "layers": [1]}
    source = HiddenField(num_columns=8, columns="bitmask", **common)
    field = HiddenField(num_columns=4, columns="bitmask", **common)
    parts = stored_as(source, torch.randn(3, 32))
    parts["bitmask"][1, 0] ^= 1
    with pytest.raises(DamageError, match="bitmask of other than 8 columns"):
        largest(source, field, parts)
