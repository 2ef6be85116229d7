"""Where words begin and end, and which of them may be replaced."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from real import real_file

from hskcache.augment.words import LETTERS, can_stand_for_a_word, eligible, find_words, has_possessive
from hskcache.errors import SpecError
from hskcache.resources import resource


def words(text: str) -> list[str]:
    return [text[slice(*span)] for span in find_words(text)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("I don't know.", ["I", "don't", "know"]),
        ("i do n't know it 's", ["i", "do", "n't", "know", "it", "'s"]),
        ("they\u2019re 'quite' self-made, dogs' tails", ["they\u2019re", "quite", "self", "made", "dogs", "tails"]),
        ("rock'n'roll `` we 'll '' 3d 2.5", ["rock'n'roll", "we", "'ll", "3d", "2", "5"]),
        ("Köln, où l'été — cafe\u0301s", ["Köln", "où", "l'été", "cafe\u0301s"]),
        ("Это кино", ["Это", "кино"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("می\u200cروم", ["می\u200cروم"]),
        (" \t ... '' ' ", []),
        ("", []),
    ],
)
def test_words_are_runs_of_letters_with_their_apostrophes_and_marks(text: str, found: list[str]) -> None:
    assert words(text) == found


@given(st.text(max_size=40))
def test_spans_are_in_order_apart_and_hold_every_letter(text: str) -> None:
    spans = find_words(text)
    assert all(first.stop <= second.start for first, second in pairwise(spans))
    assert all(span.start < span.stop for span in spans)
    between = "".join(character for i, character in enumerate(text) if not any(a <= i < b for a, b in spans))
    assert not any(character.isalnum() for character in between)


def test_the_default_takes_lower_case_words_that_are_no_stop_words() -> None:
    takes = eligible(LETTERS, "english")
    assert takes("charming")
    taken = [
        word
        for word in ("the", "not", "n't", "'s", "s", "don't", "3d", "Film", "film2", "caf\u00e9", "")
        if takes(word)
    ]
    assert taken == []


def test_stop_words_hold_in_any_case_and_can_be_turned_off_or_replaced(tmp_path: Path) -> None:
    assert not eligible(r"\w+", "english")("The")
    assert eligible(r"\w+", "none")("The")
    (tmp_path / "stop.txt").write_text("\ufeff# mine\n\nFilm \r\n", encoding="utf-8")
    mine = eligible(r"\w+", str(tmp_path / "stop.txt"))
    assert not mine("film")
    assert mine("the")
    assert mine("mine")


def test_the_english_list_is_of_single_lower_case_words_once_each() -> None:
    lines = resource("stopwords", "english.txt").read_text(encoding="utf-8").splitlines()
    listed = [line for line in lines if not line.startswith("#")]
    assert len(set(listed)) == len(listed) > 150
    assert all(word.isascii() and word.isalpha() and word.islower() for word in listed)


def test_a_possessive_ending_is_no_part_of_what_is_replaced() -> None:
    """Whatever the apostrophe; plurals, contractions and an ending that corpora write apart are words as before."""
    text = "the Company's boss\u2019S dogs' don't cafe\u0301's it 's n't o's 's"
    takes = eligible(LETTERS, "none")
    parts = [text[slice(*takes.part(text, word))] for word in find_words(text)]
    assert parts == ["the", "Company", "boss", "dogs", "don't", "cafe\u0301", "it", "'s", "n't", "o", "'s"]
    as_before = eligible(LETTERS, "none", possessives=False)
    assert [as_before.part(text, word) for word in find_words(text)] == find_words(text)
    assert has_possessive(text)
    assert not has_possessive("it 's don't dogs' 's ''s cats'saw")


def test_the_published_list_is_that_of_nltk_without_question_words() -> None:
    published, ours = eligible(LETTERS, "published"), eligible(LETTERS, "english")
    questions = ("what", "which", "who", "whom", "when", "where", "why", "how")
    assert [published(word) for word in questions] == [True] * 8
    assert [ours(word) for word in questions] == [False] * 8
    assert len(published.stop_words) == 179 - 8 + 2
    assert not any(map(published, ("the", "few", "own", "s", "t")))


def test_the_published_list_beside_nltk_s_own() -> None:
    nltk = set(real_file("HSKCACHE_VECTORS", "vectors", "stopwords-english.txt").read_text().split())
    published = eligible(LETTERS, "published").stop_words
    assert nltk - published == {"what", "which", "who", "whom", "when", "where", "why", "how"}
    assert published - nltk == {"'s", "'re"}


@pytest.mark.parametrize(
    "text", ["", "a b", "a\tb", "a\nb", "a\u2028b", "a\x85", "\x00", "a\u00a0b", "\ufffd", chr(0xD800)]
)
def test_what_would_break_a_row_cannot_stand_for_a_word(text: str) -> None:
    assert not can_stand_for_a_word(text)


def test_bad_patterns_and_files_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"--words '\[a-z' is not a regular expression"):
        eligible("[a-z", "english")
    with pytest.raises(SpecError, match=r"--stop-words .*gone.txt: No such file"):
        eligible(LETTERS, str(tmp_path / "gone.txt"))
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(SpecError, match="is not UTF-8"):
        eligible(LETTERS, str(tmp_path / "latin.txt"))
