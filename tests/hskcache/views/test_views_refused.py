"""Views that a cache does not hold, or of which a build would have given other values, are refused with the reason."""

from collections.abc import Callable
from typing import Any

import pytest

from hskcache.build.build import build
from hskcache.cache import Cache, open_cache
from hskcache.errors import MismatchError, SpecError
from hskcache.spec import Attention, Depth, Length

Make = Callable[..., Cache]


@pytest.fixture(scope="module")
def cache_of(job_of: Any, tmp_path_factory: pytest.TempPathFactory) -> Make:
    def make(keep: str, **given: Any) -> Cache:
        out = tmp_path_factory.mktemp("refused") / "c"
        build(job_of(keep, **given), out)
        return open_cache(out)

    return make


@pytest.fixture(scope="module")
def plain(cache_of: Make) -> Cache:
    attention = Attention(depth=Depth(student_layers=2), length=Length(tokens=6))
    return cache_of("2l_6t_0.5h", encoding="int8", attention=attention)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3l", "hidden of .* cannot be seen so: layer 0 of the teacher is asked for, and layers 2, 4 are stored"),
        ("layers=1+2", "layer 1 of the teacher is asked for"),
        ("4l", "the view asks for 4 layers, and the map has 3 with the embedding output; ask for at most 3"),
        ("attention=9l", "the view asks for 9 layers"),
        ("7t", "7 positions are asked for, and 6 are stored"),
        ("0.6h", "of 32 columns 19 are asked for, and 16 are stored"),
        ("1.0h,7t", "7 positions are asked for"),
        ("attention=5t", "int8 has one scale for the scores of a query"),
        ("attention=7t", "7 positions are asked for, and 6 are stored"),
        ("fields=hiden", "has no field hiden; it has inputs, logits, hidden, attention; do you mean 'hidden'"),
        ("rows=41", "has no rows 0 to 40; it has 40, counted from 0"),
        ("rows=5:8", "a view begins with a shard, such as that of row 4"),
    ],
)
def test_what_is_not_stored_is_refused(plain: Cache, text: str, message: str) -> None:
    with pytest.raises(MismatchError, match=message) as told:
        plain.view(text)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("keep", "given", "text", "message"),
    [
        ("full", {}, "5t", "nothing tells which are best; a cache built with 48t holds as many, best first"),
        ("full", {"length__score": "right"}, "5t", "nothing tells which are best"),
        ("full", {"length__score": "all"}, "5t", "--score all keeps every position"),
        ("6t_0.5h", {"width__scheme": "uniform", "encoding": "int8"}, "0.25h", "int8 has one scale a position"),
        ("6t_0.5h", {"width__scheme": "random", "encoding": "int4"}, "0.25h", "int4 has one scale a position"),
        ("6t_0.5h", {"width__scheme": "uniform"}, "0.3h", "not among those stored as shared"),
        ("6t_0.5h", {"width__scheme": "uniform"}, "columns=random,0.3h", "not among those stored as shared"),
        ("6t_0.5h", {"width__scheme": "uniform"}, "columns=magnitude,0.3h", "the stored ones were chosen otherwise"),
        ("6t", {}, "score=left", "not every position is stored; a cache built with 48t holds all"),
        ("6t", {}, "specials=no", "by attention without special tokens, and not every position"),
        ("48t", {"length__score": "cls"}, "score=left", "not every position is stored"),
        ("full", {}, "3t,specials=no", "nothing tells which are best"),
        ("48t", {"encoding": "float16"}, "encoding=int8", "float16, in which it is stored, has lost digits already"),
        ("48t", {"encoding": "int8"}, "encoding=float32", "int8, in which it is stored, has lost digits"),
        ("48t", {"encoding": "int8"}, "columns=uniform,0.3h", "int8 has one scale a position"),
        ("6t_0.5h", {"width__scheme": "pca"}, "0.3h", "another product, whose last digits"),
        ("6t_0.5h", {"width__scheme": "pca"}, "5t", "fitted to the positions that are kept"),
    ],
)
def test_what_a_build_would_have_stored_otherwise_is_refused(
    cache_of: Make, keep: str, given: dict[str, Any], text: str, message: str
) -> None:
    with pytest.raises((MismatchError, SpecError), match=message):
        cache_of(keep, **given).view(text)


def test_in_the_order_of_the_row_the_leftmost_are_the_first(cache_of: Make) -> None:
    view = cache_of("full", length__score="left").view("3t")
    assert view.row(0)["hidden"][4]["positions"].tolist() == [0, 1, 2]


def test_a_view_is_no_folder(plain: Cache) -> None:
    view = plain.view("1l")
    with pytest.raises(MismatchError, match=r"the view 1l of .* is no folder of this machine"):
        view.root  # noqa: B018
    with pytest.raises(MismatchError, match="hskcache extract writes a cache of it"):
        view.manifest.to_json()
