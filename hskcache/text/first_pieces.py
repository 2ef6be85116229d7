"""Places of words in rows of tokens: a word is answered for at its first piece."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hskcache.counted import counted
from hskcache.errors import TeacherError
from hskcache.ragged import ragged_places, starts_of
from hskcache.remarks import remark

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class FirstPieces:
    """First pieces of the words of N rows, row after row.

    Attributes:
        offsets: int64 [N + 1]; the first pieces [i, i + 1) are those of row i.
        positions: uint16 [sum of words], of each in its row, ascending.
        numbers: int64 [sum of words], which word of its row each belongs to, counted from 0, ascending.
        num_words_N: words of each row in the data, those among them that have no piece, int64.
        num_cut: words that were cut off with the end of their rows.
    """

    offsets: Integers
    positions: NDArray[np.uint16]
    numbers: Integers
    num_words_N: Integers
    num_cut: int = 0

    @property
    def counts(self) -> Integers:
        """Words of each row that have a piece, int64 [N]."""
        return np.diff(self.offsets)

    @property
    def num_empty(self) -> int:
        """Words that give no token, wherever they stand."""
        return int(self.num_words_N.sum()) - len(self.positions) - self.num_cut

    def of(self, rows: Integers) -> Integers:
        """Places among all first pieces of those of some rows, one row after the other."""
        return ragged_places(self.offsets[rows], self.counts[rows])

    def padded(self, rows: Integers, length: int) -> Integers:
        """Places of the first pieces of some rows in a batch of these that is padded to ``length`` and flattened."""
        begin = np.repeat(np.arange(len(rows)) * length, self.counts[rows])
        return begin + self.positions[self.of(rows)].astype(np.int64)

    def among_words(self) -> Integers:
        """Places of the words that have a piece among all words of the data."""
        return np.repeat(starts_of(self.num_words_N)[:-1], self.counts) + self.numbers

    def between(self, start: int, stop: int) -> "FirstPieces":
        """Those of neighbouring rows, [start, stop); of words that were cut off nothing is told."""
        begin, end = self.offsets[start], self.offsets[stop]
        offsets = self.offsets[start : stop + 1] - begin
        return FirstPieces(offsets, self.positions[begin:end], self.numbers[begin:end], self.num_words_N[start:stop])


def stored_pieces(inputs: Mapping[str, NDArray[Any]]) -> FirstPieces | None:
    """First pieces as the inputs of a cache hold them, where words without a piece have no number; None of texts."""
    if "positions" not in inputs:
        return None
    counts = np.diff(inputs["position_offsets"])
    numbers = ragged_places(np.zeros_like(counts), counts)
    return FirstPieces(inputs["position_offsets"], inputs["positions"], numbers, counts)


@dataclass
class FoundPieces:
    """First pieces while rows are tokenized, see :class:`FirstPieces`."""

    positions: list[int] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    num_words: list[int] = field(default_factory=list)
    num_cut: int = 0

    def add(self, batch: Any, rows: Sequence[Sequence[str]]) -> None:
        """Take a batch of a fast tokenizer, beside the words of its rows."""
        for row, words in enumerate(rows):
            first: dict[int, int] = {}
            for position, number in enumerate(batch.word_ids(row)):
                if number is not None:
                    first.setdefault(number, position)
            self.positions += first.values()
            self.numbers += first
            self.counts.append(len(first))
            self.num_words.append(len(words))

    def lose(self, kept: Iterable[int | None], whole: Iterable[int | None]) -> None:
        """Count the words of a row that was cut, by the words of its tokens before and after."""
        self.num_cut += len(set(whole) - set(kept) - {None})

    def whole(self) -> FirstPieces:
        """All of them."""
        counts, num_words = np.array(self.counts, np.int64), np.array(self.num_words, np.int64)
        positions = np.array(self.positions, np.int64)
        # Positions are stored in 16 bits; rows that are longer than that are refused where a teacher is known.
        return FirstPieces(
            starts_of(counts), positions.astype(np.uint16), np.array(self.numbers, np.int64), num_words, self.num_cut
        )


def split_words(tokenizer: Any) -> Mapping[str, Any]:
    """Arguments by which a tokenizer takes lists of words; one line tells if it reads those otherwise than a text.

    Raises TeacherError if it would cut rows at their beginning, so that a word's first piece may be lost and a later
    one left.
    """
    if tokenizer.truncation_side != "right":
        raise TeacherError(
            "the tokenizer cuts long rows at their beginning (truncation_side left), where words would lose their "
            "first pieces; give a teacher whose tokenizer cuts at the end"
        )
    how = {"is_split_into_words": True}
    listed, text = (tokenizer(words, **given)["input_ids"] for words, given in ((["a", "a"], how), ("a a", {})))
    if listed != text:
        pieces = [", ".join(tokenizer.convert_ids_to_tokens(ids)) for ids in (listed, text)]
        remark(
            f"the tokenizer gives a list of the words a and a the pieces {pieces[0]}, and their text {pieces[1]}; a "
            "tagger that was trained on text needs one that was saved with add_prefix_space"
        )
    return how


def tell_words(words: FirstPieces, source: str, longest: int) -> None:
    """Say in one line how many words have no place in the rows; nothing where all have one."""
    total = counted(int(words.num_words_N.sum()), "word")
    lost = []
    if words.num_cut:
        be = "is" if words.num_cut == 1 else "are"
        lost.append(f"{words.num_cut:,} of {total} {be} cut off (--max-length {longest} keeps all)")
    if words.num_empty:
        give = "gives" if words.num_empty == 1 else "give"
        lost.append(f"{words.num_empty:,} of {total} {give} no token, such as blanks and control characters")
    if lost:
        remark(f"{source}: {'; '.join(lost)}: such words have no answer, and score as such")
