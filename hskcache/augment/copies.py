"""Copies of a row in which each word is replaced by chance [TinyBERT 3.2, Algorithm 1]."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hskcache.augment.candidates import Origin, Sentence
from hskcache.augment.draws import draws

Pairs: TypeAlias = Literal["one-at-a-time", "both"]


class Chance(NamedTuple):
    """Settings by which copies are drawn.

    Attributes:
        copies: of every text, N; of both texts of a pair together where they are varied so.
        probability: that a word of a copy is replaced, p.
        seed: of all draws.
        pairs: whether a copy varies one text of a pair, as the paper's code does, or both.
    """

    copies: int
    probability: float
    seed: int
    pairs: Pairs = "one-at-a-time"


class Copy(NamedTuple):
    """A copy of a row.

    Attributes:
        number: 1 to N, of a pair whose texts are varied one at a time N + 1 to 2 N for the second; 0 is the row itself.
        texts: of its text columns, one or two.
        replaced: words that were replaced, by what proposed the replacement.
    """

    number: int
    texts: tuple[str, ...]
    replaced: Counter[Origin]


def copies_of(row: int, columns: Sequence[Sentence], chance: Chance) -> list[Copy]:
    """The row itself and then its copies, those that equal one before left out.

    ``row``: in its source, counted from 0. ``columns``: the row's text, or both texts of a pair; each is varied by
    itself.
    """
    drawn = [draws(chance.seed, row, at, (chance.copies, text.num_words)) for at, text in enumerate(columns)]
    # A dictionary keeps the first of equal texts.
    original = tuple(sentence.text for sentence in columns)
    distinct = {original: Copy(0, original, Counter())}
    places = range(len(columns))
    for turn, varied in enumerate([places] if chance.pairs == "both" else [[at] for at in places]):
        for number in range(chance.copies):
            texts, replaced = list(original), Counter[Origin]()
            for at in varied:
                texts[at], counts = _vary(columns[at], drawn[at][number], chance.probability)
                replaced += counts
            copy = Copy(turn * chance.copies + number + 1, tuple(texts), replaced)
            distinct.setdefault(copy.texts, copy)
    return list(distinct.values())


def _vary(sentence: Sentence, draws_W2: NDArray[np.float64], probability: float) -> tuple[str, Counter[Origin]]:
    parts, last, replaced = [], 0, Counter[Origin]()
    for choice in sentence.choices:
        whether, which = draws_W2[choice.number]
        if whether < probability:
            parts += [sentence.text[last : choice.span.start], choice.words[int(which * len(choice.words))]]
            last = choice.span.stop
            replaced[choice.origin] += 1
    return "".join([*parts, sentence.text[last:]]), replaced
