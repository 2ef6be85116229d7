"""Pieces of a tokenizer's vocabulary as words, in WordPiece, byte-level BPE and SentencePiece alike."""

import json
from typing import TYPE_CHECKING, Any

from hskcache.augment.words import can_stand_for_a_word
from hskcache.errors import TeacherError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BYTE_LEVEL, _SENTENCE_PIECE = "\u0120", "\u2581"


def fold(tokenizer: "PreTrainedTokenizerBase", word: str) -> str:
    """A word in the spelling of the vocabulary: in lower case and without accents where the tokenizer drops them."""
    normalizer = tokenizer.backend_tokenizer.normalizer
    return word if normalizer is None else normalizer.normalize_str(word).strip(f" {_SENTENCE_PIECE}")


def word_pieces(tokenizer: "PreTrainedTokenizerBase", name: str) -> dict[int, str]:
    """The pieces that begin a word, by id, as they are written in a text.

    Left out are special tokens, pieces that continue a word (``##x``, or those without the mark of a word's beginning
    where the vocabulary has one), and pieces that are no whole characters or hold blanks. Punctuation marks that are
    pieces of their own stay, as in the paper's code. ``name``: what to call its model in an error. Raises TeacherError
    if the vocabulary does not tell where words begin.
    """
    layout = json.loads(tokenizer.backend_tokenizer.to_str())
    kind, prefix = layout["model"]["type"], layout["model"].get("continuing_subword_prefix")
    mark = _mark(layout)
    if mark is None and not prefix and kind != "WordLevel":
        raise TeacherError(
            f"the {kind} vocabulary of {name} does not mark where words begin; give a masked LM with a WordPiece, "
            "byte-level BPE or SentencePiece vocabulary"
        )
    special = set(tokenizer.all_special_ids)
    words = {}
    for piece, number in tokenizer.get_vocab().items():
        if number in special or (prefix and piece.startswith(prefix)) or (mark and not piece.startswith(mark)):
            continue
        word = tokenizer.convert_tokens_to_string([piece]).strip() if mark == _BYTE_LEVEL else piece[len(mark or "") :]
        if can_stand_for_a_word(word) and _SENTENCE_PIECE not in word:
            words[number] = word
    return words


def _mark(layout: dict[str, Any]) -> str | None:
    """Character in front of a piece at a word's beginning, or None."""
    parts = [*_parts(layout.get("pre_tokenizer")), *_parts(layout.get("normalizer"))]
    kinds = {part["type"] for part in parts}
    if "ByteLevel" in kinds:
        return _BYTE_LEVEL
    prepended = any(part["type"] == "Prepend" and part.get("prepend") == _SENTENCE_PIECE for part in parts)
    return _SENTENCE_PIECE if "Metaspace" in kinds or prepended else None


def _parts(step: dict[str, Any] | None) -> list[dict[str, Any]]:
    """A step of the tokenizer, or the steps of a sequence, however deep."""
    if step is None:
        return []
    inner = step.get("pretokenizers") or step.get("normalizers")
    return [step] if inner is None else [part for one in inner for part in _parts(one)]
