"""The special tokens and token types that a tokenizer puts around one text or two."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hskcache.counted import counted
from hskcache.errors import SpecError, TeacherError
from hskcache.text.documents import plain_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ids = NDArray[np.int32]
Types = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Frame:
    """A row without its texts, as a tokenizer's own template has it.

    ``ids``: int32, special tokens before, between and behind the texts: one run more than there are texts. ``types``:
    uint8, a run of token types for each of ``ids``.
    """

    ids: tuple[Ids, ...]
    types: tuple[Types, ...]
    text_types: tuple[int, ...]


def frame_of(tokenizer: "PreTrainedTokenizerBase", num_texts: int) -> Frame:
    """Special tokens that a fast tokenizer puts around one text, or two.

    Raises TeacherError if it gives one text several types, or a single text, which is stored without any, another than
    0.
    """
    plain = plain_tokenizer(tokenizer)
    probe = _probe(plain)
    whole = plain.post_process(*[probe] * num_texts)
    ids, types = np.array(whole.ids, np.int32), np.array(whole.type_ids, np.uint8)
    if num_texts == 1 and types.any():
        raise TeacherError(
            "the tokenizer gives single texts token types other than 0, which packed rows do not have; give a teacher "
            "with another tokenizer"
        )
    runs, text_types, begin = [], [], 0
    for _ in range(num_texts):
        text = whole.special_tokens_mask.index(0, begin)
        runs.append(slice(begin, text))
        begin = text + len(probe)
        ids_of_types = set(types[text:begin].tolist())
        if len(ids_of_types) > 1:
            raise TeacherError(
                "the tokenizer gives one text several token types; give a teacher with another tokenizer"
            )
        text_types.append(int(ids_of_types.pop()))
    runs.append(slice(begin, None))
    return Frame(tuple(ids[run] for run in runs), tuple(types[run] for run in runs), tuple(text_types))


def _probe(plain: Any) -> Any:
    """The encoding of some text that has a token."""
    texts = ("a", *(plain.id_to_token(number) for number in range(plain.get_vocab_size())))
    encodings = (plain.encode(text, add_special_tokens=False) for text in texts if text)
    return next(encoding for encoding in encodings if len(encoding))


def room_for(num_texts: int, num_special: int, max_length: int) -> int:
    """Tokens of text that a row has room for. Raises SpecError for less than one for each text."""
    if (room := max_length - num_special) >= num_texts:
        return room
    texts = "single texts" if num_texts == 1 else "pairs"
    raise SpecError(
        f"{counted(max_length, 'token')} at most leave no room beside the "
        f"{counted(num_special, 'special token')} of {texts}; give at least {num_special + num_texts}"
    )
