"""Rows in the order of their copies, from every form in which a table can tell of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hskcache.errors import DataError
from hskcache.text import Columns, Examples, read_examples
from hskcache.text.copies import Copies, in_order_of_copies
from hskcache.text.memory import in_memory
from hskcache.text.rows import fingerprint
from hskcache.text.singles import singles
from hskcache.text.strings import spooling
from hskcache.text.table import RowPolicy

# As augment writes them: text, label, row in the source, number of the copy; copies that came out equal are left out.
ROWS = [
    ("a film", 1, 0, 0),
    ("no film", 0, 1, 0),
    ("my film", 1, 2, 0),
    ("a movie", 1, 0, 1),
    ("a story", 1, 0, 3),
    ("no story", 0, 1, 2),
    ("my movie", 1, 2, 1),
    ("my story", 1, 2, 2),
]
ORDER = ["a film", "no film", "my film", "a movie", "my movie", "no story", "my story", "a story"]
NAMES = ("sentence", "label", "origin", "copy")


def written(path: Path, rows: list[tuple[Any, ...]], header: tuple[str, ...] | None = NAMES) -> Path:
    if path.suffix == ".jsonl":
        assert header is not None
        lines = [json.dumps(dict(zip(header, row, strict=True))) for row in rows]
    else:
        separator = "," if path.suffix == ".csv" else "\t"
        lines = [separator.join(map(str, row)) for row in (*([] if header is None else [header]), *rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read(source: Any, copy: str | None = None, columns: Columns | None = None) -> Examples:
    return in_order_of_copies(read_examples(source, columns or Columns("sentence", None, "label")), source, copy)


def known(examples: Examples) -> Copies:
    assert examples.copies is not None
    return examples.copies


@pytest.mark.parametrize("name", ["rows.tsv", "rows.csv", "rows.jsonl"])
def test_originals_come_first_then_copies_by_their_number(name: str, tmp_path: Path) -> None:
    path = written(tmp_path / name, ROWS)
    examples = read(path)
    assert list(examples.texts) == ORDER
    assert examples.labels is not None
    assert examples.labels.tolist() == [1, 0, 1, 1, 1, 0, 1, 1]
    assert known(examples).numbers.tolist() == [0, 0, 0, 1, 1, 2, 2, 3]
    assert known(examples).origins.tolist() == [0, 1, 2, 0, 2, 1, 2, 0]
    assert known(examples).counts == [3, 2, 2, 1]
    first = 1 if name == "rows.jsonl" else 2
    assert examples.where(5) == f"{path} line {first + 5}"


def test_rows_are_the_same_in_memory_and_on_the_disk(tmp_path: Path) -> None:
    expected = read(written(tmp_path / "rows.tsv", ROWS))
    for rows in (
        [dict(zip(NAMES, row, strict=True)) for row in ROWS],
        dict(zip(NAMES, zip(*ROWS, strict=True), strict=True)),
    ):
        found = read(in_memory(rows))
        assert (list(found.texts), found.fingerprint) == (ORDER, expected.fingerprint)
    with spooling(tmp_path):
        found = read(tmp_path / "rows.tsv")
        assert (list(found.texts), found.fingerprint) == (ORDER, expected.fingerprint)


def test_a_file_without_names_is_told_the_column(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.tsv", ROWS, header=None)
    columns = Columns(0, None, 1, header=False)
    assert read(path, columns=columns).copies is None
    found = read(path, "3", columns)
    assert list(found.texts) == ORDER
    assert known(found).column == 3
    with pytest.raises(DataError, match=r"rows\.tsv line 1: the columns of origin and copy hold no numbers"):
        read(path, "1", columns)
    with pytest.raises(DataError, match="no column number 9; there are 4"):
        read(path, "9", columns)


def test_rows_stay_as_they_stand_where_nothing_tells_of_copies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = written(tmp_path / "plain.tsv", [row[:2] for row in ROWS], NAMES[:2])
    half = written(tmp_path / "half.tsv", [(*row[:2], row[3]) for row in ROWS], (*NAMES[:2], "copy"))
    other = written(tmp_path / "other.tsv", [(*row[:2], "France", "carbon") for row in ROWS])
    keys = written(tmp_path / "keys.jsonl", [row[:3] for row in ROWS], NAMES[:3])
    capsys.readouterr()
    for path in (plain, half, other, keys):
        examples = read(path)
        assert (list(examples.texts), examples.copies) == ([row[0] for row in ROWS], None)
        assert examples.fingerprint == fingerprint(examples.texts, None, examples.labels, ("0", "1"))
    assert not capsys.readouterr().err
    assert read(written(tmp_path / "rows.tsv", ROWS), "").fingerprint == read(plain).fingerprint
    odd = written(tmp_path / "odd.tsv", [*ROWS[:5], ("its film", 1, "France", "carbon"), *ROWS[5:]])
    assert read(odd).copies is None
    assert "odd.tsv line 7" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"odd\.tsv line 7"):
        read(odd, "copy")
    with pytest.raises(DataError, match="no column 'cpy'"):
        read(tmp_path / "rows.tsv", "cpy")


def test_numbers_and_origins_are_part_of_the_fingerprint(tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    digests = {read(written(path, ROWS)).fingerprint}
    digests.add(read(written(path, [*ROWS[:-1], ("my story", 1, 1, 2)])).fingerprint)
    digests.add(read(written(path, [*ROWS[:4], ("a story", 1, 0, 4), *ROWS[5:]])).fingerprint)
    assert len(digests) == 3


def test_a_copy_whose_original_is_not_there_has_none(tmp_path: Path) -> None:
    # The original of row 0 has no text and is left out; numbers of the source stay what they are.
    path = written(tmp_path / "rows.tsv", [(" ", 1, 0, 0), *ROWS[1:]])
    examples = read_examples(path, Columns("sentence", None, "label"), policy=RowPolicy(bad_rows="skip"))
    found = known(in_order_of_copies(examples, path))
    assert found.origins.tolist() == [0, 1, -1, 1, 0, 1, -1]
    assert found.counts == [2, 2, 2, 1]


PAIRS = [
    ("a film", "a cast", 0, 0),
    ("no film", "no cast", 1, 0),
    ("a movie", "a cast", 0, 1),
    ("a story", "a cast", 0, 2),
    ("a film", "a crew", 0, 3),
    ("a film", "a plot", 0, 4),
    ("no movie", "no cast", 1, 1),
    ("no film", "no plot", 1, 4),
]


def test_copies_of_either_text_of_a_pair_are_counted_from_one(tmp_path: Path) -> None:
    """Two copies of each text: those of the second are numbered 3 and 4 in the table."""
    names = ("first", "second", "origin", "copy")
    columns = Columns("first", "second")
    examples = read(written(tmp_path / "rows.tsv", PAIRS, names), columns=columns)
    assert examples.pairs is not None
    assert known(examples).counts == [2, 3, 3]
    rows = list(zip(examples.texts, examples.pairs, known(examples).numbers.tolist(), strict=True))
    assert rows[2:5] == [("a movie", "a cast", 1), ("a film", "a crew", 1), ("no movie", "no cast", 1)]
    # Where both vary at a time, there is nothing to count anew.
    both = [(f"{first} {number}", f"{second} {number}", row, number) for first, second, row, number in PAIRS]
    path = written(tmp_path / "both.tsv", both, names)
    assert known(read(path, columns=columns)).counts == [2, 2, 1, 1, 2]


def test_both_texts_of_a_pair_that_are_rows_are_copies_of_their_own_originals(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.tsv", PAIRS[:3], ("first", "second", "origin", "copy"))
    examples = in_order_of_copies(singles(read_examples(path, Columns("first", "second"))), path)
    assert list(examples.texts) == ["a film", "a cast", "no film", "no cast", "a movie", "a cast"]
    assert known(examples).numbers.tolist() == [0, 0, 0, 0, 1, 1]
    assert known(examples).origins.tolist() == [0, 1, 2, 3, 0, 1]
    assert known(examples).numbers.dtype == np.int32


def test_numbers_that_were_written_as_floats_are_the_same(tmp_path: Path) -> None:
    floats = written(tmp_path / "floats.tsv", [(*row[:2], float(row[2]), float(row[3])) for row in ROWS])
    assert read(floats).fingerprint == read(written(tmp_path / "rows.tsv", ROWS)).fingerprint
    half = written(tmp_path / "half.tsv", [*ROWS, ("its film", 1, 0, 0.5)])
    with pytest.raises(DataError, match=r"half\.tsv line 10: the columns of origin and copy hold no numbers"):
        read(half, "copy")


def test_columns_that_mean_something_else_are_told_by_their_missing_originals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sold = written(tmp_path / "sold.tsv", [(*row[:2], 1990 + place, 7 * place) for place, row in enumerate(ROWS)])
    assert known(read(sold)).counts[0] == 1
    assert "the originals of 7 are not among them: where the columns origin and copy" in capsys.readouterr().err
    read(written(tmp_path / "rows.tsv", ROWS))
    assert "not among them" not in capsys.readouterr().err
    read(written(tmp_path / "plain.tsv", [(*row[:3], 0) for row in ROWS]))
    assert capsys.readouterr().err.rstrip().endswith("plain.tsv: 8 rows")
    with pytest.raises(DataError, match="--copy 0: the column of origins stands before that of copies"):
        read(sold, "0")
