"""Rows of a causal language model: parts of documents, and the tokens that are to be predicted."""

import gzip
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from byte_pairs import byte_pairs
from language_models import language_tokenizer

from hskcache.errors import DataError
from hskcache.text.language.rows import LanguageRows, RowsWriter, ends_of
from hskcache.text.language.sources import check_language
from hskcache.text.language.texts import completions, documents_of_file, documents_of_rows
from hskcache.text.layout import Layout
from hskcache.text.rows import Columns, read_examples
from hskcache.text.strings import spooling
from hskcache.text.table import RowPolicy


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return byte_pairs()


def file_of(folder: Path, text: str) -> Path:
    path = folder / "text.txt"
    path.write_bytes(text.encode())
    return path


def rows_of(made: LanguageRows) -> list[list[int]]:
    offsets = made.rows.offsets
    return [made.rows.input_ids[begin:end].tolist() for begin, end in pairwise(offsets)]


def texts_of(made: LanguageRows, tokenizer: Any) -> list[str]:
    return [tokenizer.decode(ids) for ids in rows_of(made)]


def test_a_row_of_bos_a_b_eos_has_targets_a_b_and_eos(tmp_path: Path) -> None:
    own = language_tokenizer()
    made = documents_of_file(file_of(tmp_path, "ab\n"), own, 16)
    bos, first, second, eos = 1, *own.convert_tokens_to_ids(["a", "b"]), 2
    assert rows_of(made) == [[bos, first, second, eos]]
    assert made.rows.targets is None
    assert made.rows.num_targets.tolist() == [3]
    assert made.made.num_targets == 3


@pytest.mark.parametrize("frame", ["<s> $A", "<s> $A </s>"])
def test_the_end_of_a_text_is_there_once(frame: str, tmp_path: Path) -> None:
    made = documents_of_file(file_of(tmp_path, "ab"), language_tokenizer(frame), 16)
    assert rows_of(made)[0].count(2) == 1


def test_documents_never_meet_and_keep_their_lines(tokenizer: Any, tmp_path: Path) -> None:
    path = file_of(tmp_path, "\ufeff\n  one\nand more  \r\n\n\n \ntwo\r\n\nthree")
    made = documents_of_file(path, tokenizer, 64)
    end = "<|endoftext|>"
    assert texts_of(made, tokenizer) == [f"  one\nand more  {end}", f"two{end}", f"three{end}"]
    assert made.rows.documents is not None
    assert made.rows.documents.tolist() == [0, 1, 2]


def test_articles_of_wikitext_keep_their_blank_lines(tokenizer: Any, tmp_path: Path) -> None:
    made = documents_of_file(
        file_of(tmp_path, "\n = A = \n \n text\n\n = = b = = \n more\n \n = C = \n x\n"), tokenizer, 64
    )
    end = "<|endoftext|>"
    assert texts_of(made, tokenizer) == [f" = A = \n \n text\n\n = = b = = \n more{end}", f" = C = \n x{end}"]


def test_one_document_is_all_that_a_file_holds(tokenizer: Any, tmp_path: Path) -> None:
    text = "\n one\n\n two \n\n\nthree\n"
    path = file_of(tmp_path, text)
    made = documents_of_file(path, tokenizer, 1024, one_document=True)
    assert texts_of(made, tokenizer) == [text + "<|endoftext|>"]
    assert made.fingerprint != documents_of_file(path, tokenizer, 1024).fingerprint


@pytest.mark.parametrize("max_length", [3, 5, 8])
def test_each_token_of_a_long_document_but_its_first_is_a_target_once(
    max_length: int, tokenizer: Any, tmp_path: Path
) -> None:
    texts = ["the film is charming and short, and this movie is dull", "What is it?", "a"]
    made = documents_of_file(file_of(tmp_path, "\n\n".join(texts)), tokenizer, max_length)
    assert int(made.rows.lengths.max()) <= max_length
    assert int(made.rows.lengths.min()) >= 2
    for number, text in enumerate(texts):
        whole = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
        own = [row for row, of in zip(rows_of(made), made.rows.documents, strict=True) if of == number]
        predicted = [token for row in own for token in row[1:]]
        assert [own[0][0], *predicted] == whole
        assert all(one[-1] == other[0] for one, other in pairwise(own))
    assert made.made.num_targets == int(made.rows.num_targets.sum())


def test_rows_on_the_disk_are_those_in_memory(tokenizer: Any, tmp_path: Path) -> None:
    path = file_of(tmp_path, "the film\nis dull\n\nthis movie\n" * 50)
    progress: list[int] = []
    made = documents_of_file(path, tokenizer, 8, on_progress=progress.append)
    with spooling(tmp_path):
        spooled = documents_of_file(path, tokenizer, 8)
    assert isinstance(spooled.rows.input_ids, np.memmap)
    assert rows_of(spooled) == rows_of(made)
    assert sum(progress) == path.stat().st_size


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"one\n\ntw\xffo\n", "line 3: byte 0xff is not UTF-8"),
        (b"\n \n", "holds no text"),
        (b"", "holds no text"),
    ],
)
@pytest.mark.parametrize("one_document", [False, True])
def test_files_without_text_are_refused(
    data: bytes, words: str, one_document: bool, tokenizer: Any, tmp_path: Path
) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(data)
    with pytest.raises(DataError, match=words):
        documents_of_file(path, tokenizer, 8, one_document)


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    path = tmp_path / "answers.csv"
    path.write_text('q,a\nWhat is it?," It is a film."\nthe film, is dull\n', encoding="utf-8")
    return path


def test_a_completion_and_the_end_are_predicted_and_its_prompt_is_not(answers: Path, tokenizer: Any) -> None:
    made = completions(read_examples(answers, Columns("q", "a")), tokenizer, 64)
    targets = made.rows.targets
    assert targets is not None
    for row, (prompt, answer) in enumerate([("What is it?", " It is a film."), ("the film", " is dull")]):
        part = slice(*made.rows.offsets[row : row + 2])
        ids, is_target = made.rows.input_ids[part], targets[part]
        assert ids.tolist() == [
            *(token for text in (prompt, answer) for token in tokenizer(text)["input_ids"]),
            tokenizer.eos_token_id,
        ]
        assert tokenizer.decode(ids[is_target]) == answer + "<|endoftext|>"
    assert made.made.form == "completions"


def test_long_completions_lose_their_end_and_are_counted(answers: Path, tokenizer: Any) -> None:
    examples = read_examples(answers, Columns("q", "a"))
    whole = completions(examples, tokenizer, 64).rows
    cut = completions(examples, tokenizer, int(whole.lengths[0]) - 2).rows
    assert (cut.cut.num_rows, cut.cut.num_tokens, cut.cut.longest) == (1, 2, int(whole.lengths[0]))
    assert cut.input_ids[: cut.lengths[0]].tolist() == whole.input_ids[: cut.lengths[0]].tolist()


def test_a_prompt_without_room_for_its_completion_is_refused_or_left_out(answers: Path, tokenizer: Any) -> None:
    room = len(tokenizer("What is it?")["input_ids"])
    assert len(tokenizer("the film is dull")["input_ids"]) < room + 2
    with pytest.raises(DataError, match=r"line 2: the prompt has .* --max-length [0-9]+, or --bad-rows skip"):
        completions(read_examples(answers, Columns("q", "a")), tokenizer, room)
    made = completions(read_examples(answers, Columns("q", "a"), None, RowPolicy(bad_rows="skip")), tokenizer, room)
    assert len(made.rows) == 1


def test_a_row_is_cut_behind_its_last_target() -> None:
    writer = RowsWriter(5, have_targets=True)
    ids, targets = np.arange(8, dtype=np.int32), np.array([1, 1, 0, 1, 0, 0, 1, 1], bool)
    assert writer.add_masked(0, ids, targets)
    rows = writer.whole(byte_pairs())
    assert rows.input_ids.tolist() == [0, 1, 2, 3]
    assert rows.targets is not None
    assert rows.targets.tolist() == [False, True, False, True]
    assert rows.cut.num_tokens == 4
    assert not writer.add_masked(1, ids, targets & (ids > 5))
    assert not writer.add_masked(2, ids, ids == 0)


def test_documents_of_a_data_file_are_those_of_a_text_file(tokenizer: Any, tmp_path: Path) -> None:
    with gzip.open(tmp_path / "t.jsonl.gz", "wt") as file:
        file.write('{"text": "the film\\n\\nis dull"}\n{"text": "this movie"}\n')
    made = documents_of_rows(read_examples(tmp_path / "t.jsonl.gz", Columns("text")), tokenizer, 64)
    assert texts_of(made, tokenizer) == ["the film\n\nis dull<|endoftext|>", "this movie<|endoftext|>"]


def test_ends_are_what_the_tokenizer_puts_around_a_text() -> None:
    ends = ends_of(language_tokenizer())
    assert (ends.before.tolist(), ends.after.tolist()) == ([1], [2])


def test_a_compressed_text_is_refused_as_that(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "text.txt.gz", "wb") as file:
        file.write(b"a text\n")
    with pytest.raises(DataError, match=r"text\.txt\.gz is compressed by gzip; unpack it first"):
        check_language(tmp_path / "text.txt.gz", Layout())
