"""Copies replace eligible words by chance and nothing else."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hskcache.augment import Chance, Sentence
from hskcache.augment.candidates import ReplaceableWord
from hskcache.augment.copies import copies_of
from hskcache.augment.words import find_words


def sentence(text: str, words: tuple[str, ...] = ("x", "y", "z"), skip: frozenset[int] = frozenset()) -> Sentence:
    """Every word of a text may become one of ``words``, but for those whose number is to be skipped."""
    spans = find_words(text)
    choices = [
        ReplaceableWord(number, span, words, "vectors") for number, span in enumerate(spans) if number not in skip
    ]
    return Sentence(text, len(spans), choices, 0)


def test_probability_0_gives_the_row_alone_and_1_replaces_every_word() -> None:
    text = sentence('He said: "no,  not -- now!"\t')
    assert [copy.texts for copy in copies_of(3, [text], Chance(20, 0.0, 0))] == [(text.text,)]
    for copy in copies_of(3, [text], Chance(20, 1.0, 0))[1:]:
        assert re.fullmatch(r'[xyz] [xyz]: "[xyz],  [xyz] -- [xyz]!"\t', copy.texts[0])
        assert copy.replaced == {"vectors": 5}


def test_copies_are_distinct_in_order_and_the_row_comes_first() -> None:
    found = copies_of(0, [sentence("a b", ("a", "b"))], Chance(50, 0.5, 0))
    texts = [copy.texts[0] for copy in found]
    assert texts[0] == "a b"
    assert sorted(texts) == ["a a", "a b", "b a", "b b"]
    numbers = [copy.number for copy in found]
    assert numbers[0] == 0
    assert numbers == sorted(set(numbers))
    assert numbers[-1] <= 50


def test_one_copy_gives_at_most_two_rows() -> None:
    counts = {len(copies_of(row, [sentence("a b", ("c",))], Chance(1, 0.4, 0))) for row in range(30)}
    assert counts == {1, 2}


def test_the_share_of_replaced_words_is_the_probability_and_candidates_are_drawn_alike() -> None:
    text = sentence(" ".join(f"w{number}" for number in range(40)))
    words = [
        word
        for row in range(60)
        for copy in copies_of(row, [text], Chance(20, 0.4, 7))[1:]
        for word in copy.texts[0].split()
    ]
    drawn = [word for word in words if word in "xyz"]
    assert abs(len(drawn) / len(words) - 0.4) < 0.01
    shares = np.array([drawn.count(word) for word in "xyz"]) / len(drawn)
    assert np.abs(shares - 1 / 3).max() < 0.01


def test_a_copy_of_a_pair_varies_one_text_and_leaves_the_other_as_it_was() -> None:
    """N copies for the first text, then N for the second, each drawn as of that text alone; the original once."""
    first, second = sentence("a b c d e"), sentence("f g h")
    found = {copy.number: copy.texts for copy in copies_of(4, [first, second], Chance(20, 0.5, 0))}
    assert found.pop(0) == (first.text, second.text)
    assert max(found) > 20
    for number, texts in found.items():
        assert texts[0 if number > 20 else 1] == (first if number > 20 else second).text
    alone = copies_of(4, [first], Chance(20, 0.5, 0))[1:]
    assert [texts[0] for number, texts in found.items() if number <= 20] == [copy.texts[0] for copy in alone]
    # The second text's own draws are those of varying both.
    both = {copy.number: copy.texts[1] for copy in copies_of(4, [first, second], Chance(20, 0.5, 0, "both"))}
    assert all(texts[1] == both.get(number - 20, texts[1]) for number, texts in found.items() if number > 20)


def test_a_row_of_a_pair_becomes_as_many_as_published() -> None:
    """Up to 60 copies a row of RTE, whose N is 30, none of them twice."""
    text = sentence(" ".join(f"w{number}" for number in range(30)))
    found = copies_of(0, [text, text], Chance(30, 0.4, 0))
    assert len(found) == len({copy.texts for copy in found}) == 61
    assert len(copies_of(0, [text, text], Chance(30, 0.4, 0, "both"))) == 31


def test_both_texts_of_a_pair_can_be_varied_each_by_itself() -> None:
    text = sentence("a b c d e")
    found = copies_of(0, [text, text], Chance(20, 0.5, 0, "both"))[1:]
    assert any(first != second for first, second in (copy.texts for copy in found))
    alone = {copy.number: copy.texts[0] for copy in copies_of(0, [text], Chance(20, 0.5, 0))}
    assert all(alone.get(copy.number, copy.texts[0]) == copy.texts[0] for copy in found)


def test_a_word_is_drawn_for_by_its_place_whatever_else_is_eligible() -> None:
    every, some = sentence("a b c d e f"), sentence("a b c d e f", skip=frozenset({0, 3}))
    whole = {copy.number: copy.texts[0].split() for copy in copies_of(0, [every], Chance(20, 0.5, 0))}
    for copy in copies_of(0, [some], Chance(20, 0.5, 0)):
        for place in {1, 2, 4, 5}:
            assert copy.texts[0].split()[place] == whole[copy.number][place]


@pytest.mark.parametrize("change", [{"seed": 1}, {"row": 6}])
def test_seed_and_row_change_the_copies(change: dict[str, int]) -> None:
    text = sentence("a b c d e f")

    def texts(row: int = 5, seed: int = 0) -> list[tuple[str, ...]]:
        return [copy.texts for copy in copies_of(row, [text], Chance(10, 0.5, seed))]

    assert texts() == texts()
    assert texts() != texts(**change)


# The pattern of words is made when the first text needs it.
@settings(deadline=None)
@given(text=st.text(max_size=60), seed=st.integers())
def test_what_lies_between_words_never_changes(text: str, seed: int) -> None:
    original = sentence(text, ("REPLACED",))
    gaps = [
        text[a:b]
        for a, b in zip(
            [0, *(s.stop for s in find_words(text))], [*(s.start for s in find_words(text)), len(text)], strict=True
        )
    ]
    for copy in copies_of(0, [original], Chance(5, 1.0, seed))[1:]:
        assert copy.texts[0] == "REPLACED".join(gaps)
