"""Rows of a causal language model: each a part of one document, never of two, with the tokens that are to be predicted.

Position i of a row says token i + 1, so the first token of a row is never predicted. A document that is longer than a
row is cut into rows that overlap by one token: the last token of a row is the first of the next one, which predicts
what follows it. So each token of a document but its first is predicted exactly once.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hskcache.cut import NOTHING, Cut
from hskcache.text.examples import Reading
from hskcache.text.frame import Ids, frame_of
from hskcache.text.language.made import MadeRows
from hskcache.text.strings import Flat
from hskcache.text.tokenize import TokenizedRows, special_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Mask = NDArray[np.bool_]

_ROW_TOKENS = 1024


@dataclass(frozen=True, eq=False)
class LanguageRows:
    """Rows of a source, tokenized.

    Attributes:
        rows: tokens, targets and the documents that they are of.
        source: as the user named it.
        split: part of a data set; None of a file.
        fingerprint: digest of the content, and of how rows were made of it as far as no spec says that.
        made: how rows were made.
        reading: how the rows of a data file were read; None of plain text.
    """

    rows: TokenizedRows
    source: str
    split: str | None
    fingerprint: str
    made: MadeRows
    reading: Reading | None = None


class Ends(NamedTuple):
    """Special tokens around a document: ids int32 before and after its text."""

    before: Ids
    after: Ids


def ends_of(tokenizer: "PreTrainedTokenizerBase") -> Ends:
    """Special tokens that a tokenizer puts around a text, and the end-of-text token unless that is among them.

    Raises TeacherError if it gives a single text token types other than 0.
    """
    before, after = frame_of(tokenizer, 1).ids
    eos = tokenizer.eos_token_id
    if eos is not None and eos not in after:
        after = np.append(after, np.int32(eos))
    return Ends(before, after)


def longest_row(config: Any) -> int:
    """Tokens of a row at most where nobody says it: 1,024, or as many as a model reads by its configuration."""
    most = getattr(config, "max_position_embeddings", None)
    return min(_ROW_TOKENS, most) if isinstance(most, int) and most > 2 else _ROW_TOKENS


class RowsWriter:
    """Collects rows, in memory or, inside :func:`~hskcache.text.strings.spooling`, on the disk.

    ``max_length``: tokens of a row at most, at least 2; ``have_targets``: whether documents come with tokens to
    predict, or all but their first are. ``num_documents``: that gave rows so far; ``num_bytes``: of their texts in
    UTF-8, as far as they are whole; ``cut``: what rows lost so far.
    """

    def __init__(self, max_length: int, have_targets: bool) -> None:
        self._max_length = max_length
        self._ids, self._offsets, self._documents = Flat(np.int32), Flat(np.int64), Flat(np.int64)
        self._targets = Flat(np.bool_) if have_targets else None
        self._offsets.append(np.zeros(1, np.int64))
        self._num_ids = 0
        self.num_documents, self.num_targets, self.num_bytes, self.cut = 0, 0, 0, NOTHING

    def add(self, number: int, ids: Ids, text: str) -> bool:
        """Cut a document into rows; False if it has no token to predict, and no row.

        ``number``: of the document in its source; ``ids``: int32 [T], special tokens included; ``text``: of these.
        """
        if len(ids) < 2:
            return False
        for first in range(0, len(ids) - 1, self._max_length - 1):
            self._append(number, ids[first : first + self._max_length])
        self.num_documents += 1
        self.num_targets += len(ids) - 1
        self.num_bytes += len(text.encode("utf-8", "surrogatepass"))
        return True

    def add_masked(self, number: int, ids: Ids, targets: Mask) -> bool:
        """Add a document as one row, cut behind the last target that it has room for; False if it has none.

        ``number``: of the document in its source; ``ids``: int32 [T], special tokens included; ``targets``: bool [T].
        """
        assert self._targets is not None
        total = len(ids)
        if total > self._max_length:
            ids, targets = ids[: self._max_length], targets[: self._max_length]
            last = int(np.flatnonzero(targets)[-1]) if targets.any() else -1
            ids, targets = ids[: last + 1], targets[: last + 1]
        targets = targets.copy()
        targets[:1] = False
        if not targets.any():
            return False
        if len(ids) < total:
            self.cut += Cut(1, total - len(ids), total, total)
        self._append(number, ids)
        self._targets.append(targets)
        self.num_documents += 1
        self.num_targets += int(targets.sum())
        return True

    def _append(self, number: int, ids: Ids) -> None:
        self._num_ids += len(ids)
        self._ids.append(ids)
        self._offsets.append(np.array([self._num_ids], np.int64))
        self._documents.append(np.array([number], np.int64))

    def whole(self, tokenizer: "PreTrainedTokenizerBase") -> TokenizedRows:
        """All rows."""
        return TokenizedRows(
            self._ids.whole(),
            self._offsets.whole(),
            None,
            special_ids(tokenizer),
            self.cut,
            targets=None if self._targets is None else self._targets.whole(),
            documents=self._documents.whole(),
            num_bytes=self.num_bytes or None,
        )
