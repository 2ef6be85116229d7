"""Candidates for each word of a sentence, worked out once from the sentence as it stands [TinyBERT 3.2].

A word that is one piece of the masked LM's vocabulary takes the model's best predictions in its place; any other word
takes its nearest word vectors. A word that has neither stays: the vectors do not know it, or there are none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from hskcache.augment.pieces import cut
from hskcache.augment.vectors import WordVectors
from hskcache.augment.vocabulary import fold
from hskcache.augment.words import Eligible, Span, find_words

if TYPE_CHECKING:
    from hskcache.augment.masked_lm import MaskedLM
    from hskcache.augment.predict import MaskedText

Origin = Literal["masked_lm", "vectors"]


class ReplaceableWord(NamedTuple):
    """A word that may be replaced.

    Attributes:
        number: of the word among all words of its sentence.
        span: where it stands, without an ending that stays.
        words: what may stand there instead; the word itself, where it is among them, as it is written.
        origin: what proposed them.
    """

    number: int
    span: Span
    words: tuple[str, ...]
    origin: Origin


class Sentence(NamedTuple):
    """A text whose words are known.

    ``num_words``: all of them, those that stay included; ``choices``: the words that may be replaced, from left to
    right; ``num_left``: eligible words that have no candidate.
    """

    text: str
    num_words: int
    choices: list[ReplaceableWord]
    num_left: int


class _Word(NamedTuple):
    """An eligible word: its number in its sentence, where it stands, and how the vocabulary spells it."""

    number: int
    span: Span
    folded: str


class _Plan(NamedTuple):
    """The eligible words of a text, and for each of them the masked LM's input if it is one piece."""

    text: str
    num_words: int
    words: list[_Word]
    masked: "list[MaskedText | None]"


@dataclass(frozen=True, eq=False)
class Proposer:
    """Finds the candidates of every eligible word.

    A replacement stands as its vocabulary spells it: from an uncased one in lower case, also in place of a capitalised
    word. A teacher of that vocabulary reads both alike. ``num_candidates``: of each word at most. ``masked_lm``: None
    works from vectors alone. ``vectors``: None leaves words that are no single piece. ``batch_size``: sentences of one
    call of the masked LM; moves no candidate.
    """

    eligible: Eligible
    num_candidates: int
    masked_lm: "MaskedLM | None" = None
    vectors: WordVectors | None = None
    batch_size: int = 64

    def propose(self, texts: Sequence[str]) -> list[Sentence]:
        """The candidates of every text's words; the masked LM is asked for the words of all texts together.

        Raises TeacherError if the masked LM gives values that are not finite.
        """
        plans = self._plan(texts)
        likely = iter(self._likely([masked for plan in plans for masked in plan.masked if masked is not None]))
        planned = (pair for plan in plans for pair in zip(plan.words, plan.masked, strict=True))
        near = self._near([word.folded for word, masked in planned if masked is None])
        sentences = []
        for plan in plans:
            choices = []
            for word, masked in zip(plan.words, plan.masked, strict=True):
                candidates = near.get(word.folded, []) if masked is None else next(likely)
                if candidates:
                    written = plan.text[slice(*word.span)]
                    instead = tuple(written if candidate == word.folded else candidate for candidate in candidates)
                    origin: Origin = "vectors" if masked is None else "masked_lm"
                    choices.append(ReplaceableWord(word.number, word.span, instead, origin))
            sentences.append(Sentence(plan.text, plan.num_words, choices, len(plan.words) - len(choices)))
        return sentences

    def masked_texts(self, texts: Sequence[str]) -> "list[MaskedText]":
        """Rows that the masked LM reads for these texts: one for every eligible word that is one piece."""
        return [masked for plan in self._plan(texts) for masked in plan.masked if masked is not None]

    def _plan(self, texts: Sequence[str]) -> list[_Plan]:
        plans, lm = [], self.masked_lm
        for text in texts:
            spans = [self.eligible.part(text, word) for word in find_words(text)]
            written = [text[slice(*span)] for span in spans]
            folded = [word.lower() if lm is None else fold(lm.tokenizer, word) for word in written]
            pairs = enumerate(zip(spans, folded, strict=True))
            words = [_Word(number, span, word) for number, (span, word) in pairs if self.eligible(word)]
            plans.append(_Plan(text, len(spans), words, [None] * len(words)))
        return plans if lm is None else _masked(lm, plans)

    def _likely(self, texts: "Sequence[MaskedText]") -> list[list[str]]:
        """The masked LM's best words for every masked place."""
        if self.masked_lm is None or not texts:
            return []
        from hskcache.augment.predict import best_ids

        words = self.masked_lm.words
        best = best_ids(self.masked_lm, texts, self.num_candidates, self.batch_size)
        return [[words[int(number)] for number in ids] for ids in best]

    def _near(self, words: Sequence[str]) -> dict[str, list[str]]:
        """The nearest neighbours of those words that have a vector."""
        if self.vectors is None:
            return {}
        known = [word for word in dict.fromkeys(words) if word in self.vectors]
        return dict(zip(known, self.vectors.nearest(known, self.num_candidates), strict=True))


def _masked(lm: "MaskedLM", plans: Sequence[_Plan]) -> list[_Plan]:
    """The same plans with the masked LM's inputs."""
    from hskcache.augment.predict import masked_text

    if not plans:
        return []
    cuts = cut(lm.tokenizer, [plan.text for plan in plans], [[word.span for word in plan.words] for plan in plans])
    return [
        plan._replace(masked=[None if token is None else masked_text(lm, pieces.ids, token) for token in pieces.tokens])
        for plan, pieces in zip(plans, cuts, strict=True)
    ]
