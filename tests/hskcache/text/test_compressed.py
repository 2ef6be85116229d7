"""Files of gzip and JSON arrays hold the same rows as what they were made of, and faults in them are told."""

import gzip
import json
from pathlib import Path

import pytest

from hskcache.errors import DataError
from hskcache.text import Examples
from hskcache.text.layout import Layout

ROWS = [
    {"text": "good, \u2028 film", "label": "pos"},
    {"text": 'a "bad" one', "label": "neg"},
    {"text": "neither;\tnor", "label": "neg"},
]


def read(path: Path, text: str | int = "text", label: str | int = "label") -> Examples:
    layout = Layout(text=str(text), label=str(label))
    layout.check(str(path))
    return layout.read(str(path))


def as_csv(separator: str = ",") -> str:
    rows = [{"text": "text", "label": "label"}, *ROWS]
    quoted = ['"' + row["text"].replace('"', '""') + '"' for row in rows]
    return "".join(f"{text}{separator}{row['label']}\n" for text, row in zip(quoted, rows, strict=True))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("rows.json", json.dumps(ROWS)),
        ("rows.JSON", json.dumps(ROWS, indent=2)),
        ("rows.jsonl", "\n".join(map(json.dumps, ROWS))),
        ("rows.csv", as_csv()),
        ("rows.csv", as_csv(";")),
    ],
)
def test_the_same_rows_are_read(name: str, data: str, tmp_path: Path) -> None:
    (tmp_path / "expected.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    expected = read(tmp_path / "expected.jsonl")
    (tmp_path / name).write_text(data, encoding="utf-8")
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(data.encode()))
    for path in (tmp_path / name, tmp_path / f"{name}.gz"):
        found = read(path)
        assert (list(found.texts), found.fingerprint) == (list(expected.texts), expected.fingerprint)
        assert found.label_names == expected.label_names


def test_a_tsv_of_gzip_goes_by_numbers_too(tmp_path: Path) -> None:
    (tmp_path / "rows.tsv.gz").write_bytes(gzip.compress(b"1\tgood film\n0\tbad film\n"))
    assert list(read(tmp_path / "rows.tsv.gz", 1, 0).texts) == ["good film", "bad film"]


@pytest.mark.parametrize(
    ("name", "data", "line"),
    [
        ("rows.csv.gz", as_csv().encode(), "is no whole file of gzip"),
        # A test's name holds its bytes, and two processes collect tests at different seconds.
        ("rows.csv.gz", gzip.compress(as_csv().encode(), mtime=0)[:-9], "is no whole file of gzip"),
        ("rows.jsonl.gz", gzip.compress(b"", mtime=0), "is empty"),
        ("rows.json", b'{"text": ["a"]}', "holds no array of objects"),
        ("rows.json", b"[]", "holds no array of objects"),
        ("rows.json", b'{"text": "a"}\n{"text": "b"}', "is not JSON"),
        ("rows.json", b'[{"text": "a", "label": 1}, 7]', "row 2: a JSON int where an object was expected"),
        ("rows.xlsx.gz", gzip.compress(b"a", mtime=0), "unknown format '.xlsx'"),
    ],
)
def test_what_cannot_be_read_is_told(name: str, data: bytes, line: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=line):
        read(tmp_path / name)
