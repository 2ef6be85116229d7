"""Rows of words: files of columns and lists, faults by their lines, and where each word's first piece stands."""

import json
from pathlib import Path

import numpy as np
import pytest
from taggers import LOST, TAGS, Tagged, tagged, written

from hskcache.classes import Problem
from hskcache.errors import CacheError
from hskcache.text import Columns, LabelSet, examples_for, load_task, load_tokenizer, read_examples, tokenize
from hskcache.text.memory import in_memory
from hskcache.text.table import RowPolicy

LISTS = LabelSet("tagging")
NAMES = Columns("tokens", None, "ner_tags")


def numbers_of(row: Tagged) -> list[int]:
    return [TAGS.index(tag) for tag in row.tags]


def test_every_form_of_the_same_rows_is_the_same_rows(tmp_path: Path) -> None:
    rows, task = tagged(20), load_task("conll")
    table = {"tokens": [row.words for row in rows], "ner_tags": [row.tags for row in rows]}
    lines = (json.dumps({"tokens": row.words, "ner_tags": numbers_of(row)}) for row in rows)
    (tmp_path / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(table), tmp_path / "rows.parquet")
    sources = (
        written(rows, tmp_path / "eng.train"),
        tmp_path / "rows.jsonl",
        tmp_path / "rows.parquet",
        in_memory(table),
        in_memory([{"tokens": row.words, "ner_tags": row.tags} for row in rows]),
    )
    read = [examples_for(source, task) for source in sources]
    assert len({one.fingerprint for one in read}) == 1
    for examples in read:
        assert examples.words == [row.words for row in rows]
        assert [one.tolist() for one in examples.labels] == list(map(numbers_of, rows))
        assert list(examples.texts) == [" ".join(row.words) for row in rows]


def test_class_names_of_a_data_set_are_those_of_its_lists(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    names = ["O", "B-X", "I-X"]
    features = datasets.Features(
        tokens=datasets.List(datasets.Value("string")), ner_tags=datasets.List(datasets.ClassLabel(names=names))
    )
    data = datasets.Dataset.from_dict({"tokens": [["a", "b"], ["c"]], "ner_tags": [[0, 1], [2]]}, features)
    data.to_parquet(tmp_path / "rows.parquet")
    for source in (in_memory(data), tmp_path / "rows.parquet"):
        examples = read_examples(source, NAMES, LISTS)
        assert examples.label_names == tuple(names)
        assert [one.tolist() for one in examples.labels] == [[0, 1], [2]]


def test_lists_are_rows_of_words_though_nobody_says_so() -> None:
    examples = read_examples(in_memory({"w": [["a"], ["b", "c"]], "t": [["X"], ["Y", "X"]]}), Columns("w", None, "t"))
    assert (examples.problem, examples.label_names) == ("tagging", ("X", "Y"))


def test_universal_dependencies_are_columns_with_remarks(tmp_path: Path) -> None:
    path = tmp_path / "ud.conllu"
    lines = ["# text = vámonos al mar", "1-2\tvámonos\t_\t_", "1\tvamos\tir\tVERB", "2\tnos\tyo\tPRON"]
    path.write_text("\n".join([*lines, "2.1\tghost\t_\t_", "", "1\tNew York\tx\tPROPN", ""]), encoding="utf-8")
    examples = read_examples(path, Columns(1, None, 3))
    assert examples.words == [["vamos", "nos"], ["New York"]]
    assert examples.label_names == ("PRON", "PROPN", "VERB")
    assert list(examples.reading.numbers) == [3, 7]


def test_lines_of_a_conllu_without_a_number_are_no_remarks(tmp_path: Path) -> None:
    path = tmp_path / "plain.conllu"
    path.write_text("John\tNOUN\n12\tNUM\n\nLondon NOUN\n", encoding="utf-8")
    with pytest.raises(CacheError, match=r"line 4: no column number 1; there is 1 column"):
        read_examples(path, Columns(0, None, 1))
    examples = read_examples(path, Columns(0, None, 1), policy=RowPolicy(bad_rows="skip"))
    assert examples.words == [["John", "12"]]


@pytest.mark.parametrize("problem", ["classification", "multilabel", "regression"])
def test_lists_of_words_are_no_texts(problem: Problem) -> None:
    rows = in_memory({"w": [["a"], ["b"]], "t": [["X"], ["Y"]]})
    with pytest.raises(CacheError, match="row 1: the text is a list, not a string; give a column of texts"):
        read_examples(rows, Columns("w", None, "t"), LabelSet(problem))


def test_rows_of_words_have_no_second_text() -> None:
    rows = in_memory({"w": [["a"]], "v": [["a"]], "t": [["X"]]})
    with pytest.raises(CacheError, match="rows of words have no second text"):
        read_examples(rows, Columns("w", "v", "t"), LISTS)


def test_words_without_a_tag_are_marked_and_rows_without_any_are_left_out() -> None:
    rows = in_memory({"w": [["a", "b"], ["c"], ["d"]], "t": [["X", -100], [None], ["Y"]]})
    columns = Columns("w", None, "t")
    with pytest.raises(CacheError, match="1 of 3 rows has no gold label"):
        read_examples(rows, columns, LISTS)
    examples = read_examples(rows, columns, LISTS, RowPolicy("skip"))
    assert [one.tolist() for one in examples.labels] == [[0, -100], [1]]
    kept = read_examples(rows, columns, LISTS, RowPolicy("keep"))
    assert [one.tolist() for one in kept.gold().labels] == [[0, -100], [1]]
    assert kept.gold().words == [["a", "b"], ["d"]]
    assert kept.gold().fingerprint == examples.fingerprint
    assert read_examples(rows, Columns("w"), LISTS).labels is None


@pytest.mark.parametrize(
    ("words", "tags", "told"),
    [
        ([["a"]], [["X", "Y"]], "row 1: there are 1 word and 2 tags; give every word a tag"),
        ([[]], [[]], "row 1: there is no word"),
        (["a"], ["X"], "row 1: the words are a str, not a list of words"),
        ([["a"]], ["X"], "row 1: the tags are a str, not a list"),
        ([["a", 1]], [["X", "Y"]], "row 1: a word is a int, not a string"),
        ([["a", None]], [["X", "Y"]], "row 1: a word is missing"),
        ([["a"]], [["Z"]], "row 1: label 'Z' is not one of X, Y"),
    ],
)
def test_a_bad_row_is_named_or_left_out(words: list[object], tags: list[object], told: str) -> None:
    rows = in_memory({"w": [*words, ["b"]], "t": [*tags, ["X"]]})
    labels = LabelSet("tagging", ("X", "Y"))
    with pytest.raises(CacheError) as error:
        read_examples(rows, Columns("w", None, "t"), labels)
    assert told in str(error.value)
    examples = read_examples(rows, Columns("w", None, "t"), labels, RowPolicy(bad_rows="skip"))
    assert (examples.words, [number for number, _ in examples.reading.bad]) == ([["b"]], [1])


def test_a_line_that_lacks_a_column_is_named_by_its_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.conll"
    path.write_text("a X O\nb X O\n\nc X O\nd\n", encoding="utf-8")
    with pytest.raises(CacheError, match=r"line 4: word 2 has 1 column where the first has 3"):
        read_examples(path, Columns(0, None, 2))
    examples = read_examples(path, Columns(0, None, 2), LabelSet(None, ("O", "B")), RowPolicy(bad_rows="skip"))
    assert examples.words == [["a", "b"]]
    with pytest.raises(CacheError, match=r"line 1: no column number 5; there are 3 columns, numbers 0 to 2"):
        read_examples(path, Columns(0, None, 5))


@pytest.mark.parametrize("max_length", [48, 9, 4])
def test_each_word_stands_where_its_own_pieces_begin(tiny_tokenizer_dir: Path, max_length: int) -> None:
    rows, tokenizer = tagged(40, seed=3), load_tokenizer(tiny_tokenizer_dir)
    source = in_memory({"tokens": [row.words for row in rows], "ner_tags": [row.tags for row in rows]})
    found = tokenize(examples_for(source, load_task("conll")), tokenizer, max_length)
    assert found.words is not None
    num_empty = num_cut = 0
    for row, (words, _) in enumerate(rows):
        # Every word by itself: WordPiece looks at nothing beyond it.
        pieces = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in words]
        begin = 1 + np.cumsum([0, *map(len, pieces[:-1])])
        is_kept = [bool(own) and start < max_length - 1 for own, start in zip(pieces, begin, strict=True)]
        num_empty += sum(not own for own in pieces)
        num_cut += sum(bool(own) and start >= max_length - 1 for own, start in zip(pieces, begin, strict=True))
        part = slice(found.words.offsets[row], found.words.offsets[row + 1])
        assert found.words.positions[part].tolist() == begin[is_kept].tolist()
        assert found.words.numbers[part].tolist() == np.flatnonzero(is_kept).tolist()
        ids = found.input_ids[found.offsets[row] : found.offsets[row + 1]]
        assert [ids[place] for place in begin[is_kept]] == [
            own[0] for own, kept in zip(pieces, is_kept, strict=True) if kept
        ]
    assert (found.words.num_empty, found.words.num_cut) == (num_empty, num_cut)
    assert num_empty
    assert (num_cut > 0) == (max_length < 48)


def test_lost_words_are_told(tiny_tokenizer_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = in_memory({"w": [["film", LOST[0], "the", "the"]]}, "mine")
    tokenize(read_examples(source, Columns("w")), load_tokenizer(tiny_tokenizer_dir), 4)
    told = capsys.readouterr().err
    assert "mine: 1 of 4 words is cut off (--max-length 5 keeps all); 1 of 4 words gives no token" in " ".join(
        told.split()
    )


def test_a_tokenizer_that_cuts_the_beginning_is_refused(tiny_tokenizer_dir: Path) -> None:
    tokenizer = load_tokenizer(tiny_tokenizer_dir)
    tokenizer.truncation_side = "left"
    with pytest.raises(CacheError, match="cuts long rows at their beginning"):
        tokenize(read_examples(in_memory({"w": [["film"]]}), Columns("w")), tokenizer, 8)


def test_a_tokenizer_that_reads_lists_otherwise_than_texts_is_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaTokenizerFast

    trained = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator(["the film is a film"] * 9, vocab_size=300, special_tokens=special, show_progress=False)
    trained.save_model(str(tmp_path))
    for adds, told in ((False, True), (True, False)):
        files = {"vocab": str(tmp_path / "vocab.json"), "merges": str(tmp_path / "merges.txt")}
        RobertaTokenizerFast(**files, add_prefix_space=adds).save_pretrained(tmp_path / str(adds))
        tokenizer = load_tokenizer(tmp_path / str(adds))
        found = tokenize(read_examples(in_memory({"w": [["the", "film"]]}), Columns("w")), tokenizer, 20)
        assert found.words is not None
        assert found.words.numbers.tolist() == [0, 1]
        assert ("saved with add_prefix_space" in " ".join(capsys.readouterr().err.split())) is told
