"""Documents cut into rows of tokens, a batch of text at a time."""

import copy
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hskcache.errors import SpecError, TeacherError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ids = NDArray[np.int32]
Bools = NDArray[np.bool_]

DOCUMENT_END = ""
"""Stands among the texts of a corpus where a document ends."""


class PackedRows(NamedTuple):
    """Rows end to end, special tokens included: ids int32 [sum L] and lengths int64 [N]."""

    ids: Ids
    lengths: NDArray[np.int64]


class Packer:
    """Cuts documents into rows of at most ``max_length`` tokens [TinyBERT 3.3].

    A row takes as many words of its document as fit, so only a document's last row may be shorter than it need be,
    and it ends inside a word only if that word alone is longer than a row. What a word is, the tokenizer says. How
    the texts are divided among calls of :meth:`add` makes no difference to the rows.

    Attributes:
        num_documents: documents of at least one token that have ended so far.
        num_tokens: tokens so far, special tokens not counted.

    Raises:
        SpecError: ``max_length`` leaves no room for text beside the special tokens.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", max_length: int) -> None:
        num_special = tokenizer.num_special_tokens_to_add(pair=False)
        if max_length <= num_special:
            raise SpecError(
                f"{max_length} tokens at most leave no room beside the {num_special} special tokens of single texts; "
                f"give at least {num_special + 1}"
            )
        # A copy, because the caller's may be set to truncate or pad, and should stay so.
        self._tokenizer = copy.deepcopy(tokenizer.backend_tokenizer)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._room = max_length - num_special
        self._around: tuple[Ids, Ids] | None = None
        self._rest: tuple[Ids, Bools] = np.empty(0, np.int32), np.empty(0, np.bool_)
        self.num_documents = self.num_tokens = 0

    def add(self, texts: Sequence[str]) -> PackedRows:
        """The rows that are complete after more of the corpus; at most one row's tokens wait for the next call.

        Args:
            texts: in order, with ``DOCUMENT_END`` after each document, the last one included.

        Raises:
            TeacherError: the tokenizer gives a single text token types other than 0.
        """
        encodings = self._tokenizer.encode_batch([text for text in texts if text], add_special_tokens=False)
        ids, starts = _flat(encodings)
        self.num_tokens += len(ids)
        num_waiting = len(self._rest[0])
        ids, starts = np.concatenate([self._rest[0], ids]), np.concatenate([self._rest[1], starts])
        encoding = iter(encodings)
        lengths = [len(next(encoding)) if text else 0 for text in texts]
        ends = [num_waiting + end for end, text in zip(accumulate(lengths), texts, strict=True) if text == DOCUMENT_END]
        # A document without a token ends where the one before it does.
        documents = sorted(set(ends) - {0})
        self.num_documents += len(documents)
        if self._around is None and len(ids):
            self._around = _special_tokens(self._tokenizer, next(filter(len, encodings)))
        cuts = np.fromiter(self._cuts(starts, documents), np.int64)
        done = int(cuts[-1]) if len(cuts) else 0
        self._rest = ids[done:].copy(), starts[done:].copy()
        if self._around is None or not done:
            return PackedRows(np.empty(0, np.int32), np.empty(0, np.int64))
        return _surrounded(ids[:done], np.diff(cuts, prepend=0), self._around)

    def _cuts(self, starts: Bools, documents: list[int]) -> Iterator[int]:
        """Where rows end among tokens of which ``starts`` begin words and ``documents`` end documents."""
        last_start = np.maximum.accumulate(np.where(starts, np.arange(len(starts)), 0))
        begin = 0
        for end, is_whole in [*((end, True) for end in documents), (len(starts), False)]:
            # A row is cut once the token behind it is known; the last ones of an open document have to wait.
            while end - begin > self._room:
                start = int(last_start[begin + self._room])
                begin = start if start > begin else begin + self._room
                yield begin
            if is_whole:
                yield end
                begin = end


def _flat(encodings: Sequence[Any]) -> tuple[Ids, Bools]:
    """Token ids of texts end to end, and which of them begin a word."""
    ids = np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), np.int32)
    words = np.fromiter(chain.from_iterable(encoding.word_ids for encoding in encodings), np.int64)
    starts = np.ones(len(ids), np.bool_)
    np.not_equal(words[1:], words[:-1], out=starts[1:])
    first = np.cumsum([0, *map(len, encodings)])
    starts[first[first < len(ids)]] = True
    return ids, starts


def _special_tokens(tokenizer: Any, encoding: Any) -> tuple[Ids, Ids]:
    """The special tokens before and after a single text, as the tokenizer puts them around any encoding."""
    whole = tokenizer.post_process(encoding)
    if any(whole.type_ids):
        raise TeacherError(
            "the tokenizer gives single texts token types other than 0, which packed rows do not have; give a teacher "
            "with another tokenizer"
        )
    num_before = whole.special_tokens_mask.index(0)
    ids = np.array(whole.ids, np.int32)
    return ids[:num_before], ids[num_before + len(encoding) :]


def _surrounded(ids: Ids, lengths: NDArray[np.int64], around: tuple[Ids, Ids]) -> PackedRows:
    before, after = around
    longer = lengths + len(before) + len(after)
    ends = np.cumsum(longer)
    begins = ends - longer
    rows = np.empty(int(ends[-1]), np.int32)
    moved = begins + len(before) - (np.cumsum(lengths) - lengths)
    rows[np.arange(len(ids)) + np.repeat(moved, lengths)] = ids
    rows[begins[:, None] + np.arange(len(before))] = before
    rows[(ends - len(after))[:, None] + np.arange(len(after))] = after
    return PackedRows(rows, longer)
