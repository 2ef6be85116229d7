"""How rows were read is found again, beside a model and in a layout; what was given comes first."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hskcache.errors import DamageError, DataError, MismatchError
from hskcache.text import Columns, load_task
from hskcache.text.layout import Layout
from hskcache.text.remembered import ROWS, Remembered, of_examples, of_model, save

NOTHING_GIVEN = Layout(None, None, None, None, None)
QUESTIONS = Columns("q1", "q2", "same")


def remembered(**changes: Any) -> Remembered:
    return replace(Remembered("the cache c.hsk"), **changes)


def pairs_file(folder: Path, names: str = "q1,q2,same") -> str:
    path = folder / "d.csv"
    path.write_text(f"{names}\na,b,0\nc,d,1\ne,f,1\n", encoding="utf-8")
    return str(path)


def test_what_stands_beside_a_model_is_what_was_read(tmp_path: Path) -> None:
    own = load_task("sst2").model_copy(update={"name": "mine", "labels": ["bad", "good"]})
    saved = remembered(task="mine", definition=own, columns=Columns(3, None, 1, False), is_pairs=False, max_length=64)
    save(saved, tmp_path)
    assert of_model(tmp_path) == replace(saved, where=f"the model {tmp_path}")
    assert not of_model(tmp_path / "none").is_known
    written = json.loads((tmp_path / ROWS).read_text())
    (tmp_path / ROWS).write_text(json.dumps(written | {"of a later version": [1]}))
    assert of_model(tmp_path).definition == own


@pytest.mark.parametrize("content", ["", "[]", '{"max_length": "long"}', '{"definition": {"name": "x"}}'])
def test_a_file_that_is_none_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / ROWS).write_text(content)
    with pytest.raises(DamageError, match=r"rows\.json does not tell"):
        of_model(tmp_path)


def test_columns_come_from_memory_where_none_are_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    memory = remembered(columns=QUESTIONS, is_pairs=True)
    path = pairs_file(tmp_path)
    examples = NOTHING_GIVEN.recalling(memory, path).read(path)
    assert (examples.texts, examples.pairs) == (["a", "c", "e"], ["b", "d", "f"])
    assert capsys.readouterr().err.splitlines()[0] == "columns as in the cache c.hsk: q1, q2, same"
    one = replace(NOTHING_GIVEN, label="q2", text_pair="").recalling(remembered(columns=QUESTIONS), path)
    assert (one.read(path, ["b", "d", "f"]).pairs, one.label) == (None, "q2")
    given = Layout(None, "q2", "q1", "same", None).recalling(memory, path)
    assert given.read(path).texts == ["b", "d", "f"]


def test_a_task_is_remembered_by_name_and_read_as_the_source_calls_its_columns(
    capsys: pytest.CaptureFixture[str],
) -> None:
    mrpc = load_task("mrpc")
    memory = remembered(task="mrpc", columns=mrpc.columns, is_pairs=True)
    assert NOTHING_GIVEN.recalling(memory, "d.tsv").text is None
    assert NOTHING_GIVEN.recalling(memory, "d.parquet").task == mrpc
    assert capsys.readouterr().err.splitlines() == [
        "columns as in the cache c.hsk: #1 String, #2 String, Quality",
        "columns as in the cache c.hsk: sentence1, sentence2, label",
    ]
    other = remembered(task="mrpc", columns=Columns("#1 String", "#2 String", None))
    assert NOTHING_GIVEN.recalling(other, "d.tsv").has_label is False
    assert NOTHING_GIVEN.recalling(other, "d.tsv", labelled=True).has_label is True


def test_pairs_are_not_read_as_single_texts_nor_the_other_way_round(tmp_path: Path) -> None:
    path = pairs_file(tmp_path)
    pairs, single = remembered(columns=QUESTIONS, is_pairs=True), remembered(columns=QUESTIONS, is_pairs=False)
    with pytest.raises(MismatchError, match=r"read as single texts, and the cache c.hsk is of pairs; .*--text-pair"):
        Layout(None, "q1", None, "same", None).recalling(pairs, path).read(path)
    with pytest.raises(MismatchError, match=r"read as pairs, and the cache c.hsk is of single texts"):
        Layout(None, "q1", "q2", "same", None).recalling(single, path).read(path)


def test_a_file_without_a_remembered_column_is_told_where_it_was_remembered(tmp_path: Path) -> None:
    path = pairs_file(tmp_path, "question,q2,same")
    with pytest.raises(DataError, match=r"no column 'q1'; .* those of the cache c.hsk: name .* --text"):
        NOTHING_GIVEN.recalling(remembered(columns=QUESTIONS), path).read(path)
    with pytest.raises(DataError, match=r"no column 'q1'; the columns are [^;]*$"):
        Layout(None, "q1", None, None, None).recalling(remembered(columns=QUESTIONS), path).read(path)


@pytest.mark.parametrize("first_line", ["", "text\tlabel\n"])
def test_a_file_with_a_header_is_like_one_without(first_line: str, tmp_path: Path) -> None:
    """Labels tell a header; that another file had none says nothing of this one."""
    (tmp_path / "d.tsv").write_text(f"{first_line}a film\tneg\na plot\tpos\n", encoding="utf-8")
    memory = remembered(columns=Columns(0, None, 1, False), is_pairs=False)
    layout = NOTHING_GIVEN.recalling(memory, str(tmp_path / "d.tsv"))
    assert layout.read(str(tmp_path / "d.tsv"), ("neg", "pos")).texts == ["a film", "a plot"]


def test_columns_by_number_find_the_header_by_themselves(tmp_path: Path) -> None:
    """A header that is remembered must not cost a file without one its first row."""
    memory = remembered(columns=Columns(0, None, 1, True))
    path = tmp_path / "d.csv"
    path.write_text("a,0\nb,1\n", encoding="utf-8")
    assert len(NOTHING_GIVEN.recalling(memory, str(path)).read(str(path), ["0", "1"])) == 2
    path.write_text("text,label\na,0\nb,1\n", encoding="utf-8")
    assert len(NOTHING_GIVEN.recalling(memory, str(path)).read(str(path), ["0", "1"])) == 2


def test_rows_that_were_read_tell_how(tmp_path: Path) -> None:
    path = pairs_file(tmp_path)
    found = of_examples(Layout(None, "q1", "q2", "same", None).read(path), 32)
    assert (found.task, found.columns, found.is_pairs, found.max_length) == (
        None,
        replace(QUESTIONS, header=True),
        True,
        32,
    )
