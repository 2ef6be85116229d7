"""Words of a text: their places, and which of them may be replaced [TinyBERT 3.2]."""

import re
import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from hskcache.errors import SpecError
from hskcache.nearest import meant
from hskcache.resources import resource
from hskcache.strict import read_text

LETTERS = "[a-z]+"
"""Words of the paper: lower-case letters alone."""

NONE = "none"
LISTS = {"english": "english.txt", "published": "published.txt"}
"""Lists of stop words that ship: ours, and that of the paper's own code."""

# What stands between the words of a table or a line, and so in no word that is put into one.
_BREAKS = re.compile(r"[\s\x00-\x1f\x7f-\x9f\ufffd\ud800-\udfff]")

# The ending of a word, not the whole of it.
_POSSESSIVE = re.compile(r"(?<=[^\s'\u2019])['\u2019][sS](?!\w)")


class Span(NamedTuple):
    """Characters [start, stop) of a text."""

    start: int
    stop: int


def find_words(text: str) -> list[Span]:
    """Every word of a text, from left to right; what lies between two words belongs to neither.

    A word is a run of letters, digits, underscores and combining marks, with apostrophes inside it: ``don't`` is one
    word and ``self-made`` are two. An apostrophe before one or two letters belongs to them, so that the halves of
    contractions that corpora write apart (``it 's``, ``they 'll``) are not taken for words of one letter.
    """
    return [Span(*match.span()) for match in _word_pattern(text.isascii()).finditer(text)]


def has_possessive(text: str) -> bool:
    """True if some word of a text may end in ``'s``."""
    return _POSSESSIVE.search(text) is not None


@cache
def _word_pattern(is_ascii: bool) -> re.Pattern[str]:
    # Python's \w lacks combining marks, without which most scripts of India fall into pieces.
    letter = r"\w" if is_ascii else rf"[\w{_combining_marks()}]"
    apostrophe = "'" if is_ascii else "['\u2019]"
    joined = "'" if is_ascii else "['\u2019\u200c\u200d]"
    return re.compile(rf"(?:{apostrophe}(?={letter}{{1,2}}(?!{letter})))?{letter}+(?:{joined}{letter}+)*")


def _combining_marks() -> str:
    """Ranges of a character class: all characters of Unicode's category M."""
    ranges: list[list[int]] = []
    for code in range(0x300, sys.maxunicode + 1):
        if unicodedata.category(chr(code))[0] == "M":
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)


def can_stand_for_a_word(text: str) -> bool:
    """True if a text may be put in a word's place: not empty, and without blanks, line ends, tabs or controls."""
    return bool(text) and _BREAKS.search(text) is None


@dataclass(frozen=True)
class Eligible:
    """Rule for the words that may be replaced.

    ``pattern``: what a word must match as a whole; ``stop_words``: words that stay, in lower case; ``possessives``:
    whether of a word that ends in ``'s`` the part before that may be replaced.
    """

    pattern: re.Pattern[str]
    stop_words: frozenset[str]
    possessives: bool = True

    def part(self, text: str, word: Span) -> Span:
        """The part of a word of a text that is replaced, if any is: of ``company's`` that without ``'s``."""
        has_room = self.possessives and word.stop - word.start > 2
        ending = _POSSESSIVE.search(text, word.stop - 2, word.stop) if has_room else None
        return word if ending is None else Span(word.start, ending.start())

    def __call__(self, word: str) -> bool:
        """True if a word, folded as the vocabulary folds it, may be replaced."""
        return self.pattern.fullmatch(word) is not None and word.lower() not in self.stop_words


def eligible(pattern: str, stop_words: str, possessives: bool = True) -> Eligible:
    """Return the rule that ``--words``, ``--stop-words`` and ``--possessives`` add up to.

    ``stop_words``: a key of LISTS, ``none`` or a file, see read_stop_words. Raises SpecError if the pattern is not a
    regular expression, or the file cannot be read.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise SpecError(
            f"--words {pattern!r} is not a regular expression ({error}); give one such as '[a-z]+'"
        ) from None
    if stop_words == NONE:
        return Eligible(compiled, frozenset(), possessives)
    path = resource("stopwords", LISTS[stop_words]) if stop_words in LISTS else Path(stop_words)
    return Eligible(compiled, frozenset(read_stop_words(path)), possessives)


def read_stop_words(path: Path) -> Iterator[str]:
    """The words of a file, a word a line, but for # lines. Raises SpecError if the file cannot be read."""
    near = meant(str(path), (*LISTS, NONE))
    advice = f"give {', '.join(LISTS)}, none or a file with a word a line{near}"
    for line in read_text(path, f"--stop-words {path}", advice).split("\n"):
        word = line.strip().lower()
        if word and not word.startswith("#"):
            yield word
