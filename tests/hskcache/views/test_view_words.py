"""A view is written in one word, and every word that is none is refused with what to write."""

from pathlib import Path

import pytest
from commanded import parsed, refused

from hskcache.errors import SpecError
from hskcache.views import View, parse_view

TINY = Path(__file__).resolve().parents[2] / "golden" / "tiny-2.hsk"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("1l_5t_0.05h", {"layers": 1, "tokens": 5, "width": 0.05}),
        ("5t", {"tokens": 5}),
        ("1e-1h", {"width": 0.1}),
        ("full", {}),
        ("", {}),
        ("layers=6+2", {"layers": (6, 2)}),
        ("2l,attention=1l_8t", {"layers": 2, "attention": "1l_8t"}),
        ("rows=100", {"rows": (0, 100)}),
        ("rows=64:128,fields=logits+hidden", {"rows": (64, 128), "fields": ("logits", "hidden")}),
        ("rows=:9", {"rows": (0, 9)}),
        ("5t,score=left,specials=no", {"tokens": 5, "score": "left", "specials": False}),
        ("0.1h,columns=uniform,encoding=int4", {"width": 0.1, "columns": "uniform", "encoding": "int4"}),
        ("1l,target=8", {"layers": 1, "target": 8}),
    ],
)
def test_a_word_gives_its_parts(text: str, parts: dict[str, object]) -> None:
    assert parse_view(text) == View(**parts)
    assert parse_view(**parts) == View(**parts)


def test_parts_beside_a_word_and_in_other_types_are_the_same() -> None:
    assert parse_view("5t", rows=range(4, 8), layers=[2, 3], fields=["logits"]) == View(
        tokens=5, rows=(4, 8), layers=(2, 3), fields=("logits",)
    )
    assert parse_view(rows=7) == View(rows=(0, 7))


@pytest.mark.parametrize(
    "text",
    [
        "1l_5t_0.05h",
        "5t",
        "full",
        "2l,attention=1l",
        "layers=2+6,rows=64:128,fields=hidden+logits",
        "1e-05h",
        "2t,target=8,score=random,specials=no,columns=random,encoding=int8,attention=1l",
    ],
)
def test_a_view_is_written_in_one_way(text: str) -> None:
    view = parse_view(text)
    assert str(view) == text
    assert parse_view(str(view)) == view


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5x", "the view '5x' is not of the form 1l_10t_0.1h"),
        ("0t", "0 tokens; give at least 1"),
        ("none", "the view none would see nothing; name the fields to see"),
        ("attention=1l_0.5h", "attention scores have no columns; leave out the share"),
        ("attention=none", "the view attention none would see nothing"),
        ("row=5", "there is no part row; there are layers, target, .* rows, fields, .*do you mean 'rows'"),
        ("5t,6t", "gives tokens twice"),
        ("layers=a", "'a' is not a number"),
        ("rows=5:", "'' is not a number"),
        ("rows=5:5", "rows 5 to 5 are none"),
        ("rows=0", "rows 0 to 0 are none"),
        ("rows=-3", "rows 0 to -3 are none"),
        ("dims=-4", "dims is -4, which is not a number of values from 1 on"),
        ("copies=-1", "copies is -1, which is not a number of copies from 0 on"),
        ("copies=--1", "'--1' is not a number"),
    ],
)
def test_a_word_that_is_no_view_is_refused(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as told:
        parse_view(text)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"layer": 1}, "the view: layer: there is no such key; there are layers, .*do you mean 'layers'"),
        ({"tokens": 0}, "the view: tokens is 0, which is not a number of positions from 1 on"),
        ({"width": 1.5}, "the view: width is 1.5, which is not a share of the columns above 0 and at most 1"),
        ({"rows": "a"}, "the view: rows is 'a', which is not a number of rows, or a start and a stop"),
        ({"rows": (5, 5)}, "the view: rows 5 to 5 are none; give a start, and a larger stop$"),
        ({"layers": []}, "the view: layers is .*, which is not a number of layers from 1 on, or teacher layers"),
        ({"fields": 3}, "the view: fields is 3, which is not names of fields"),
    ],
)
def test_a_part_that_is_none_is_refused_in_our_own_words(parts: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_view(**parts)


def test_an_empty_view_is_no_view_of_all() -> None:
    for command in ("info", "view", "extract"):
        out = ("--out", "nowhere") if command == "extract" else ()
        assert refused(command, TINY, "--view", "", *out).startswith("--view is empty; give a view such as")


def test_a_row_is_shown_as_a_view_sees_it() -> None:
    whole, seen = parsed("view", TINY, 1), parsed("view", TINY, 1, "--view", "1l_1t,fields=hidden")
    top = max(whole["kept"], key=int)
    assert seen["kept"] == {top: whole["kept"][top][:1]}
    assert (seen["logits"], whole["logits"]) == ([], [1.5, -1.0])
