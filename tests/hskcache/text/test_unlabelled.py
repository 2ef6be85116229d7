"""No gold label is neither a class nor a score: which spellings mean it, and what becomes of such rows."""

import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hskcache.errors import DataError
from hskcache.sparsity.scoring import draw
from hskcache.text import Columns, Examples, LabelSet, read_examples
from hskcache.text.table import RowPolicy

COLUMNS = Columns("text", label="label")
SKIP, KEEP = RowPolicy(unlabelled="skip"), RowPolicy(unlabelled="keep")


def csv(folder: Path, labels: str) -> Path:
    path = folder / "a.csv"
    path.write_text("text,label\n" + "".join(f"t{n},{label}\n" for n, label in enumerate(labels.split())))
    return path


def read(folder: Path, labels: str, known: LabelSet | None = None, policy: RowPolicy | None = None) -> Examples:
    return read_examples(csv(folder, labels), COLUMNS, known, policy)


def found(examples: Examples) -> list[float]:
    assert examples.labels is not None
    return examples.labels.tolist()


@pytest.mark.parametrize(
    ("labels", "known", "names"),
    [
        ("0 1 2 -1", LabelSet(), ("0", "1", "2")),
        ("1 2 3 -1.0", LabelSet(), ("1", "2", "3")),
        ("0 1 -1", LabelSet(num_classes=2), ("0", "1")),
        ("0 1 -1", LabelSet(names=("0", "1")), ("0", "1")),
        ("neg pos -", LabelSet(), ("neg", "pos")),
        ("neg pos -1", LabelSet(), ("neg", "pos")),
        ("0 1 -", LabelSet(), ("0", "1")),
    ],
)
def test_rows_without_a_gold_label_are_refused_unless_told_otherwise(
    tmp_path: Path, labels: str, known: LabelSet, names: tuple[str, ...]
) -> None:
    many = len(labels.split())
    with pytest.raises(DataError, match=rf"1 of {many} rows has no gold label, the first in line {many + 1}; give --u"):
        read(tmp_path, labels, known)
    with pytest.raises(DataError, match="no gold label"):
        read(tmp_path, labels, known, RowPolicy(unlabelled="fail"))
    skipped = read(tmp_path, labels, known, SKIP)
    assert (skipped.label_names, found(skipped)) == (names, list(range(many - 1)))
    assert (skipped.reading.num_unlabelled, list(skipped.reading.numbers)) == (1, list(range(2, many + 1)))
    kept = read(tmp_path, labels, known, KEEP)
    assert (kept.label_names, found(kept), len(kept)) == (names, [*range(many - 1), -100], many)


@pytest.mark.parametrize(
    ("labels", "known", "names"),
    [
        ("-1 1 1", LabelSet(), ("-1", "1")),
        ("-2 -1 0 1", LabelSet(), ("-2", "-1", "0", "1")),
        ("-1 0 1", LabelSet(num_classes=3), ("-1", "0", "1")),
        ("-1 0 1", LabelSet(names=("-1", "0", "1")), ("-1", "0", "1")),
        ("+ -", LabelSet(), ("+", "-")),
    ],
)
def test_minus_one_is_a_class_where_it_is_named_or_can_be_nothing_else(
    tmp_path: Path, labels: str, known: LabelSet, names: tuple[str, ...]
) -> None:
    examples = read(tmp_path, labels, known)
    assert (examples.label_names, len(examples)) == (names, len(labels.split()))
    told = known.names is None and "-1" in names and names[0] == "-1"
    assert not told or "-1 taken for a class" in examples.reading.notes[0]


@pytest.mark.parametrize("labels", ["-1 0 1", "-1 1 2", "-1 0 0"])
def test_minus_one_that_may_be_either_is_asked_about(tmp_path: Path, labels: str) -> None:
    with pytest.raises(
        DataError, match=r"-1 may be a class or stand for no gold label; give --classes -1,\d.* or --unl"
    ):
        read(tmp_path, labels)
    if labels != "-1 0 0":
        assert len(read(tmp_path, labels, policy=SKIP).label_names) == 2


@pytest.mark.parametrize("labels", ["-1 -1", "- -", "-1.0 -"])
@pytest.mark.parametrize("known", [LabelSet(), LabelSet("regression"), LabelSet(names=("0", "1"))])
def test_a_column_without_any_gold_label_is_unlabelled_data(tmp_path: Path, labels: str, known: LabelSet) -> None:
    examples = read(tmp_path, labels, known)
    assert (examples.labels, len(examples), examples.label_names) == (None, 2, known.names or ())
    assert examples.reading.notes[-1].endswith("no row has a gold label in the column label; read without labels")
    assert examples.fingerprint == read_examples(csv(tmp_path, labels), Columns("text"), known).fingerprint
    with pytest.raises(DataError, match="no row has a gold label in the column label to score; give labelled rows"):
        examples.require_gold("to score")
    with pytest.raises(DataError, match="2 of 2 rows have no gold label"):
        read(tmp_path, labels, known, RowPolicy(unlabelled="fail"))


def test_minus_one_is_a_score_among_scores_unless_such_rows_are_asked_for(tmp_path: Path) -> None:
    examples = read(tmp_path, "-1 0.5 2.5")
    assert found(examples) == [-1, 0.5, 2.5]
    assert "-1 in 1 of them taken for a score" in examples.reading.notes[0]
    assert found(read(tmp_path, "-1 0.5 2.5", policy=SKIP)) == [0.5, 2.5]
    assert found(read(tmp_path, "-1 -0.5 2.5", policy=SKIP)) == [-1, -0.5, 2.5]
    kept = found(read(tmp_path, "0.5 - 2.5", policy=KEEP))
    assert math.isnan(kept[1])
    assert kept[::2] == [0.5, 2.5]


FRAMES = [
    pytest.param([0.0, 1.0, None, 1.0], ("0", "1"), id="classes with gaps"),
    pytest.param([0.5, 1.0, None, 3.0], (), id="scores with gaps"),
    pytest.param([True, False, None, True], ("false", "true"), id="truth values"),
    pytest.param([2, 0, None, 1], ("0", "1", "2"), id="whole numbers"),
    pytest.param(["pos", "neg", None, "pos"], ("neg", "pos"), id="words"),
]


@pytest.mark.parametrize(("labels", "names"), FRAMES)
def test_one_frame_is_one_task_in_every_format(tmp_path: Path, labels: list[object], names: tuple[str, ...]) -> None:
    texts = [f"t{number}" for number in range(len(labels))]
    lines = [f"{text},{'' if label is None else label}\n" for text, label in zip(texts, labels, strict=True)]
    (tmp_path / "a.csv").write_text("text,label\n" + "".join(lines))
    rows = [json.dumps({"text": text, "label": label}) for text, label in zip(texts, labels, strict=True)]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    pq.write_table(pa.table({"text": texts, "label": labels}), tmp_path / "a.parquet")
    read = [read_examples(tmp_path / f"a.{kind}", COLUMNS, None, SKIP) for kind in ("csv", "jsonl", "parquet")]
    assert {(one.fingerprint, one.label_names, one.problem) for one in read} == {
        (read[0].fingerprint, names, "classification" if names else "regression")
    }
    assert [one.reading.num_unlabelled for one in read] == [1, 1, 1]


def test_a_missing_number_of_a_frame_is_no_label(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"text": "a", "label": NaN}\n{"text": "b", "label": 1}\n{"text": "c", "label": 0}'
    )
    assert found(read_examples(tmp_path / "a.jsonl", COLUMNS, None, SKIP)) == [1, 0]


def test_what_was_recognised_is_told_where_nobody_said_it(tmp_path: Path) -> None:
    path = csv(tmp_path, "0 1 1")
    assert read(tmp_path, "0 1 1").reading.notes == (f"{path}: 3 rows, 2 classes (0, 1)",)
    assert read(tmp_path, "0 1 1", LabelSet(names=("0", "1"))).reading.notes == ()
    assert read(tmp_path, "0.5 1 1").reading.notes == (f"{path}: 3 rows, scores from 0.5 to 1",)
    assert "of which Pos, pos differ in case alone" in read(tmp_path, "Pos pos neg").reading.notes[0]


def test_numbers_are_class_indices_where_the_classes_have_other_names(tmp_path: Path) -> None:
    named = LabelSet(names=("NEGATIVE", "POSITIVE"))
    examples = read(tmp_path, "1 0 1", named)
    assert (found(examples), examples.label_names) == ([1, 0, 1], named.names)
    assert "labels that are numbers taken for the classes NEGATIVE, POSITIVE, in order" in examples.reading.notes[0]
    for labels in ("0 2", "0 POSITIVE"):
        with pytest.raises(
            DataError, match="is not one of NEGATIVE, POSITIVE; correct it, or name every class with --c"
        ):
            read(tmp_path, labels, named)
    with pytest.raises(DataError, match="is not one of 1, 2"):
        read(tmp_path, "0 1", LabelSet(names=("1", "2")))


@pytest.mark.parametrize("policy", [SKIP, KEEP])
def test_minus_one_is_asked_for_where_it_may_be_what_is_left_out_or_a_models_class(
    tmp_path: Path, policy: RowPolicy
) -> None:
    three = LabelSet(num_classes=3)
    with pytest.raises(DataError, match=r"give --classes -1,0,1, or --classes 0,1,2 where it is none"):
        read(tmp_path, "-1 0 1", three, policy)
    assert found(read(tmp_path, "-1 0 1", LabelSet(names=("0", "1", "2")), SKIP)) == [0, 1]
    assert found(read(tmp_path, "-1 0 1", LabelSet(names=("-1", "0", "1")), policy)) == [0, 1, 2]


def test_data_may_have_some_of_the_classes_that_a_model_counts(tmp_path: Path) -> None:
    some = read(tmp_path, "1 1", LabelSet(num_classes=3))
    assert some.label_names == ("0", "1", "2")
    assert "3 classes (0, 1, 2), of which 0, 2 have no row" in some.reading.notes[0]
    assert "of which 0 has no row" in read(tmp_path, "1 2", LabelSet(num_classes=3)).reading.notes[0]
    assert "no row" not in read(tmp_path, "1 0", LabelSet(num_classes=2)).reading.notes[0]
    assert read(tmp_path, "1 2", LabelSet(num_classes=2)).label_names == ("1", "2")
    assert found(read(tmp_path, "b b", LabelSet(names=("a", "b")))) == [1, 1]


def test_kept_rows_change_the_fingerprint(tmp_path: Path) -> None:
    kept = read(tmp_path, "0 1 2 -1", policy=KEEP)
    assert kept.fingerprint not in {
        read(tmp_path, "0 1 2 -1", policy=SKIP).fingerprint,
        read(tmp_path, "0 1 2 2").fingerprint,
    }
    assert read(tmp_path, "0 1 2 -1", policy=SKIP).fingerprint == read(tmp_path, "0 1 2").fingerprint
    assert kept.labels is not None
    assert kept.labels.dtype == np.int64


def test_rows_to_score_by_are_those_that_have_a_gold_label(tmp_path: Path) -> None:
    """The rest of what was kept is for a teacher alone."""
    kept, skipped = (read(tmp_path, "neg - pos - neg", policy=policy) for policy in (KEEP, SKIP))
    gold = kept.gold()
    assert (gold.texts, found(gold), gold.fingerprint) == (skipped.texts, found(skipped), skipped.fingerprint)
    assert [gold.where(row) for row in range(3)] == [skipped.where(row) for row in range(3)]
    assert skipped.gold() is skipped
    assert found(draw(kept, None, seed=0).examples) == found(skipped)
