"""Rows that cannot be used end the reading on their line, or are left out, counted and told."""

import json
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hskcache.errors import DataError
from hskcache.text import Columns, LabelSet, read_examples
from hskcache.text.table import RowPolicy

COLUMNS = Columns("a", "b", "label")
SKIP = RowPolicy(bad_rows="skip")
KNOWN = LabelSet(names=("0", "1"))


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


FILES = [
    pytest.param("a.tsv", "a\tb\tlabel\nx\ty\t1\nx\t \t0\nx\ty\t0\n", "the second text is empty", id="empty text"),
    pytest.param("a.tsv", "a\tb\tlabel\nx\ty\t1\nx\t0\nx\ty\t0\n", "2 columns where line 1 has 3", id="width"),
    pytest.param("a.tsv", "a\tb\tlabel\nx\ty\t1\nx\ty\t7\nx\ty\t0\n", "label '7' is not one of 0, 1", id="label"),
    pytest.param(
        "a.tsv", b"a\tb\tlabel\nx\ty\t1\n\xe9\ty\t7\nx\ty\t0\n", "the text holds a byte that is not UTF-8", id="bytes"
    ),
    pytest.param("a.csv", 'a,b,label\nx,y,1\n"x"x,y,0\nx,y,0\n', "',' expected after '\"'", id="quote"),
    pytest.param(
        "a.jsonl", '{"a":"x","b":"y","label":1}\n\nno\n{"a":"x","b":"y","label":0}', "not JSON (Expecting", id="JSON"
    ),
    pytest.param(
        "a.jsonl",
        '{"a":"x","b":"y","label":1}\n\n{"a":"x","b":null,"label":1}\n{"a":"x","b":"y","label":0}',
        "the second text is missing",
        id="null",
    ),
]


@pytest.mark.parametrize(("name", "content", "reason"), FILES)
def test_a_bad_row_is_refused_or_left_out_by_its_line(
    tmp_path: Path, name: str, content: str | bytes, reason: str
) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(DataError, match=r"line 3: .*"):
        read_examples(path, COLUMNS, KNOWN)
    examples = read_examples(path, COLUMNS, KNOWN, SKIP)
    assert examples.labels is not None
    assert (examples.labels.tolist(), examples.texts, examples.pairs) == ([1, 0], ["x", "x"], ["y", "y"])
    [(number, found)] = examples.reading.bad
    assert number == 3
    assert found.startswith(reason)
    assert examples.reading.notes[-1].startswith(f"{path}: 1 bad row is left out, the first in line 3: {reason}")
    assert examples.where(1) == f"{path} line {4 if number == 3 else 3}"


def test_rows_that_stay_have_the_fingerprint_of_a_file_without_the_others(tmp_path: Path) -> None:
    dirty = write(tmp_path, "dirty.tsv", "a\tb\tlabel\nx\ty\t1\n\ty\t1\nz\ty\t0\nz\n")
    clean = write(tmp_path, "clean.tsv", "a\tb\tlabel\nx\ty\t1\nz\ty\t0\n")
    assert read_examples(dirty, COLUMNS, KNOWN, SKIP).fingerprint == read_examples(clean, COLUMNS).fingerprint


def test_rows_of_a_parquet_file_are_left_out_by_their_number(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": ["x", None, "z"], "label": [1, 0, 0]}), tmp_path / "a.parquet")
    examples = read_examples(tmp_path / "a.parquet", Columns("a", label="label"), None, SKIP)
    assert examples.reading.bad == ((2, "the text is missing"),)
    assert list(examples.reading.numbers) == [1, 3]


def test_a_file_of_bad_rows_alone_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "a,b,label\n,y,1\nx,,0\n")
    with pytest.raises(DataError, match=r"no row can be used; line 2: the text is empty"):
        read_examples(path, COLUMNS, None, SKIP)
    text = "\n".join(json.dumps({"a": "x", "b": "y"}) for _ in range(2))
    with pytest.raises(DataError, match=r"no row can be used; line 1: no key 'label'"):
        read_examples(write(tmp_path, "a.jsonl", text), COLUMNS, None, SKIP)


def test_a_quote_that_is_never_closed_ends_the_reading_whatever_is_asked(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", 'a,b,label\nx,y,1\n"x,y,0\nx,y,0\n')
    with pytest.raises(DataError, match="line 3: unexpected end of data; close the quote"):
        read_examples(path, COLUMNS, KNOWN, SKIP)


def test_rows_that_a_broken_quote_takes_along_are_told(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", 'a,b,label\n"x,y,0\nx,y,1\nx"x,y,0\nz,y,1\n')
    examples = read_examples(path, COLUMNS, KNOWN, SKIP)
    assert examples.texts == ["z"]
    assert "lost with the 2 lines after it" in examples.reading.bad[0][1]


@pytest.mark.parametrize(("separator", "told"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_a_csv_may_have_another_separator_which_is_told(tmp_path: Path, separator: str, told: str) -> None:
    rows = [["a", "label"], ['"x, ""y"""', "1"], ["z", "0"]]
    path = write(tmp_path, "a.csv", "\ufeff" + "".join(separator.join(row) + "\r\n" for row in rows))
    examples = read_examples(path, Columns("a", label="label"))
    assert examples.texts == ['x, "y"', "z"]
    assert f"fields separated by {told}" in examples.reading.notes[0]


def test_a_tsv_that_a_writer_of_csv_has_quoted_is_told(tmp_path: Path) -> None:
    columns = Columns("a", label="label")
    quoted = 'a\tlabel\n"he said ""no"""\t1\nplain\t0\n'
    examples = read_examples(write(tmp_path, "a.tsv", quoted), columns)
    assert examples.texts[0] == '"he said ""no"""'
    assert "1 texts in quotes as CSV has them" in examples.reading.notes[0]
    assert read_examples(write(tmp_path, "a.csv", quoted), columns).texts[0] == 'he said "no"'
    as_in_glue = 'a\tlabel\n"he said ""no"""\t1\nhe said "yes"\t0\n'
    assert "quotes" not in read_examples(write(tmp_path, "b.tsv", as_in_glue), columns).reading.notes[0]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    features = datasets.Features({"a": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    data = datasets.Dataset.from_dict({"a": ["x", "y"], "label": [1, 0]}, features=features)
    datasets.disable_progress_bars()
    data.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": data, "test": data}).save_to_disk(tmp_path / "parts")
    return tmp_path


def test_a_data_set_that_was_saved_to_disk_is_read_by_its_folder(saved: Path) -> None:
    columns = Columns("a", label="label")
    one, part, named = (
        read_examples(source, columns) for source in (saved / "one", saved / "parts/train", f"hub:{saved}/parts:train")
    )
    assert one.fingerprint == part.fingerprint == named.fingerprint
    assert (one.texts, one.label_names, named.split) == (["x", "y"], ("no", "yes"), "train")
    with pytest.raises(DataError, match=r"holds the parts test, train of a data set; give one, such as .*/parts/test"):
        read_examples(saved / "parts", columns)
    (saved / "one" / "data-00000-of-00001.arrow").write_bytes(b"cut")
    with pytest.raises(DataError, match="is not a whole data set"):
        read_examples(saved / "one", columns)


WORDS = "t\tneg\nt\tpos\n"


@pytest.mark.parametrize(
    ("first", "columns", "num_rows", "told"),
    [
        pytest.param("text\tlabel\n", Columns(0, label=1), 4, "header", id="names of columns above words"),
        pytest.param("foo\tpos\n", Columns(0, label=1), 5, "a row", id="a label that others have"),
        pytest.param("sentence\t?\n", Columns(0), 4, "header", id="a name of a text alone"),
        pytest.param("foo\t?\n", Columns(0), 5, "a row", id="a text alone"),
    ],
)
def test_how_the_first_line_was_read_is_told(
    tmp_path: Path, first: str, columns: Columns, num_rows: int, told: str
) -> None:
    examples = read_examples(write(tmp_path, "a.tsv", first + 2 * WORDS), columns)
    assert len(examples) == num_rows
    assert f"first line read as {told}" in examples.reading.notes[0]
    assert examples.reading.columns is not None
    assert examples.reading.columns.header == (told == "header")


def test_a_first_line_that_may_be_either_is_asked_about(tmp_path: Path) -> None:
    path = write(tmp_path, "a.tsv", "foo\tangry\n" + 2 * WORDS)
    with pytest.raises(DataError, match=r"line 1: 'angry' may be the name of a column or a label .*; give --header or"):
        read_examples(path, Columns(0, label=1))
    assert read_examples(path, Columns(0, label=1, header=False)).label_names == ("angry", "neg", "pos")
    assert read_examples(path, Columns(0, label=1, header=True)).label_names == ("neg", "pos")


@pytest.mark.parametrize("label", ["", "-", "-1", "0"])
def test_a_first_row_is_no_header_for_lack_of_a_known_label(tmp_path: Path, label: str) -> None:
    """Its label may be none, or the index of a class that has a name."""
    path = write(tmp_path, "a.tsv", f"foo\t{label}\nt\t1\nt\t0\n")
    policy = RowPolicy(unlabelled="skip")
    examples = read_examples(path, Columns(0, label=1), LabelSet(names=("neg", "pos")), policy)
    assert examples.reading.columns == Columns(0, label=1, header=False)
    assert len(examples) == (3 if label == "0" else 2)
