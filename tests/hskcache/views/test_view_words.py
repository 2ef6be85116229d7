"""A view is written in one word, and every word that is none is refused with what to write."""

import pytest

from hskcache.errors import SpecError
from hskcache.views import View, parse_view


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
    "text", ["1l_5t_0.05h", "5t", "full", "2l,attention=1l", "layers=2+6,rows=64:128,fields=hidden+logits", "1e-05h"]
)
def test_a_view_is_written_in_one_way(text: str) -> None:
    view = parse_view(text)
    assert str(view) == text
    assert parse_view(str(view)) == view


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5x", "--view '5x' is not of the form 1l_10t_0.1h"),
        ("0t", "0 tokens; give at least 1"),
        ("none", "--view none would see nothing; name the fields to see"),
        ("attention=1l_0.5h", "attention scores have no columns; leave out the share"),
        ("attention=none", "--view attention none would see nothing"),
        ("row=5", "there is no part row; there are layers, attention, rows, fields, .*do you mean 'rows'"),
        ("5t,6t", "gives tokens twice"),
        ("layers=a", "'a' is not a number"),
        ("rows=5:", "'' is not a number"),
        ("rows=5:5", "rows 5 to 5 are none"),
        ("rows=0", "rows 0 to 0 are none"),
    ],
)
def test_a_word_that_is_no_view_is_refused(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as told:
        parse_view(text)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("parts", [{"layer": 1}, {"tokens": 0}, {"width": 1.5}, {"rows": "a"}, {"layers": []}])
def test_a_part_that_is_none_is_refused(parts: dict[str, object]) -> None:
    with pytest.raises(SpecError, match=next(iter(parts))):
        parse_view(**parts)
