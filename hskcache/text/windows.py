"""Windows of rows that are longer than a teacher reads at once, and where each token of a row is read.

A row is what a tokenizer puts before a text, the tokens of the text, and what it puts after. Every window has the first
and the last of these, and between them a run of the text. Windows of a row are all full and as evenly spread as whole
numbers allow, so that neighbours share at least so many tokens as were asked for.

Dimension letters as in hskcache.spec, and V windows.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hskcache.counted import counted
from hskcache.encoder import num_positions, trained_length
from hskcache.errors import SpecError
from hskcache.spec import Windows
from hskcache.text.tokenize import TokenizedRows

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Integers = NDArray[np.int64]


class WindowPlaces(NamedTuple):
    """Windows of some rows.

    Attributes:
        rows_V: row that each window is of, ascending.
        positions_VW: position within the row that is read at each place of a window; of a row that is no longer than a
            window the places as they are, padding included.
        is_taken_VW: whether what is read of a token there stands for it: where it is most in the middle, the earlier
            window where two are alike; special tokens before the text in the first window, those after it in the last.
    """

    rows_V: Integers
    positions_VW: Integers
    is_taken_VW: NDArray[np.bool_]


@dataclass(frozen=True)
class Windowing:
    """A way of reading long rows in windows.

    Attributes:
        length: tokens of a window, special tokens included.
        overlap: tokens of the text that neighbours share at least.
        before, after: special tokens that stand before and after a text.
    """

    length: int
    overlap: int
    before: int
    after: int

    @property
    def room(self) -> int:
        """Tokens of the text in a window."""
        return self.length - self.before - self.after

    def counts(self, lengths_N: Integers) -> Integers:
        """Windows of rows of some lengths, int64 [N]."""
        further = np.maximum(lengths_N.astype(np.int64) - self.length, 0)
        return 1 + -(-further // (self.room - self.overlap))

    def spread(self, lengths_B: Integers) -> WindowPlaces:
        """Windows of rows of some lengths, one row after the other."""
        parts = [self._of_row(row, int(length)) for row, length in enumerate(lengths_B)]
        return WindowPlaces(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def _of_row(self, row: int, length: int) -> WindowPlaces:
        if length <= self.length:
            places = np.arange(self.length)
            return WindowPlaces(np.array([row]), places[None], (places < length)[None])
        count = int(self.counts(np.array([length]))[0])
        starts_V = np.arange(count) * (length - self.length) // (count - 1)
        positions_VW = np.empty((count, self.length), np.int64)
        is_taken_VW = np.zeros((count, self.length), np.bool_)
        head, text, tail = slice(self.before), slice(self.before, self.length - self.after), self.length - self.after
        positions_VW[:, head] = np.arange(self.before)
        positions_VW[:, text] = self.before + starts_V[:, None] + np.arange(self.room)
        positions_VW[:, tail:] = np.arange(length - self.after, length)
        is_taken_VW[0, head] = is_taken_VW[-1, tail:] = True
        # Twice the distance of a token from the middle of each window, in whole numbers; ties go to the first.
        tokens = np.arange(length - self.before - self.after)
        nearest = np.abs(2 * tokens[:, None] - (2 * starts_V + self.room - 1)).argmin(1)
        is_taken_VW[nearest, self.before + tokens - starts_V[nearest]] = True
        return WindowPlaces(np.full(count, row), positions_VW, is_taken_VW)


def windowing_for(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", windows: Windows, name: str
) -> Windowing:
    """A way of reading long rows in windows of a model, as long as it reads where their length is left open.

    Raises SpecError if it is not known how long that is, or the windows would not move on; ``name``: of the model.
    """
    stride, limit = f"--stride {windows.overlap}", num_positions(model) or trained_length(model)
    if windows.length is None and limit is None:
        raise SpecError(f"{stride}: {name} does not say how many tokens it reads at once; leave it out")
    if windows.length is not None and limit is not None and windows.length > limit:
        raise SpecError(
            f"windows.length {windows.length} is more than the {counted(limit, 'token')} that {name} reads; give so "
            "many, or leave it out"
        )
    made = windowing_of(windows.length or limit or 0, windows.overlap, tokenizer)
    if made.overlap >= made.room:
        raise SpecError(
            f"{stride}: a window of {counted(made.length, 'token')} holds {max(made.room, 0)} of a text, so windows "
            f"would not move on; give --stride {max(made.room // 4, 0)} or so"
        )
    return made


def windowing_of(length: int, overlap: int, tokenizer: "PreTrainedTokenizerBase") -> Windowing:
    """A way of reading rows of a tokenizer in windows of some length and overlap."""
    is_special = tokenizer("a", return_special_tokens_mask=True)["special_tokens_mask"]
    before = is_special.index(0) if 0 in is_special else 0
    return Windowing(length, overlap, before, tokenizer.num_special_tokens_to_add(pair=False) - before)


def windowed(rows: TokenizedRows, windowing: Windowing) -> tuple[TokenizedRows, Integers]:
    """Rows cut into their windows, each a row of its own, and the windows of each row [N]."""
    counts_N = windowing.counts(rows.lengths)
    spread = windowing.spread(rows.lengths)
    lengths_V = np.minimum(rows.lengths, windowing.length)[spread.rows_V]
    is_read_VW = np.arange(windowing.length) < lengths_V[:, None]
    places = (rows.offsets[spread.rows_V, None] + spread.positions_VW)[is_read_VW]
    types = rows.token_type_ids
    cut = replace(
        rows,
        input_ids=rows.input_ids[places],
        offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths_V)]),
        token_type_ids=None if types is None else types[places],
    )
    return cut, counts_N
