"""The real GLUE files: every row arrives, and its label is the one in the file."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from hskcache.errors import DataError
from hskcache.text import Examples, Overrides, examples_for, load_task


@pytest.mark.parametrize(
    ("folder", "task", "part", "counts"),
    [
        ("SST-2", "sst2", "train", [29780, 37569]),
        ("SST-2", "sst2", "dev", [428, 444]),
        ("CoLA", "cola", "train", [2528, 6023]),
        ("CoLA", "cola", "dev", [322, 721]),
        ("RTE", "rte", "train", [1249, 1241]),
        ("RTE", "rte", "dev", [146, 131]),
        ("QQP-subset", "qqp", "train", [20107, 11758]),
        ("QQP-subset", "qqp", "dev", [623, 377]),
    ],
)
def test_every_row_of_every_class_is_read(glue: Path, folder: str, task: str, part: str, counts: list[int]) -> None:
    examples = examples_for(glue / folder / f"{part}.tsv", load_task(task))
    assert examples.labels is not None
    assert np.bincount(examples.labels).tolist() == counts
    assert len(examples) == len(examples.texts) == sum(counts)
    assert (examples.pairs is not None) == (task in {"rte", "qqp"})


def labelled(examples: Examples, index: int) -> tuple[str, str | None, str]:
    assert examples.labels is not None
    pair = None if examples.pairs is None else examples.pairs[index]
    return examples.texts[index], pair, examples.label_names[int(examples.labels[index])]


def test_the_first_row_of_a_file_without_a_header_is_a_row(glue: Path) -> None:
    examples = examples_for(glue / "CoLA" / "dev.tsv", load_task("cola"))
    assert labelled(examples, 0) == ("The sailors rode the breeze clear of the rocks.", None, "1")
    assert labelled(examples, 4) == ("As you eat the most, you want the least.", None, "0")


def test_a_pair_keeps_its_order_and_its_named_label(glue: Path) -> None:
    text, pair, label = labelled(examples_for(glue / "RTE" / "train.tsv", load_task("rte")), 0)
    assert text == "No Weapons of Mass Destruction Found in Iraq Yet."
    assert pair == "Weapons of Mass Destruction Found in Iraq."
    assert label == "not_entailment"


def test_texts_keep_the_quotes_they_have_in_the_file(glue: Path) -> None:
    for folder, task in (("QQP-subset", "qqp"), ("RTE", "rte"), ("CoLA", "cola")):
        path = glue / folder / "train.tsv"
        examples = examples_for(path, load_task(task))
        content = path.read_text(encoding="utf-8")
        assert Counter("".join([*examples.texts, *(examples.pairs or [])]))['"'] == content.count('"') > 0


def test_the_wrong_task_is_refused_with_the_columns_there_are(glue: Path) -> None:
    with pytest.raises(
        DataError, match=r"line 1: no column 'sentence'; the columns are index, sentence1, sentence2, label"
    ):
        examples_for(glue / "RTE" / "dev.tsv", load_task("sst2"))


def test_a_file_without_labels_is_read_by_the_same_task(glue: Path) -> None:
    examples = examples_for(glue / "SST-2" / "dev.tsv", load_task("sst2"), Overrides(label=""))
    assert examples.labels is None
    assert len(examples) == 872
