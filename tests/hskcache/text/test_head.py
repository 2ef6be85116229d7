"""The head of a file refuses what reading would, in the same words."""

from pathlib import Path

import pytest

from hskcache.errors import DataError
from hskcache.text import Columns, read_examples
from hskcache.text.head import check_head


def test_a_file_that_is_not_utf_8_is_not_said_to_lack_a_column(tmp_path: Path) -> None:
    columns, path = Columns("text", label="label"), tmp_path / "a.csv"
    path.write_text("text,label\na,1\nb,0\n", encoding="utf-16")
    check_head(str(path), columns)
    with pytest.raises(DataError, match="line 1: byte 0xff is not UTF-8"):
        read_examples(path, columns)
    path.write_text("text,other\na,1\nb,0\n", encoding="utf-8-sig")
    with pytest.raises(DataError, match="no column 'label'; the columns are text, other"):
        check_head(str(path), columns)


def test_a_character_that_the_end_of_the_head_cuts_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,other\n" + "\u00e9" * (1 << 20) + ",1\n", encoding="utf-8")
    with pytest.raises(DataError, match="no column 'label'"):
        check_head(str(path), Columns("text", label="label"))
