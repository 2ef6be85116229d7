"""GLUE's files: every row of our own in their forms arrives as it is; the real ones are like them."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from glue_forms import FORMS, Form, Row
from real import real_file

from hskcache.errors import DataError
from hskcache.text import Examples, Overrides, examples_for, load_task

COUNTS = {
    "SST-2": ([29780, 37569], [428, 444]),
    "CoLA": ([2528, 6023], [322, 721]),
    "RTE": ([1249, 1241], [146, 131]),
    "QQP-subset": ([20107, 11758], [623, 377]),
}


def rows_of(examples: Examples) -> list[Row]:
    assert examples.labels is not None
    pairs = examples.pairs or [None] * len(examples)
    names = [examples.label_names[int(label)] for label in examples.labels]
    return [Row(*row) for row in zip(examples.texts, pairs, names, strict=True)]


@pytest.mark.parametrize("part", ["train", "dev"])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_row_arrives_as_it_stands_in_the_file(glue: Path, form: Form, part: str) -> None:
    """Lone quotes, formulas, separators that are none, trailing blanks; the first row of a file without a header."""
    examples = examples_for(glue / form.folder / f"{part}.tsv", load_task(form.task))
    assert rows_of(examples) == form.rows(part)
    assert examples.label_names == form.labels


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_lines_that_end_as_on_windows_hold_the_same_rows(form: Form, tmp_path: Path) -> None:
    """MRPC is handed out so, and git may have made any file so."""
    path = tmp_path / "train.tsv"
    path.write_bytes(form.content("train", end="\r\n").encode())
    assert rows_of(examples_for(path, load_task(form.task))) == form.rows("train")


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_byte_order_mark_and_a_missing_last_line_feed_change_nothing(form: Form, tmp_path: Path) -> None:
    path = tmp_path / "dev.tsv"
    path.write_bytes(b"\xef\xbb\xbf" + form.content("dev").removesuffix("\n").encode())
    assert rows_of(examples_for(path, load_task(form.task))) == form.rows("dev")


def test_the_wrong_task_is_refused_with_the_columns_there_are(glue: Path) -> None:
    with pytest.raises(
        DataError, match=r"line 1: no column 'sentence'; the columns are index, sentence1, sentence2, label"
    ):
        examples_for(glue / "RTE" / "dev.tsv", load_task("sst2"))


def test_a_file_without_labels_is_read_by_the_same_task(glue: Path) -> None:
    examples = examples_for(glue / "SST-2" / "dev.tsv", load_task("sst2"), Overrides(label=""))
    assert examples.labels is None
    assert examples.texts == [row.text for row in FORMS["SST-2"].rows("dev")]


@pytest.mark.parametrize("part", ["train", "dev"])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_row_of_the_real_files_is_read_with_its_class_and_its_quotes(form: Form, part: str) -> None:
    path = real_file("HSKCACHE_GLUE", "glue", f"{form.folder}/{part}.tsv")
    examples = examples_for(path, load_task(form.task))
    assert examples.labels is not None
    assert np.bincount(examples.labels).tolist() == COUNTS[form.folder][part == "dev"]
    assert len(examples) == len(examples.texts) == sum(COUNTS[form.folder][part == "dev"])
    assert (examples.pairs is not None) == form.with_pair
    content = path.read_text(encoding="utf-8")
    assert Counter("".join([*examples.texts, *(examples.pairs or [])]))['"'] == content.count('"')
    assert (content.split("\n")[0] == form.header) == (form.header is not None), "a sample has the real file's header"
