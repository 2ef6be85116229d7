"""Whatever the source is, the output is the same table with more rows, which the same layout reads."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hskcache.augment import RewritableRows, open_source, output_suffix
from hskcache.errors import DataError, SpecError
from hskcache.text.layout import Layout


def layout(task: str | None = None, **given: Any) -> Layout:
    return Layout(task, *(given.get(name) for name in ("text", "text_pair", "label", "header")))


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def doubled(source: RewritableRows, path: Path) -> Path:
    """Every row and one copy of it whose texts end in an exclamation mark."""
    lines = [source.head]
    for row in range(len(source)):
        texts = source.texts(row)
        lines += [source.line(row, texts, 0), source.line(row, [f"{text}!" for text in texts], 1)]
    return write(path, "".join(lines))


def check(given: Layout, path: Path | str, out: Path) -> list[str]:
    """Both files read alike, but that each row of the output has its copy behind it; the lines of the output."""
    source = open_source(str(path), given)
    assert output_suffix(str(path)) == out.suffix
    before, after = given.read(str(path)), given.read(str(doubled(source, out)))
    assert after.texts == [text for original in before.texts for text in (original, f"{original}!")]
    if before.pairs is None:
        assert after.pairs is None
    else:
        assert after.pairs == [text for original in before.pairs for text in (original, f"{original}!")]
    assert (after.label_names, after.problem) == (before.label_names, before.problem)
    if before.labels is None:
        assert after.labels is None
    else:
        assert after.labels is not None
        assert after.labels.tolist() == [label for label in before.labels.tolist() for _ in range(2)]
    return out.read_bytes().decode().split("\n")[:-1]


TSV = [
    pytest.param(layout("sst2"), "sentence\tlabel\na b\t1\n\nc\t0\n", "sentence\tlabel\torigin\tcopy", id="header"),
    pytest.param(layout("cola"), "gj\t1\t\ta b\nk\t0\t*\tc\n", "gj\t1\t\ta b\t0\t0", id="no header"),
    pytest.param(layout("rte"), "\ufeffindex\tsentence1\tsentence2\tlabel\r\n7\ta\tb\tentailment\r\n"
                 "8\tc\td\tnot_entailment\r\n",
                 "index\tsentence1\tsentence2\tlabel\torigin\tcopy", id="pairs, mark and line ends"),
    pytest.param(layout(text="1", label="0"), "y\ta\nn\tb\n", "y\ta\t0\t0", id="numbers, words as labels"),
    pytest.param(layout(text="1", label="0"), "label\ttext\n1\ta\n0\tb\n", "label\ttext\torigin\tcopy",
                 id="found header"),
    pytest.param(layout(text="0", header=True), "0\nb c\n", "0\torigin\tcopy", id="no labels"),
    pytest.param(layout("stsb"), "index\tsentence1\tsentence2\tscore\n0\ta\tb\t3.750\n1\tc\td\t1\n",
                 "index\tsentence1\tsentence2\tscore\torigin\tcopy", id="scores"),
    pytest.param(layout("sst2", label=""), 'label\tsentence\n?\t"open, quote\n', "label\tsentence\torigin\tcopy",
                 id="quotes"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "text", "first"), TSV)
def test_a_tsv_keeps_its_columns_and_its_header_or_none(given: Layout, text: str, first: str, tmp_path: Path) -> None:
    lines = check(given, write(tmp_path / "a.tsv", text), tmp_path / "o.tsv")
    assert lines[0] == first
    source = [line for line in text.removeprefix("\ufeff").replace("\r", "").split("\n") if line]
    rows = lines[1:] if first.endswith("copy") else lines
    for number, original in enumerate(source[len(source) - len(rows) // 2 :]):
        assert rows[2 * number] == f"{original}\t{number}\t0"
        assert rows[2 * number + 1].endswith(f"\t{number}\t1")


def test_a_csv_is_quoted_where_it_must_be(tmp_path: Path) -> None:
    rows = [
        ["text", "extra, column", "label"],
        ['say "no",\nor\rnot', 'x"y', "1"],
        ["plain", "", "0"],
        ["'q'", " ", "1"],
    ]
    path = tmp_path / "a.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows(rows)
    check(layout(text="text", label="label"), path, tmp_path / "o.csv")
    with (tmp_path / "o.csv").open(encoding="utf-8", newline="") as file:
        found = list(csv.reader(file, strict=True))
    assert found[0] == [*rows[0], "origin", "copy"]
    assert found[1::2] == [[*row, str(number), "0"] for number, row in enumerate(rows[1:])]


@given(
    texts=st.lists(st.text(min_size=1).filter(lambda text: text.strip() and text.isprintable()), min_size=1, max_size=4)
)
def test_any_text_of_a_csv_comes_back(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("any")
    with (folder / "a.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["text"], *([f'{text}\n\r"second, line"'] for text in texts)])
    check(layout(text="text"), folder / "a.csv", folder / "o.csv")


def test_json_lines_keep_their_keys_in_order(tmp_path: Path) -> None:
    rows = [
        {"id": 1, "b": "zwei\u2028drei", "a": 'one\n"two"', "label": "no", "more": {"x": [1, None]}},
        {"id": 2.5, "b": "y", "a": "x\t", "label": "yes", "half": "\ud800"},
    ]
    path = write(tmp_path / "a.jsonl", "\n\n".join(json.dumps(row) for row in rows))
    lines = check(layout(text="a", text_pair="b", label="label"), path, tmp_path / "o.jsonl")
    for number, row in enumerate(rows):
        expected = row | {"origin": number, "copy": 0}
        assert json.loads(lines[2 * number]) == expected
        assert list(json.loads(lines[2 * number])) == list(expected)
    assert "zwei\u2028drei" in lines[0]


def dataset(**columns: Any) -> Any:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    names = columns.pop("names", None)
    features = {
        key: datasets.Value("float32" if isinstance(values[0], float) else "string") for key, values in columns.items()
    }
    if names is not None:
        features["label"] = datasets.ClassLabel(names=names)
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def parquet(path: Path, **columns: Any) -> Path:
    dataset(**columns).to_parquet(path)
    return path


@pytest.mark.parametrize(
    ("given", "columns", "keys"),
    [
        pytest.param(layout("sst2"), {"sentence": ["a", "b"], "label": [1, 0], "names": ["negative", "positive"]},
                     ["sentence", "label"], id="sst2"),
        pytest.param(layout("mnli"), {"premise": ["a", "b"], "hypothesis": ["c", "d"], "label": [2, 0],
                     "names": ["entailment", "neutral", "contradiction"]}, ["sentence1", "sentence2", "gold_label"],
                     id="mnli"),
        pytest.param(layout("stsb"), {"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": [3.8, 5.0]},
                     ["sentence1", "sentence2", "score"], id="scores"),
        pytest.param(layout(text="t", label="label"), {"t": ["a", "b"], "label": [1, 0], "names": ["no", "yes"]},
                     ["t", "label"], id="classes in alphabetical order"),
        pytest.param(layout(text="t"), {"t": ["a", "b"]}, ["t"], id="no labels"),
    ],
)  # fmt: skip
def test_parquet_becomes_json_lines_that_the_same_options_read(
    given: Layout, columns: dict[str, Any], keys: list[str], tmp_path: Path
) -> None:
    lines = check(given, parquet(tmp_path / "a.parquet", **columns), tmp_path / "o.jsonl")
    assert all(list(json.loads(line)) == [*keys, "origin", "copy"] for line in lines)


def test_classes_in_an_order_of_their_own_become_numbers_which_is_said(tmp_path: Path) -> None:
    """Named, they would come back in alphabetical order and every label would be another."""
    given = layout(text="t", label="label")
    path = parquet(tmp_path / "a.parquet", t=["a", "b", "c"], label=[2, 0, 1], names=["World", "Sports", "Business"])
    source = open_source(str(path), given)
    assert "in the order World, Sports, Business" in source.notes[0]
    after = given.read(str(doubled(source, tmp_path / "o.jsonl")))
    assert after.labels is not None
    assert after.labels.tolist() == [2, 2, 0, 0, 1, 1]


def test_a_task_whose_files_have_no_names_says_how_its_json_lines_are_read(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", sentence=["a", "b"], label=[1, 0], names=["unacceptable", "acceptable"])
    source = open_source(str(path), layout("cola"))
    assert source.notes == (
        "the files of cola have no column names: read this one with --task cola --text sentence --label label",
    )
    told = layout("cola", text="sentence", label="label")
    assert told.read(str(doubled(source, tmp_path / "o.jsonl"))).texts == ["a", "a!", "b", "b!"]


def test_a_data_set_of_the_hub_is_read_as_the_same_rows_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    (tmp_path / "set").mkdir()
    write(tmp_path / "set" / "train.jsonl", '{"sentence": "a", "label": 1}\n{"sentence": "b", "label": 0}\n')
    lines = check(layout("sst2"), f"hub:{tmp_path / 'set'}:train", tmp_path / "o.jsonl")
    assert json.loads(lines[0]) == {"sentence": "a", "label": "1", "origin": 0, "copy": 0}


REFUSED = [
    ("a.tsv", "sentence1\tsentence2\tlabel\na\t\tentailment\n", layout("rte"), "line 2: the second text is empty"),
    ("a.tsv", "sentence\tlabel\na\t1\n \t0\n", layout("sst2"), "line 3: the text is empty"),
    ("a.tsv", "sentence\tlabel\na\t1\nb\t7\n", layout("sst2"), "line 3: label '7' is not one of 0, 1"),
    ("a.tsv", "sentence\tlabel\torigin\na\t1\t0\n", layout("sst2"), "line 1: there is a column 'origin' already"),
    ("a.csv", "copy,t\n1,a\n", layout(text="t"), "line 1: there is a column 'copy' already"),
    ("a.jsonl", '{"t": "a"}\n{"t": "a", "copy": 1}', layout(text="t"), "line 2: there is a column 'copy' already"),
    ("a.jsonl", '{"t": "a"}\n{"t": ""}', layout(text="t"), "line 2: the text is empty"),
]


@pytest.mark.parametrize(("name", "text", "given", "message"), REFUSED)
def test_rows_that_cannot_be_used_are_named(tmp_path: Path, name: str, text: str, given: Layout, message: str) -> None:
    with pytest.raises(DataError) as caught:
        open_source(str(write(tmp_path / name, text)), given)
    assert str(caught.value).startswith(f"{tmp_path / name} {message}")


def test_one_column_for_two_ends_is_refused(tmp_path: Path) -> None:
    """A replaced word must not reach the label."""
    path = write(tmp_path / "a.tsv", "t\tlabel\na\t1\nb\t0\n")
    for same in (layout(text="t", text_pair="t"), layout(text="label", label="1"), layout(text="0", text_pair="t")):
        with pytest.raises(SpecError, match="give every one a column of its own"):
            open_source(str(path), same)
    path = parquet(tmp_path / "a.parquet", t=["a"], u=["b"])
    with pytest.raises(SpecError, match="column 0 is a number"):
        open_source(str(path), layout(text="0"))


def test_the_same_rows_with_labels_spelled_otherwise_are_another_request(tmp_path: Path) -> None:
    """A task names the classes of a Parquet file that are otherwise written as numbers."""
    path = parquet(tmp_path / "a.parquet", sentence=["a", "b"], label=[1, 0], names=["pos", "neg"])
    task = tmp_path / "mine.yaml"
    task.write_text(
        "{name: mine, text: sentence, label: label, problem: classification, labels: [pos, neg], metrics: [accuracy]}",
        encoding="utf-8",
    )
    by_column = open_source(str(path), Layout(None, "sentence", None, "label", None))
    by_task = open_source(str(path), Layout(str(task), None, None, None, None))
    assert by_column.line(0, ("a",), 0) != by_task.line(0, ("a",), 0)
    assert by_column.facts != by_task.facts
