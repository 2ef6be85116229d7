"""Token ids and offsets are those of the tokenizer itself, row by row."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from hskcache.errors import DataError, SpecError, TeacherError
from hskcache.text import Examples, load_tokenizer, tokenize
from hskcache.text.tokenize import BATCH_ROWS

WORDS = st.lists(st.sampled_from(["the", "film", "is", "dull", "zzz", "charming", "?"]), min_size=1, max_size=20).map(
    " ".join
)


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer_dir: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(tiny_tokenizer_dir)


def examples(texts: list[str], pairs: list[str] | None = None) -> Examples:
    return Examples(texts, pairs, None, (), "classification", "a.tsv", None, "")


def letters_tokenizer(**specials: str) -> PreTrainedTokenizerFast:
    """One token for each a or b, no special tokens around a text; other letters are dropped or one unknown token."""
    vocabulary = {letter: number for number, letter in enumerate(["a", "b", "<end>", "<unk>", "<pad>"])}
    letters = Tokenizer(models.BPE(vocabulary, [], unk_token=specials.get("unk_token")))
    letters.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=letters, **specials)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), paired=st.booleans(), max_length=st.integers(5, 40))
def test_every_row_is_what_the_tokenizer_gives_for_it_alone(
    tokenizer: PreTrainedTokenizerBase, data: st.DataObject, paired: bool, max_length: int
) -> None:
    texts = data.draw(st.lists(WORDS, min_size=1, max_size=6))
    pairs = [data.draw(WORDS) for _ in texts] if paired else None
    rows = tokenize(examples(texts, pairs), tokenizer, max_length)
    assert rows.lengths.max() <= max_length
    assert rows.token_type_ids is not None
    for index, text in enumerate(texts):
        alone = tokenizer(text, pairs[index] if pairs else None, truncation="longest_first", max_length=max_length)
        where = slice(rows.offsets[index], rows.offsets[index + 1])
        assert rows.input_ids[where].tolist() == alone["input_ids"]
        assert rows.token_type_ids[where].tolist() == alone["token_type_ids"]


def test_types_and_shapes_are_as_documented_across_batches(tokenizer: PreTrainedTokenizerBase) -> None:
    num_rows = 2 * BATCH_ROWS + 1
    done: list[int] = []
    rows = tokenize(examples(["the film"] * (num_rows - 1) + ["the"]), tokenizer, 16, done.append)
    assert done == [BATCH_ROWS, BATCH_ROWS, 1]
    assert (len(rows), rows.offsets[0], rows.offsets[-1]) == (num_rows, 0, len(rows.input_ids))
    dtypes = [values.dtype.name for values in (rows.input_ids, rows.offsets, rows.lengths)]
    assert dtypes == ["int32", "int64", "int64"]
    assert rows.token_type_ids is not None
    assert rows.token_type_ids.dtype == np.uint8
    assert rows.lengths[-1] == rows.lengths[0] - 1


def test_no_padding_is_kept_even_if_the_tokenizer_was_saved_with_it(tiny_tokenizer_dir: Path) -> None:
    padding = PreTrainedTokenizerFast.from_pretrained(tiny_tokenizer_dir)
    padding.backend_tokenizer.enable_padding(length=30)
    padding.backend_tokenizer.enable_truncation(4)
    rows = tokenize(examples(["the", "the film is the film is"]), padding, 16)
    assert rows.lengths.tolist() == [3, 8]


def test_the_longer_text_of_a_pair_is_cut_first(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = tokenize(examples(["the"], ["film " * 30]), tokenizer, 10)
    assert rows.token_type_ids is not None
    assert rows.token_type_ids.tolist() == [0] * 3 + [1] * 7


def test_token_types_are_kept_only_for_models_that_read_them(tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenize(examples(["a b"]), letters_tokenizer(unk_token="<unk>"), 8).token_type_ids is None
    assert tokenize(examples(["a b"]), tokenizer, 8).token_type_ids is not None


def test_the_unknown_token_is_not_special_for_it_stands_for_a_word(tokenizer: PreTrainedTokenizerBase) -> None:
    marks = tokenizer.convert_tokens_to_ids(["[CLS]", "[SEP]", "[PAD]", "[MASK]"])
    assert tokenize(examples(["\u6f22"]), tokenizer, 8).special_ids == frozenset(marks)


def test_an_unknown_token_that_also_ends_texts_is_special() -> None:
    rows = tokenize(examples(["a"]), letters_tokenizer(unk_token="<end>", eos_token="<end>", pad_token="<pad>"), 8)
    assert rows.special_ids == {2, 4}


@pytest.mark.parametrize(("pairs", "least"), [(None, 3), (["film"], 5)])
def test_a_length_with_no_room_for_text_is_refused_where_the_tokenizer_would_stay_silent(
    tokenizer: PreTrainedTokenizerBase, pairs: list[str] | None, least: int
) -> None:
    rows = tokenize(examples(["film film"], pairs), tokenizer, least)
    assert rows.lengths.tolist() == [least]
    with pytest.raises(SpecError, match=f"give at least {least}"):
        tokenize(examples(["film film"], pairs), tokenizer, least - 1)


def test_a_row_without_any_token_is_named() -> None:
    with pytest.raises(DataError, match=r"a.tsv row 1002: the text gives no token"):
        tokenize(examples([*["a"] * 1001, "other", "b"]), letters_tokenizer(), 8)


def test_a_folder_without_a_usable_tokenizer_is_refused_in_one_line(tmp_path: Path, tiny_tokenizer_dir: Path) -> None:
    def folder(name: str, **files: str) -> Path:
        (tmp_path / name).mkdir()
        for file, content in files.items():
            (tmp_path / name / f"{file}.json").write_text(content)
        return tmp_path / name

    malformed = json.loads((tiny_tokenizer_dir / "tokenizer.json").read_text())
    del malformed["model"]["unk_token"]
    cases = {
        folder("bare"): "cannot load",
        folder("configured", config='{"model_type": "bert"}'): "has no vocabulary",
        folder("cut", config='{"model_type": "bert"}', tokenizer="{"): "cannot load",
        folder("malformed", config='{"model_type": "bert"}', tokenizer=json.dumps(malformed)): "cannot load",
        tmp_path / "gone": "no such folder",
    }
    for path, message in cases.items():
        with pytest.raises(TeacherError, match=message) as caught:
            load_tokenizer(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
