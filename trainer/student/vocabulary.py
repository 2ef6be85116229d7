"""The tokens that a student already knows, where it brings a tokenizer of its own."""

from collections.abc import Mapping
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from hskcache.errors import SpecError, TeacherError
from hskcache.model.adapter import tokenizer_of
from hskcache.model.weights import has_tokenizer
from hskcache.remarks import remark
from hskcache.text import load_tokenizer
from trainer.student.origin import is_preset


def tokenizer_for(model: str, tokenizer: str | None) -> str:
    """Tokenizer of a model to train: the one that the user names, or the one beside the model.

    ``model``: name, config.json, folder or hub id. ``tokenizer``: folder or hub id that was given; None: the model's
    own. Raises SpecError if none was given, and the model brings none.
    """
    if tokenizer is not None:
        return tokenizer
    source = tokenizer_of(model)
    if is_preset(model) or Path(model).is_file() or (Path(source).is_dir() and not has_tokenizer(Path(source))):
        raise SpecError(f"--model {model} brings no tokenizer; give one with --tokenizer DIR_OR_ID")
    return source


def own_tokenizer(student: str) -> PreTrainedTokenizerBase | None:
    """Tokenizer that a student brings along; None for one that starts from a shape, or brings none.

    ``student``: name, config.json, folder or hub id. Raises TeacherError if the folder has a tokenizer that cannot be
    loaded.
    """
    if is_preset(student) or Path(student).is_file():
        return None
    source = tokenizer_of(student)
    if Path(source).is_dir() and not has_tokenizer(Path(source)):
        return None
    try:
        return load_tokenizer(source)
    except TeacherError as error:
        # A folder has been seen to bring one: that it cannot be read must not pass for that it brings none.
        if Path(source).is_dir():
            raise
        remark(f"whether {student} was made for these token ids is not checked: {error}")
        return None


def own_vocabulary(student: str) -> Mapping[str, int] | None:
    """Token -> id of the tokenizer of :func:`own_tokenizer`; None where that is."""
    tokenizer = own_tokenizer(student)
    return None if tokenizer is None else tokenizer.get_vocab()
