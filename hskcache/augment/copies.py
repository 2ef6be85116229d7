"""Copies of a row in which each word is replaced by chance [TinyBERT 3.2, Algorithm 1]."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hskcache.augment.candidates import Origin, Sentence
from hskcache.augment.draws import draws


class Chance(NamedTuple):
    """How copies are drawn.

    Attributes:
        copies: of every row, N.
        probability: that a word of a copy is replaced, p.
        seed: of all draws.
    """

    copies: int
    probability: float
    seed: int


class Copy(NamedTuple):
    """A copy of a row.

    Attributes:
        number: 1 to N; 0 is the row itself.
        texts: of its text columns, one or two.
        replaced: words that were replaced, by what proposed the replacement.
    """

    number: int
    texts: tuple[str, ...]
    replaced: Counter[Origin]


def copies_of(row: int, columns: Sequence[Sentence], chance: Chance) -> list[Copy]:
    """The row itself and then its copies, those that equal one before left out.

    Args:
        row: in its source, counted from 0.
        columns: the row's text, or both texts of a pair; each is varied by itself.
        chance: how.
    """
    drawn = [draws(chance.seed, row, at, (chance.copies, text.num_words)) for at, text in enumerate(columns)]
    # A dictionary keeps the first of equal texts.
    original = tuple(sentence.text for sentence in columns)
    distinct = {original: Copy(0, original, Counter())}
    for number in range(chance.copies):
        varied = [
            _vary(sentence, draws_NW2[number], chance.probability)
            for sentence, draws_NW2 in zip(columns, drawn, strict=True)
        ]
        texts = tuple(text for text, _ in varied)
        replaced = sum((counts for _, counts in varied), Counter[Origin]())
        distinct.setdefault(texts, Copy(number + 1, texts, replaced))
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
