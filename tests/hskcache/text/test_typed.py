"""JSON lines, Parquet and data sets: the same rows, whatever they are stored in."""

import json
import re
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hskcache.errors import DataError
from hskcache.text import Columns, Examples, LabelSet, read_examples
from hskcache.text.typed import parse_hub

COLUMNS = Columns("a", "b", "label")
ROWS = [{"a": 'one, "two"', "b": "drei\u2028vier", "label": "no"}, {"a": "x", "b": "y", "label": "yes"}]
WORDS = LabelSet("classification", ("no", "yes"))
CLASSES = datasets.ClassLabel(names=["no", "yes"])


def jsonl(folder: Path, *lines: str) -> Path:
    path = folder / "a.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def parquet(folder: Path, **columns: Any) -> Path:
    path = folder / "a.parquet"
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what ``datasets`` writes inside the test's folder, and its bars off the screen."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub")
    datasets.disable_progress_bars()


@pytest.mark.usefixtures("hub_cache")
def test_the_same_rows_have_one_fingerprint_in_every_format(tmp_path: Path) -> None:
    lines = [json.dumps(row) for row in ROWS]
    stored = [jsonl(tmp_path, *lines), parquet(tmp_path, **{key: [row[key] for row in ROWS] for key in ROWS[0]})]
    tsv = tmp_path / "a.tsv"
    tsv.write_text("a\tb\tlabel\n" + "".join("\t".join(row.values()) + "\n" for row in ROWS), encoding="utf-8")
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_text("\n".join(lines), encoding="utf-8")
    read = [read_examples(source, COLUMNS, WORDS) for source in [*map(str, stored), str(tsv), f"hub:{folder}:train"]]
    assert {examples.fingerprint for examples in read} == {read[0].fingerprint}
    assert read[0].texts == [row["a"] for row in ROWS]
    assert read[0].pairs == [row["b"] for row in ROWS]
    assert [examples.split for examples in read] == [None, None, None, "train"]


def test_numbers_and_their_spelling_are_the_same_label(tmp_path: Path) -> None:
    labels = LabelSet("classification", ("0", "1"))
    for values in ([0, 1], ["0", " 1 "], [0.0, 1.0]):
        examples = read_examples(parquet(tmp_path, a=["x", "y"], label=values), Columns("a", label="label"), labels)
        assert examples.labels is not None
        assert examples.labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"a": "x", "b": "y"}', "no key 'label'; the keys are a, b"),
        ('{"a": "x", "b": null, "label": "no"}', "the second text is missing"),
        ('{"a": 3, "b": "y", "label": "no"}', "the text is a int, not a string"),
        ('{"a": "\\ud800", "b": "y", "label": "no"}', "the text holds half of a surrogate pair"),
        ('{"a": "x", "b": "y", "label": ["no"]}', "the label is a list"),
        ('{"a": "x", "b": "y", "label": "maybe"}', "label 'maybe' is not one of no, yes"),
        ('["x", "y"]', "a JSON list where an object was expected"),
        ('{"a": "x"', "not JSON"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_a_bad_line_of_json_is_named_counting_blank_ones(tmp_path: Path, line: str, message: str) -> None:
    path = jsonl(tmp_path, json.dumps(ROWS[0]), "", line)
    with pytest.raises(DataError, match=re.escape(f"{path} line 3: {message}")):
        read_examples(path, COLUMNS, WORDS)


def test_columns_of_json_lines_have_names(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"column 0 is a number; the columns of a .jsonl file have names"):
        read_examples(jsonl(tmp_path, "{}"), Columns(0))


def test_parquet_columns_can_be_numbered_and_a_bad_row_is_counted_from_1(tmp_path: Path) -> None:
    path = parquet(tmp_path, label=[1, 0, None], a=["x", "y", "z"])
    assert read_examples(path, Columns(1)).texts == ["x", "y", "z"]
    with pytest.raises(DataError, match=r"a.parquet: 1 of 3 rows has no gold label, the first in row 3; give --unl"):
        read_examples(path, Columns("a", label=0))
    with pytest.raises(DataError, match=r"no column 'b'; the columns are label, a"):
        read_examples(path, Columns("b"))


def test_one_parquet_column_can_serve_twice(tmp_path: Path) -> None:
    examples = read_examples(parquet(tmp_path, a=["x", "y"]), Columns("a", "a"))
    assert examples.texts == examples.pairs == ["x", "y"]


def test_a_parquet_file_that_is_cut_short_empty_or_missing_is_refused(tmp_path: Path) -> None:
    path = parquet(tmp_path, a=pa.array([], pa.string()))
    with pytest.raises(DataError, match="has no rows"):
        read_examples(path, Columns("a"))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataError, match="is not a whole Parquet file"):
        read_examples(path, Columns("a"))
    path.unlink()
    with pytest.raises(DataError, match="No such file"):
        read_examples(path, Columns("a"))


def save_set(folder: Path, labels: list[int]) -> None:
    features = datasets.Features({"a": datasets.Value("string"), "label": CLASSES})
    texts = [f"row {index}" for index in range(len(labels))]
    folder.mkdir()
    data = datasets.Dataset.from_dict({"a": texts, "label": labels}, features=features)
    data.to_parquet(folder / "train.parquet")


def both(folder: Path) -> list[str]:
    return [f"hub:{folder}:train", str(folder / "train.parquet")]


def labels_of(examples: Examples) -> list[int]:
    assert examples.labels is not None
    return [int(label) for label in examples.labels]


@pytest.mark.usefixtures("hub_cache")
def test_class_indices_follow_the_order_of_the_label_names_asked_for(tmp_path: Path) -> None:
    save_set(tmp_path / "set", [0, 1, 1])
    columns = Columns("a", label="label")
    for source in both(tmp_path / "set"):
        inferred = read_examples(source, columns)
        assert (inferred.label_names, labels_of(inferred)) == (("no", "yes"), [0, 1, 1])
        reversed_names = LabelSet("classification", ("yes", "no"))
        assert labels_of(read_examples(source, columns, reversed_names)) == [1, 0, 0]
        # Names the data set does not know, as of a preset for files, are its indices written out.
        assert labels_of(read_examples(source, columns, LabelSet("classification", ("1", "0")))) == [1, 0, 0]


@pytest.mark.usefixtures("hub_cache")
def test_a_hidden_label_of_a_test_split_is_refused_and_the_split_readable_without(tmp_path: Path) -> None:
    save_set(tmp_path / "set", [0, -1])
    for source in both(tmp_path / "set"):
        with pytest.raises(DataError, match=r"1 of 2 rows has no gold label, the first in row 2; give --unlabelled"):
            read_examples(source, Columns("a", label="label"))
        assert read_examples(source, Columns("a")).labels is None


@pytest.mark.usefixtures("hub_cache")
def test_a_slice_of_a_split_can_be_asked_for(tmp_path: Path) -> None:
    save_set(tmp_path / "set", [0, 1, 1])
    examples = read_examples(f"hub:{tmp_path / 'set'}:train[1:]", Columns("a"))
    assert examples.texts == ["row 1", "row 2"]


@pytest.mark.usefixtures("hub_cache")
def test_a_data_set_that_cannot_be_loaded_says_so_in_one_line(tmp_path: Path) -> None:
    save_set(tmp_path / "set", [0, 1])
    (tmp_path / "bare").mkdir()
    for source in (
        f"hub:{tmp_path / 'set'}:nosuch",
        f"hub:{tmp_path / 'bare'}:train",
        f"hub:{tmp_path / 'gone'}:train",
    ):
        with pytest.raises(DataError, match="cannot be loaded") as caught:
            read_examples(source, Columns("a"))
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="no column 'b'; the columns are a, label"):
        read_examples(f"hub:{tmp_path / 'set'}:train", Columns("b"))


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("hub:nyu-mll/glue:sst2:train", ("nyu-mll/glue", "sst2", "train")),
        ("hub:imdb:test[:10%]", ("imdb", None, "test[:10%]")),
        ("hub:glue:cola:train[5:10]+validation[:3]", ("glue", "cola", "train[5:10]+validation[:3]")),
        ("hub:glue", None),
        ("hub::train", None),
        ("hub:a:b:c:d", None),
    ],
)
def test_the_parts_of_a_hub_name(source: str, parts: tuple[str, str | None, str] | None) -> None:
    if parts is None:
        with pytest.raises(DataError, match="not of the form hub:REPO"):
            parse_hub(source)
    else:
        assert tuple(parse_hub(source)) == parts
