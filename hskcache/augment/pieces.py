"""Texts as token ids, and which of their words are a single piece of the vocabulary."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hskcache.augment.words import Span

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Pieces(NamedTuple):
    """A text as the masked LM's tokenizer cuts it.

    ``ids``: int64 [L], no special tokens. ``tokens``: of each asked word, the number of the token that is all of it;
    None where it takes several, or where the vocabulary does not know it.
    """

    ids: NDArray[np.int64]
    tokens: list[int | None]


def cut(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], words: Sequence[Sequence[Span]]) -> list[Pieces]:
    """Token ids of every text and the tokens of some of its words."""
    encoded = tokenizer(
        list(texts),
        add_special_tokens=False,
        truncation=False,
        padding=False,
        return_offsets_mapping=True,
        return_attention_mask=False,
        verbose=False,
    )
    cut_texts = []
    for text, row, offsets, spans in zip(texts, encoded["input_ids"], encoded["offset_mapping"], words, strict=True):
        ids = np.array(row, np.int64)
        bounds = np.array(offsets, np.int64).reshape(-1, 2)
        tokens = [_token(text, bounds, span) for span in spans]
        unknown = tokenizer.unk_token_id
        cut_texts.append(Pieces(ids, [None if token is None or ids[token] == unknown else token for token in tokens]))
    return cut_texts


def _token(text: str, bounds: NDArray[np.int64], span: Span) -> int | None:
    """The one token of a word, if it has one and that token holds nothing else but blanks before the word."""
    first = int(np.searchsorted(bounds[:, 1], span.start, side="right"))
    stop = int(np.searchsorted(bounds[:, 0], span.stop, side="left"))
    if stop - first != 1 or bounds[first, 1] > span.stop or text[bounds[first, 0] : span.start].strip():
        return None
    return first
