"""The tokenizer that a student brings along: compared where there is one, told where it cannot be read."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from trainer.student.vocabulary import own_vocabulary


def test_a_student_on_the_hub_whose_tokenizer_cannot_be_loaded_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """It was made for some tokens, and nobody will have asked which."""
    assert own_vocabulary("nobody/nothing") is None
    told = capsys.readouterr().err
    assert told.startswith("whether nobody/nothing was made for these token ids is not checked: ")
    assert len(told.splitlines()) == 1


def test_of_a_folder_the_tokenizer_is_its_own(
    tiny_tokenizer_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert own_vocabulary(str(tiny_tokenizer_dir)) == AutoTokenizer.from_pretrained(tiny_tokenizer_dir).get_vocab()
    assert own_vocabulary(str(tmp_path)) is None
    assert own_vocabulary("tinybert4") is None
    assert capsys.readouterr().err == ""
