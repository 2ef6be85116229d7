"""Labels with a value for each class: lists of classes, separated names, columns of 0 and 1, and distributions."""

import csv
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest

from hskcache.errors import DataError, SpecError
from hskcache.text import Columns, Examples, LabelSet, read_examples
from hskcache.text.memory import in_memory
from hskcache.text.table import RowPolicy
from hskcache.text.tasks import parse_task

NAMES = ("toxic", "insult", "threat")
SETS = [["toxic"], [], ["threat", "toxic"], ["insult"]]
FLAGS = np.array([[name in one for name in NAMES] for one in SETS], np.float32)
KNOWN = LabelSet("multilabel", NAMES)


def lines(folder: Path, labels: list[Any]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps({"a": f"row {at}", "label": one}) + "\n" for at, one in enumerate(labels)))
    return path


def table(folder: Path, header: list[str] | None, rows: list[list[Any]]) -> Path:
    path = folder / "rows.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([*([header] if header else []), *rows])
    return path


def flags_of(examples: Examples) -> list[list[float]]:
    assert examples.labels is not None
    assert examples.labels.dtype == np.float32
    found: list[list[float]] = examples.labels.tolist()
    return found


class TestAnyNumberOfClasses:
    """The same rows are the same in every form, down to the fingerprint."""

    def forms(self, folder: Path) -> list[Examples]:
        texts = [f"row {at}" for at in range(len(SETS))]
        names = NAMES[::-1]
        columns = [[text, *(int(name in one) for name in names)] for text, one in zip(texts, SETS, strict=True)]
        kinds = []
        for number, source in enumerate(
            [
                lambda path: lines(path, SETS),
                lambda path: lines(path, [[name in one for name in NAMES] for one in SETS]),
                lambda path: lines(path, FLAGS.astype(int).tolist()),
                lambda path: table(path, ["a", "label"], list(zip(texts, map("; ".join, SETS), strict=True))),
            ]
        ):
            (part := folder / str(number)).mkdir()
            kinds.append(read_examples(source(part), Columns("a", label="label"), KNOWN))
        path = table(folder, ["a", *names], columns)
        kinds.append(read_examples(path, Columns("a", label="insult, toxic,threat"), KNOWN))
        frame = pd.DataFrame({"a": texts, "label": [np.array(row) for row in FLAGS]})
        kinds.append(read_examples(in_memory(frame), Columns("a", label="label"), KNOWN))
        features = datasets.Features(
            {"a": datasets.Value("string"), "label": datasets.List(datasets.ClassLabel(names=list(NAMES[::-1])))}
        )
        data = datasets.Dataset.from_dict({"a": texts, "label": SETS}, features=features)
        kinds.append(read_examples(in_memory(data), Columns("a", label="label"), KNOWN))
        return kinds

    def test_every_form_is_the_same(self, tmp_path: Path) -> None:
        found = self.forms(tmp_path)
        assert [flags_of(one) for one in found] == [FLAGS.tolist()] * 7
        assert {(one.problem, one.label_names) for one in found} == {("multilabel", NAMES)}
        assert len({one.fingerprint for one in found}) == 1

    def test_lists_tell_it_by_themselves(self, tmp_path: Path) -> None:
        examples = read_examples(lines(tmp_path, SETS), Columns("a", label="label"))
        assert (examples.problem, examples.label_names) == ("multilabel", tuple(sorted(NAMES)))

    def test_one_class_a_row_is_a_set_of_one(self, tmp_path: Path) -> None:
        examples = read_examples(lines(tmp_path, ["toxic", "threat"]), Columns("a", label="label"), KNOWN)
        assert flags_of(examples) == [[1, 0, 0], [0, 0, 1]]

    def test_rows_without_a_gold_label_are_not_rows_of_no_class(self, tmp_path: Path) -> None:
        path = lines(tmp_path, [["toxic"], None, [], "-", -1])
        kept = read_examples(path, Columns("a", label="label"), KNOWN, RowPolicy("keep"))
        assert np.isnan(flags_of(kept)).all(axis=1).tolist() == [False, True, False, True, True]
        assert flags_of(kept.gold()) == [[1, 0, 0], [0, 0, 0]]
        columns = table(tmp_path, ["a", "x", "y"], [["r", 1, 0], ["s", "", ""], ["t", -1, -1], ["u", 0, 0]])
        gold = read_examples(columns, Columns("a", label="x,y"), LabelSet("multilabel"), RowPolicy("skip"))
        assert flags_of(gold) == [[1, 0], [0, 0]]

    def test_a_header_is_told_from_a_row(self, tmp_path: Path) -> None:
        rows = [["one", "toxic;insult"], ["two", ""], ["three", "threat"]]
        assert len(read_examples(table(tmp_path, None, rows), Columns(0, label=1), KNOWN)) == 3
        assert len(read_examples(table(tmp_path, ["x", "tags"], rows), Columns(0, label=1), KNOWN)) == 3
        cells = [["one", "1", "0", "0"], ["two", "0", "1", "1"]]
        assert len(read_examples(table(tmp_path, None, cells), Columns(0, label="1,2,3"), KNOWN)) == 2
        assert len(read_examples(table(tmp_path, ["x", *NAMES], cells), Columns(0, label="1,2,3"), KNOWN)) == 2

    def test_a_separator_that_a_name_holds_is_none(self, tmp_path: Path) -> None:
        path = table(tmp_path, ["a", "label"], [["x", "sad; angry|joy, fun"], ["y", "joy, fun"]])
        names = LabelSet("multilabel", ("joy, fun", "sad; angry"))
        assert flags_of(read_examples(path, Columns("a", label="label"), names)) == [[1, 1], [1, 0]]

    def test_two_separators_must_be_told_apart(self, tmp_path: Path) -> None:
        path = table(tmp_path, ["a", "label"], [["x", "a|b;c"], ["y", "b;c"]])
        with pytest.raises(DataError, match=r"either of '\|' and ';' .* separator of a task"):
            read_examples(path, Columns("a", label="label"), LabelSet("multilabel"))
        told = LabelSet("multilabel", separator="|")
        assert read_examples(path, Columns("a", label="label"), told).label_names == ("a", "b;c")

    @pytest.mark.parametrize(
        ("labels", "known", "message"),
        [
            ([["toxic"], ["rude"]], KNOWN, "line 2: label 'rude' is not one of toxic, insult, threat"),
            ([[0.5, 0.2], [0.1, 0.2, 0.3]], KNOWN, "line 1: the label has 2 values, of 3 classes"),
            ([[0.5, 0.2, 1.5]], KNOWN, "line 1: the label has the value 1.5"),
            ([[0.5, 0.2, None]], KNOWN, "line 1: the label lacks a value"),
            ([[0, 1, 1], [2, 0, 0]], KNOWN, "line 2: the label has the value 2"),
            ([[0, 1, 1], [2, 0, 0]], None, "line 2: the label has the value 2"),
            ([["a"], ["b"]], LabelSet("regression"), "the task has scores"),
            ([["a"], ["b"]], LabelSet("classification", ("a", "b")), "the task has one class a row"),
            ([["a"], "b"], None, "line 1: the label is a list"),
        ],
    )
    def test_what_does_not_fit_is_told(self, labels: Any, known: Any, message: str, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=message):
            read_examples(lines(tmp_path, labels), Columns("a", label="label"), known)

    def test_columns_for_other_classes_are_refused(self, tmp_path: Path) -> None:
        path = table(tmp_path, ["a", "toxic", "rude"], [["x", 1, 0]])
        with pytest.raises(DataError, match=r"2 columns \(toxic, rude\) for 3 classes"):
            read_examples(path, Columns("a", label="toxic,rude"), KNOWN)

    def test_a_task_says_it(self) -> None:
        keys = {"name": "t", "text": "a", "label": "label", "problem": "multilabel", "metrics": ["f1_micro"]}
        assert parse_task({**keys, "labels": ["x"], "separator": "/"}, "t").separator == "/"
        with pytest.raises(SpecError, match="named, each once"):
            parse_task(keys, "t")
        with pytest.raises(SpecError, match="separator stands between"):
            parse_task({**keys, "problem": "classification", "labels": ["x", "y"], "separator": "/"}, "t")


class TestDistributions:
    """A distribution over the classes is a label of a classification."""

    SHARES = ((0.7, 0.2, 0.1), (0.0, 0.5, 0.5), (0.333, 0.333, 0.333))

    def test_lists_and_columns_are_the_same(self, tmp_path: Path) -> None:
        listed = read_examples(lines(tmp_path, list(self.SHARES)), Columns("a", label="label"), LabelSet(names=NAMES))
        rows = [[f"row {at}", *shares] for at, shares in enumerate(self.SHARES)]
        columns = read_examples(table(tmp_path, ["a", *NAMES], rows), Columns("a", label=",".join(NAMES)))
        assert listed.problem == columns.problem == "classification"
        assert listed.label_names == columns.label_names == NAMES
        assert listed.fingerprint == columns.fingerprint
        assert flags_of(listed) == np.array(self.SHARES, np.float32).tolist()

    def test_values_that_do_not_add_up_are_refused_where_one_class_is_asked_for(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"line 2: the values of the label add up to 0\.7"):
            read_examples(
                lines(tmp_path, [[0.5, 0.5], [0.5, 0.2]]),
                Columns("a", label="label"),
                LabelSet("classification", ("x", "y")),
            )
