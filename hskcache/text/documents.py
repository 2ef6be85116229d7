"""The tokens of a corpus on the disk, document by document, and windows on them.

A token that begins a word is stored as its id; one that goes on with a word as ``~id``, which is negative.
"""

import copy
from collections.abc import Sequence
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from hskcache.system import read_at
from hskcache.text.spool import SpoolWriter

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Tokens = NDArray[np.int32]

DOCUMENT_END = ""
"""Stands among the texts of a corpus where a document ends."""

STEM = "documents."
"""Before the names of the files in a spool."""

AHEAD = 1 << 18
"""Tokens that are read at once where they are read in order."""

_START = b"\1"


def plain_tokenizer(tokenizer: "PreTrainedTokenizerBase") -> Any:
    """The fast tokenizer without truncation or padding: a copy, as the caller's may be set to either, and stays so."""
    plain = copy.deepcopy(tokenizer.backend_tokenizer)
    plain.no_truncation()
    plain.no_padding()
    return plain


def decoded(tokens: Tokens) -> Tokens:
    """Token ids of tokens as they are stored, int32 of the same shape."""
    return tokens ^ (tokens >> 31)


class DocumentsWriter:
    """Writes the tokens of texts; how the texts are divided among calls of :meth:`add` makes no difference.

    What a word is, the tokenizer says. ``num_documents``: documents of at least one token that have ended so far;
    ``num_tokens``: tokens so far.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", writer: SpoolWriter) -> None:
        self._tokenizer, self._writer = plain_tokenizer(tokenizer), writer
        self._num_open = 0
        self.num_documents = self.num_tokens = 0

    def add(self, texts: Sequence[str]) -> None:
        """Tokenize more texts, in order, with ``DOCUMENT_END`` after each document, the last one included."""
        encodings = self._tokenizer.encode_batch([text for text in texts if text], add_special_tokens=False)
        tokens = _marked(encodings)
        encoding = iter(encodings)
        ends = accumulate((len(next(encoding)) if text else 0 for text in texts), initial=self._num_open)
        # A document without a token ends where the one before it does.
        documents = sorted({end for end, text in zip(list(ends)[1:], texts, strict=True) if text == DOCUMENT_END} - {0})
        self._writer.append(tokens, np.diff(documents, prepend=0) if documents else np.empty(0, np.int64))
        self._num_open += len(tokens) - (documents[-1] if documents else 0)
        self.num_documents += len(documents)
        self.num_tokens += len(tokens)


def _marked(encodings: Sequence[Any]) -> Tokens:
    """Tokens of texts end to end, as they are stored."""
    ids = np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), np.int32)
    words = np.fromiter(chain.from_iterable(encoding.word_ids for encoding in encodings), np.int64)
    starts = np.ones(len(ids), np.bool_)
    np.not_equal(words[1:], words[:-1], out=starts[1:])
    first = np.cumsum([0, *map(len, encodings)])
    starts[first[first < len(ids)]] = True
    return np.where(starts, ids, ~ids)


class TokenWindow:
    """Tokens of a corpus in memory, moved along the file as they are asked for.

    ``file``: of all tokens, open for reading; ``ahead``: tokens that are read at once, if more are not asked for.
    """

    def __init__(self, file: BinaryIO, ahead: int = 0) -> None:
        self._file, self._ahead = file, ahead
        self._begin, self._tokens, self._starts = 0, np.empty(0, np.int32), b""

    def show(self, begin: int, end: int) -> None:
        """Move to where the tokens [begin, end) are in it."""
        if self._begin <= begin and end <= self._begin + len(self._tokens):
            return
        count = max(end - begin, self._ahead)
        data = read_at(self._file.fileno(), count * 4, begin * 4)
        self._begin, self._tokens = begin, np.frombuffer(data, "<i4").astype(np.int32, copy=False)
        self._starts = (self._tokens >= 0).tobytes()

    def tokens(self, begin: int, end: int) -> Tokens:
        """The tokens [begin, end) of what is shown, as they are stored."""
        return self._tokens[begin - self._begin : end - self._begin]

    def start_before(self, first: int, place: int) -> int | None:
        """The last beginning of a word in [first, place], or None; both are shown."""
        index = self._starts.rfind(_START, first - self._begin, place - self._begin + 1)
        return None if index < 0 else self._begin + index

    def start_after(self, first: int, last: int) -> int | None:
        """The first beginning of a word in [first, last], or None; both are shown."""
        index = self._starts.find(_START, first - self._begin, last - self._begin + 1)
        return None if index < 0 else self._begin + index
