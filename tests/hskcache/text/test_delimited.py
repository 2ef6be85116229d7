"""Files of GLUE's kind and quoted CSV: what is read, and the line every fault is reported on."""

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hskcache.errors import DataError
from hskcache.text import Columns, LabelSet, read_examples

NAMED = Columns("sentence", label="label")
BINARY = LabelSet("classification", ("0", "1"))
NO_BREAKS = st.text(st.characters(exclude_characters="\t\n\r", exclude_categories=["Cs"]), min_size=1).filter(str.strip)


def write(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_quotes_in_a_tsv_are_characters_and_join_no_lines(tmp_path: Path) -> None:
    path = write(tmp_path, "a.tsv", 'sentence\tlabel\n"open quote\t1\nhe said "no"\t0\n"\t1\n')
    examples = read_examples(path, NAMED, BINARY)
    assert examples.texts == ['"open quote', 'he said "no"', '"']
    assert examples.labels is not None
    assert examples.labels.tolist() == [1, 0, 1]


def test_a_tsv_row_ends_only_at_a_line_feed(tmp_path: Path) -> None:
    texts = ["a\rb", "c\u2028d", "e\x85f", "g\x0bh\x0ci\x1cj"]
    path = write(tmp_path, "a.tsv", "sentence\tlabel\n" + "".join(f"{text}\t1\n" for text in texts))
    assert read_examples(path, NAMED, BINARY).texts == texts


@given(rows=st.lists(st.tuples(NO_BREAKS, st.sampled_from("01")), min_size=1, max_size=8))
def test_any_text_without_tabs_or_breaks_comes_back_from_a_tsv(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    text = "sentence\tlabel\n" + "\n".join(f"{text}\t{label}" for text, label in rows)
    path = write(tmp_path_factory.mktemp("any"), "a.tsv", text)
    examples = read_examples(path, NAMED, BINARY)
    assert examples.texts == [text for text, _ in rows]
    assert examples.labels is not None
    assert examples.labels.tolist() == [int(label) for _, label in rows]


@given(
    rows=st.lists(st.text(min_size=1).filter(lambda text: text.strip() and text.isprintable()), min_size=1, max_size=5)
)
def test_any_text_comes_back_from_a_csv_that_python_wrote(
    tmp_path_factory: pytest.TempPathFactory, rows: list[str]
) -> None:
    path = tmp_path_factory.mktemp("any") / "a.csv"
    texts = [f'{text}\n"second, line"' for text in rows]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["sentence", "label"], *([text, 1] for text in texts)])
    assert read_examples(path, NAMED, BINARY).texts == texts


@pytest.mark.parametrize(
    "text", ["\ufeffsentence\tlabel\na\t1\n", "sentence\tlabel\r\na\t1\r\n", "sentence\tlabel\n\na\t1\n\n\n"]
)
def test_a_byte_order_mark_windows_line_ends_and_blank_lines_change_nothing(tmp_path: Path, text: str) -> None:
    examples = read_examples(write(tmp_path, "a.tsv", text), NAMED, BINARY)
    assert examples.texts == ["a"]
    assert examples.labels is not None
    assert examples.labels.tolist() == [1]


def test_a_last_line_without_a_line_feed_is_a_row(tmp_path: Path) -> None:
    assert len(read_examples(write(tmp_path, "a.tsv", "sentence\tlabel\na\t1\nb\t0"), NAMED, BINARY)) == 2


FAULTS = [
    pytest.param("a.tsv", "sentence\tlabel\na\t1\n\nb\n", "line 4: 1 column where line 1 has 2", id="short row"),
    pytest.param("a.tsv", "sentence\tlabel\na\t1\nb\tc\t0\n", "line 3: 3 columns where line 1 has 2", id="long row"),
    pytest.param(
        "a.tsv", "sentence\tlabel\na\t1\nb\t2", "line 3: label '2' is not one of 0, 1", id="label of the last line"
    ),
    pytest.param(
        "a.tsv",
        "sentence\tlabel\na\t1\nb\t\n",
        "1 of 2 rows has no gold label, the first in line 3; give --unlabelled skip",
        id="empty label",
    ),
    pytest.param("a.tsv", "sentence\tlabel\n \t1\n", "line 2: the text is empty", id="empty text"),
    pytest.param(
        "a.tsv", "sentence\tgold\na\t1\n", "line 1: no column 'label'; the columns are sentence, gold", id="no column"
    ),
    pytest.param("a.tsv", "label\tsentence\tlabel\n1\ta\t1\n", "line 1: 2 columns are called 'label'", id="twice"),
    pytest.param("a.tsv", b"sentence\tlabel\na\t1\ncaf\xe9\t0\n", "line 3: byte 0xe9 is not UTF-8", id="latin-1"),
    pytest.param("a.tsv", "sentence\tlabel\na\t1\n".encode("utf-16"), "line 1: byte 0xff is not UTF-8", id="utf-16"),
    pytest.param("a.tsv", "", "is empty", id="empty file"),
    pytest.param("a.tsv", "\n \n", "is empty", id="blank file"),
    pytest.param("a.tsv", b"\xef\xbb\xbf", "is empty", id="byte order mark alone"),
    pytest.param("a.tsv", "sentence\tlabel\n", "has a header and no rows", id="header alone"),
    pytest.param(
        "a.csv", 'sentence,label\n"one\ntwo\nthree",1\nb,7\n', "line 5: label '7'", id="after three lines of text"
    ),
    pytest.param(
        "a.csv", 'sentence,label\n\n"one\ntwo",x\n', "line 3: label 'x'", id="the line where its record begins"
    ),
    pytest.param("a.csv", 'sentence,label\na,1\n"b\nc,0\n', "line 3: unexpected end of data", id="quote never closed"),
    pytest.param("a.csv", 'sentence,label\na,1\n"b"c,0\n', "line 3: ',' expected after '\"'", id="text after a quote"),
    pytest.param("a.txt", "sentence\n", "unknown format '.txt'", id="suffix"),
]


@pytest.mark.parametrize(("name", "text", "message"), FAULTS)
def test_every_fault_names_the_file_and_its_line(tmp_path: Path, name: str, text: str | bytes, message: str) -> None:
    path = write(tmp_path, name, text)
    with pytest.raises(DataError) as caught:
        read_examples(path, NAMED, BINARY)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_csv_text_may_be_longer_than_the_csv_module_expects_whose_limit_stays(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    path = write(tmp_path, "a.csv", f"sentence,label\na,1\n{'b' * (limit + 1)},0\n")
    assert len(read_examples(path, NAMED, BINARY).texts[1]) == limit + 1
    assert csv.field_size_limit() == limit


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone.tsv: No such file"):
        read_examples(tmp_path / "gone.tsv", NAMED, BINARY)
    with pytest.raises(DataError, match=r"is a folder; .*hub:"):
        read_examples(tmp_path, NAMED, BINARY)


NUMBERED = Columns(1, label=0)


@pytest.mark.parametrize(
    ("text", "labels", "num_rows"),
    [
        pytest.param("1\ta\n0\tb\n", BINARY, 2, id="the first label is in the set"),
        pytest.param("y\tx\n0\tb\n", BINARY, 1, id="the first label is not in the set"),
        pytest.param("2.5\ta\n0.1\tb\n", LabelSet("regression"), 2, id="the first score is a number"),
        pytest.param("score\ta\n0.1\tb\n", LabelSet("regression"), 1, id="the first score is a word"),
        pytest.param("1\ta\n0\tb\n", LabelSet(), 2, id="open set: numbers throughout"),
        pytest.param("label\ttext\n0\tb\n1\tc\n", LabelSet(), 2, id="open set: a word above numbers"),
        pytest.param("no\ta\nyes\tb\n", LabelSet(), 2, id="open set: words throughout"),
    ],
)
def test_numbered_columns_have_a_header_only_where_the_first_label_is_none(
    tmp_path: Path, text: str, labels: LabelSet, num_rows: int
) -> None:
    assert len(read_examples(write(tmp_path, "a.tsv", text), NUMBERED, labels)) == num_rows


def test_what_the_user_says_of_the_header_holds(tmp_path: Path) -> None:
    path = write(tmp_path, "a.tsv", "a\nb\n")
    assert read_examples(path, Columns(0)).texts == ["a", "b"]
    assert read_examples(path, Columns(0, header=True)).texts == ["b"]
    with pytest.raises(DataError, match="without a header have numbers"):
        read_examples(path, Columns("a", header=False))


@pytest.mark.parametrize("column", [2, -1])
def test_a_column_number_outside_the_row_is_refused(tmp_path: Path, column: int) -> None:
    path = write(tmp_path, "a.tsv", "1\ta\n0\tb\n")
    with pytest.raises(DataError, match=r"line 1: no column number .*; there are 2 columns, numbers 0 to 1"):
        read_examples(path, Columns(column))
