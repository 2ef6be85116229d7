"""Labels become numbers, rows become a fingerprint, and a task's columns give way to the user's."""

import hashlib
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hskcache.errors import DataError, SpecError
from hskcache.text import Columns, Examples, LabelSet, Overrides, examples_for, load_task, read_examples
from hskcache.text.rows import fingerprint

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=4)


def tsv(folder: Path, labels: list[str], name: str = "a.tsv") -> Path:
    path = folder / name
    path.write_text("sentence\tlabel\n" + "".join(f"row\t{label}\n" for label in labels), encoding="utf-8")
    return path


def read(path: Path, labels: LabelSet | None = None) -> Examples:
    return read_examples(path, Columns("sentence", label="label"), labels)


def numbers(examples: Examples) -> list[float]:
    assert examples.labels is not None
    return [float(label) for label in examples.labels]


def test_classes_that_are_whole_numbers_are_inferred_in_numeric_order(tmp_path: Path) -> None:
    examples = read(tsv(tmp_path, ["10", "2", "-1", "2"]))
    assert (examples.label_names, numbers(examples)) == (("-1", "2", "10"), [2, 1, 0, 1])
    assert examples.problem == "classification"
    assert examples.labels is not None
    assert examples.labels.dtype == np.int64


def test_classes_that_are_words_are_inferred_in_sorted_order(tmp_path: Path) -> None:
    examples = read(tsv(tmp_path, ["no", "maybe", "10"]))
    assert (examples.label_names, numbers(examples)) == (("10", "maybe", "no"), [2, 1, 0])


def test_numbers_that_are_not_all_whole_are_inferred_to_be_scores(tmp_path: Path) -> None:
    examples = read(tsv(tmp_path, ["1", "2.5", "1e-3"]))
    assert (examples.problem, examples.label_names) == ("regression", ())
    assert examples.labels is not None
    assert examples.labels.dtype == np.float32
    assert numbers(examples) == pytest.approx([1, 2.5, 1e-3])


def test_a_class_set_of_one_cannot_be_inferred(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="every row has the label '1'; name the classes"):
        read(tsv(tmp_path, ["1", "1"]))


def test_label_names_set_the_order_and_admit_classes_no_row_has(tmp_path: Path) -> None:
    examples = read(tsv(tmp_path, ["yes", "no"]), LabelSet(names=("unsure", "yes", "no")))
    assert (examples.problem, numbers(examples)) == ("classification", [1, 2])


@pytest.mark.parametrize("score", ["nan", "inf", "-Infinity", "1e39", "-1e400", "five"])
@pytest.mark.parametrize("labels", [LabelSet("regression"), LabelSet()], ids=["asked for", "inferred"])
def test_a_score_that_is_no_finite_float32_is_refused_on_its_line(tmp_path: Path, score: str, labels: LabelSet) -> None:
    if score == "five" and labels.problem is None:
        assert read(tsv(tmp_path, ["1.5", score]), labels).problem == "classification"
        return
    with pytest.raises(DataError, match=re.escape(f"a.tsv line 3: label {score!r} is not a finite number")):
        read(tsv(tmp_path, ["1.5", score]), labels)


@given(score=st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_every_finite_float32_is_a_score(tmp_path_factory: pytest.TempPathFactory, score: float) -> None:
    # Beside another score below 0: alone, -1 would stand for none.
    path = tsv(tmp_path_factory.mktemp("score"), [repr(score), "-2.5"])
    assert numbers(read(path, LabelSet("regression"))) == [score, -2.5]


def test_a_long_list_of_classes_is_shortened_in_the_message(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not one of c0, .*, c11 and 88 more"):
        read(tsv(tmp_path, ["x"]), LabelSet(names=tuple(f"c{index}" for index in range(100))))


@pytest.mark.parametrize(
    ("problem", "names", "message"),
    [
        ("regression", ("0", "1"), "for a regression"),
        ("classification", ("1",), "at least two"),
        (None, (), "at least two"),
        (None, ("a", "b", "a"), "one name twice"),
    ],
)
def test_label_sets_that_cannot_be_are_refused(problem: str | None, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        LabelSet(problem, names)  # type: ignore[arg-type]


def test_rows_without_a_label_column_have_no_labels_but_keep_the_names_given(tmp_path: Path) -> None:
    examples = read_examples(tsv(tmp_path, ["?"]), Columns("sentence"), LabelSet("classification", ("0", "1")))
    assert examples.labels is None
    assert (examples.label_names, examples.problem, len(examples)) == (("0", "1"), "classification", 1)


@given(first=TEXTS, second=TEXTS)
def test_texts_have_the_same_fingerprint_only_when_they_are_the_same(first: list[str], second: list[str]) -> None:
    same = fingerprint(first, None, None, ()) == fingerprint(second, None, None, ())
    assert same == (first == second)


def test_every_part_of_the_content_moves_the_fingerprint() -> None:
    labels = np.array([0, 1])
    contents = [
        fingerprint(["ab", "c"], None, labels, ("0", "1")),
        fingerprint(["a", "bc"], None, labels, ("0", "1")),
        fingerprint(["ab", "c"], ["", ""], labels, ("0", "1")),
        fingerprint(["ab", "c"], None, labels[::-1], ("0", "1")),
        fingerprint(["ab", "c"], None, labels, ("1", "0")),
        fingerprint(["ab", "c"], None, labels.astype(np.float32), ("0", "1")),
        fingerprint(["ab", "c"], None, None, ("0", "1")),
        fingerprint(["c", "ab"], None, labels, ("0", "1")),
    ]
    assert len(set(contents)) == len(contents)


def test_the_fingerprint_is_the_documented_digest() -> None:
    """Caches hold it, so that it may never change for the same rows."""
    expected = hashlib.sha256(
        b"hskcache rows 1\n"
        b"texts 1\n\x02\0\0\0\0\0\0\0\xc3\xa9"
        b"pairs 1\n\x01\0\0\0\0\0\0\0b"
        b"names 0\n"
        b"labels float32\n\0\0\x80?"
    )
    assert fingerprint(["é"], ["b"], np.array([1], np.float32), ()) == expected.hexdigest()
    swapped = np.array([1], np.dtype(np.float32).newbyteorder(">"))
    assert fingerprint(["é"], ["b"], swapped, ()) == expected.hexdigest()


def test_without_a_task_a_text_column_is_needed(tmp_path: Path) -> None:
    path = tsv(tmp_path, ["no", "yes"])
    for overrides in (None, Overrides(label="label"), Overrides(text="")):
        with pytest.raises(SpecError, match="no task and no text column"):
            examples_for(path, overrides=overrides)
    assert examples_for(path, overrides=Overrides("sentence", label="label")).label_names == ("no", "yes")


def test_what_the_user_names_comes_before_the_task(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("sentence\treview\tlabel\tgrade\na\tb\t1\tgood\n", encoding="utf-8")
    task = load_task("sst2")
    plain = examples_for(path, task)
    assert (plain.texts, numbers(plain), plain.label_names) == (["a"], [1], ("0", "1"))
    own = examples_for(path, task, Overrides("review", label="grade"), ["bad", "fair", "good"])
    assert (own.texts, numbers(own), own.label_names) == (["b"], [2], ("bad", "fair", "good"))
    assert examples_for(path, task, Overrides(text_pair="review")).pairs == ["b"]
    assert examples_for(path, task, Overrides(label="")).labels is None
    assert examples_for(path, task, Overrides(text="1")).texts == ["b"]


def test_columns_the_user_names_undo_a_preset_without_a_header(tmp_path: Path) -> None:
    path = tsv(tmp_path, ["1", "0"])
    assert numbers(examples_for(path, load_task("cola"), Overrides("sentence", label="label"))) == [1, 0]


def test_a_task_of_scores_takes_no_label_names(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="for a regression"):
        examples_for(tsv(tmp_path, ["1"]), load_task("stsb"), labels=["a", "b"])


def test_a_zero_score_has_no_sign_lost(tmp_path: Path) -> None:
    scores = numbers(read(tsv(tmp_path, ["-0.0", "0.5"]), LabelSet("regression")))
    assert math.copysign(1, scores[0]) == -1
