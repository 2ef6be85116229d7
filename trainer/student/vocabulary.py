"""The tokens that a student already knows, where it brings a tokenizer of its own."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hskcache import console
from hskcache.errors import TeacherError
from hskcache.text import load_tokenizer
from trainer.student.create import is_preset

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# A folder with none of these brings no tokenizer, though transformers may make up an empty one.
_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model")


def own_vocabulary(student: str) -> Mapping[str, int] | None:
    """Token -> id of the tokenizer that a student brings along; None for one that starts from a shape, or brings none.

    Args:
        student: name, config.json, folder or hub id.

    Raises:
        TeacherError: the folder has a tokenizer that cannot be loaded.
    """
    if is_preset(student) or Path(student).is_file():
        return None
    if Path(student).is_dir() and not any((Path(student) / name).is_file() for name in _FILES):
        return None
    tokenizer: PreTrainedTokenizerBase
    try:
        tokenizer = load_tokenizer(student)
    except TeacherError as error:
        # A folder has been seen to bring one: that it cannot be read must not pass for that it brings none.
        if Path(student).is_dir():
            raise
        console.say(f"whether {student} was made for these token ids is not checked: {error}")
        return None
    vocabulary: Mapping[str, int] = tokenizer.get_vocab()
    return vocabulary
