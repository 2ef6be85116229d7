"""Documents cut into rows of tokens: single texts, or pairs as BERT was pre-trained on.

All that is drawn comes from raw bits of Philox, see hskcache/permutation.py: five words a row in the order of rows, two
a token for masks. So the rows depend on the tokens, the packing and its seed alone.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hskcache.errors import SpecError
from hskcache.spec import Packing
from hskcache.text.documents import Tokens, TokenWindow, decoded
from hskcache.text.frame import Frame, Ids, Types, frame_of, room_for
from hskcache.text.tokenize import special_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BLOCK_ROWS = 1 << 10
"""Rows that are in memory at once."""

_BITS = 64
_WORDS = 5


class PackedRows(NamedTuple):
    """Rows end to end, special tokens included: ids int32 [sum L], lengths int64 [N], types uint8 [sum L]."""

    ids: Ids
    lengths: NDArray[np.int64]
    types: Types


class RowDraws(NamedTuple):
    """Five random words of 64 bits, all that one row draws."""

    shortness: int
    length: int
    kind: int
    cut: int
    partner: int


@dataclass(frozen=True)
class RowTemplate:
    """Everything that rows are made of beside text.

    ``frames``: special tokens around one text, and around two where there are pairs. ``room``: tokens of text that a
    row has room for, of two texts where there are pairs. ``masks``: how words are masked; None where none are.
    """

    frames: tuple[Frame, ...]
    room: int
    masks: "Masks | None"


def template_of(tokenizer: "PreTrainedTokenizerBase", max_length: int, packing: Packing) -> RowTemplate:
    """The rows of a tokenizer before they have text; asked before anything is tokenized.

    Raises SpecError if ``max_length`` leaves no room for text, or words are to be masked and there is no token for it;
    TeacherError if the tokenizer gives a single text token types other than 0.
    """
    frames = tuple(frame_of(tokenizer, num_texts) for num_texts in ((1,) if packing.pairs == "none" else (1, 2)))
    room = room_for(len(frames[-1].text_types), sum(map(len, frames[-1].ids)), max_length)
    return RowTemplate(frames, room, masks_of(tokenizer, packing) if packing.mask else None)


class Packer:
    """Cuts documents into rows [TinyBERT 3.3].

    A row takes as many words of its document as fit, or as many as were drawn where it is to be shorter: of single
    texts all in one; of pairs the first text ends where was drawn, and the second is what follows, or as much of
    another document, drawn by its length. What follows the last text of the document itself begins the next row, so
    that every token of a document stands in just one row of each copy, and some again as partners of other documents. A
    text ends inside a word only if that word alone is longer than a row.

    What is left of a document is a single text where it cannot be two: one word, with ``next``. ``documents``: offsets
    of documents among their tokens, int64 [D + 1], none empty. ``windows``: on the tokens: one for reading on, one for
    reading here and there.
    """

    def __init__(
        self,
        documents: NDArray[np.int64],
        windows: tuple[TokenWindow, TokenWindow],
        template: RowTemplate,
        packing: Packing,
    ) -> None:
        self._offsets = np.asarray(documents)
        self._window, self._partners = windows
        self._template, self._packing = template, packing
        self._num_tokens, self._is_alone = int(documents[-1]), len(documents) == 2
        self._short = int(packing.short_rows * (1 << _BITS))

    def blocks(self) -> Iterator[PackedRows]:
        """All rows in order, some at a time."""
        rows = (row for copy in range(self._packing.copies) for row in self._copy(copy))
        while block := list(islice(rows, BLOCK_ROWS)):
            yield _laid(block, self._template)

    def _copy(self, copy: int) -> Iterator[tuple[Tokens, ...]]:
        """The texts of every row of one copy, as they are stored."""
        draws = _draws(self._packing.seed, copy)
        for first in range(0, len(self._offsets) - 1, BLOCK_ROWS):
            bounds = self._offsets[first : first + BLOCK_ROWS + 1].tolist()
            for begin, end in pairwise(bounds):
                at = begin
                while at < end:
                    drawn = next(draws)
                    texts, at = self._row(drawn, at, (begin, end), copy > 0 and at == begin)
                    yield texts

    def _row(
        self, drawn: RowDraws, at: int, document: tuple[int, int], is_moved: bool
    ) -> tuple[tuple[Tokens, ...], int]:
        """The texts of the row that begins at a token, and where the next one begins.

        ``document``: [begin, end) among the tokens; ``is_moved``: whether its length is drawn so that what follows is
        cut elsewhere than in the first copy.
        """
        packing, room, end = self._packing, self._template.room, document[1]
        length, least = room, len(self._template.frames)
        if is_moved or drawn.shortness < self._short:
            length = least + drawn.length % (room - least + 1)
        self._window.show(at, min(at + room + 1, end))
        is_random = packing.pairs == "random" or (packing.pairs == "mixed" and drawn.kind & 1 == 1)
        if packing.pairs != "none" and (not is_random or self._is_alone):
            stop = _cut(self._window, at, (at + length, at + room), end)
            if (middle := self._middle(drawn, at, stop)) is not None:
                return (self._window.tokens(at, middle), self._window.tokens(middle, stop)), stop
        if packing.pairs in {"none", "next"} or self._is_alone:
            stop = _cut(self._window, at, (at + length, at + room), end)
            return (self._window.tokens(at, stop),), stop
        stop = _cut(self._window, at, (at + 1 + drawn.cut % (length - 1), at + room - 1), end)
        first = self._window.tokens(at, stop)
        return (first, self._partner(drawn, document, (max(1, length - len(first)), room - len(first)))), stop

    def _middle(self, drawn: RowDraws, at: int, stop: int) -> int | None:
        """Beginning of the second text of some that follow one another; None if they are one word."""
        if stop - at < 2:
            return None
        place = at + 1 + drawn.cut % (stop - at - 1)
        before = self._window.start_before(at + 1, place)
        return before if before is not None else self._window.start_after(place, stop - 1)

    def _partner(self, drawn: RowDraws, document: tuple[int, int], lengths: tuple[int, int]) -> Tokens:
        """A text of another document. ``lengths``: its tokens, as wanted and at most."""
        wanted, most = lengths
        own_begin, own_end = document
        place = drawn.partner % (self._num_tokens - (own_end - own_begin))
        if place >= own_begin:
            place += own_end - own_begin
        number = bisect_right(self._offsets, place) - 1
        begin, end = int(self._offsets[number]), int(self._offsets[number + 1])
        # As near to the place as leaves enough before the end of the document.
        place = max(begin, min(place, end - wanted))
        first = max(begin, place - self._template.room)
        self._partners.show(first, min(place + most + 1, end))
        start = self._partners.start_before(first, place)
        start = place if start is None else start
        return self._partners.tokens(start, _cut(self._partners, start, (start + wanted, start + most), end))


def _cut(window: TokenWindow, begin: int, places: tuple[int, int], end: int) -> int:
    """End of a text that begins at ``begin``: with the last word that ends by a place, or with the first one.

    ``places``: where to end, and where at the latest.
    """
    wanted, latest = places
    if wanted >= end:
        return end
    start = window.start_before(begin + 1, wanted)
    if start is not None:
        return start
    after = window.start_after(wanted, min(latest, end - 1))
    if after is not None:
        return after
    return end if end <= latest else latest


def _draws(seed: int, copy: int) -> Iterator[RowDraws]:
    bits = np.random.Philox(key=seed & ((1 << _BITS) - 1), counter=(1 + copy) << _BITS)
    while True:
        yield from map(RowDraws._make, bits.random_raw(_WORDS * BLOCK_ROWS).reshape(-1, _WORDS).tolist())


def _laid(block: Sequence[tuple[Tokens, ...]], template: RowTemplate) -> PackedRows:
    """Rows of texts with the special tokens around them."""
    pieces: list[Tokens] = []
    types: list[Types] = []
    counts = np.empty(len(block), np.int64)
    for number, texts in enumerate(block):
        frame = template.frames[len(texts) - 1]
        runs = list(frame.ids)
        parts = [runs[0]]
        part_types = [frame.types[0]]
        for text, kind, run, run_types in zip(texts, frame.text_types, runs[1:], frame.types[1:], strict=True):
            parts += [text, run]
            part_types += [np.full(len(text), kind, np.uint8), run_types]
        pieces += parts
        types += part_types
        counts[number] = sum(map(len, parts))
    tokens = np.concatenate(pieces)
    ids = decoded(tokens)
    if template.masks is not None:
        begins = np.cumsum([0, *map(len, pieces)])
        starts = tokens >= 0
        starts[begins[begins < len(tokens)]] = True
        ids = template.masks.masked(ids, starts)
    return PackedRows(ids, counts, np.concatenate(types))


class Masks:
    """Masks whole words, with probability ``share`` each, as the release does [TinyBERT 3.3].

    Of the pieces of a masked word 80 % become [MASK], 10 % another piece, and 10 % stay: a teacher was pre-trained on
    such text. Special tokens stay. ``mask``: id of [MASK]; ``special``: ids of the tokens that mark structure;
    ``others``: ids to draw from.
    """

    def __init__(self, share: float, seed: int, mask: int, special: frozenset[int], others: Ids) -> None:
        self._share, self._mask = np.uint64(int(share * (1 << _BITS))), mask
        self._special = np.array(sorted(special), np.int32)
        self._others = others
        self._bits = np.random.Philox(key=seed & ((1 << _BITS) - 1), counter=1 << 2 * _BITS)

    def masked(self, ids: Ids, starts: NDArray[np.bool_]) -> Ids:
        """The next tokens of all rows, int32 [sum L], masked; ``starts`` begin a word, the first one among them."""
        words, pieces = self._bits.random_raw(2 * len(ids)).reshape(-1, 2).T
        word = np.cumsum(starts) - 1
        is_masked = (words[starts] < self._share)[word] & ~np.isin(ids, self._special)
        draw, other = pieces % np.uint64(10), pieces // np.uint64(10) % np.uint64(len(self._others))
        replaced = np.where(draw < 8, np.int32(self._mask), np.where(draw == 8, self._others[other], ids))
        return np.where(is_masked, replaced, ids)


def masks_of(tokenizer: "PreTrainedTokenizerBase", packing: Packing) -> Masks:
    """Masking of words for a tokenizer. Raises SpecError if it has no token for it."""
    if tokenizer.mask_token_id is None:
        raise SpecError(
            f"--mask {packing.mask:g} needs a mask token, and the tokenizer has none; leave it out, or give a teacher "
            "that was pre-trained with masks"
        )
    others = np.setdiff1d(np.arange(len(tokenizer), dtype=np.int32), tokenizer.all_special_ids).astype(np.int32)
    return Masks(packing.mask, packing.seed, tokenizer.mask_token_id, special_ids(tokenizer), others)
