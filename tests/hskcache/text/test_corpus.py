"""A corpus becomes rows that hold every token once and in order, whatever the file looks like."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from real import real_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from hskcache.errors import DataError, SpecError, TeacherError
from hskcache.text import lines as reading
from hskcache.text import load_tokenizer
from hskcache.text.corpus import Corpus, corpus_fingerprint, pack_corpus
from hskcache.text.spool import Spool

Pack = Callable[..., Corpus]

BYTE_LEVEL_TEXT = "the film is dull and the story is charming, don't they say; the music is moving\n" * 3
WORDS = st.sampled_from(
    ["the", "film", "charming", "don't", "zzz", "?", "is" * 30, "[SEP]", "caf\u00e9", "\u6f22\u5b57", "\U0001f600"]
)
ODD_WORDS = st.sampled_from(["a\x00b", "\x07", "c\rd", "e\u2028f", "g\u00a0h", "\ufeff"])
GAPS = st.sampled_from([" ", "  ", "\t", " \u3000 "])
LINES = st.lists(st.tuples(GAPS, WORDS | ODD_WORDS), max_size=12).map(
    lambda pairs: "".join(gap + word for gap, word in pairs)
)
TEXTS = st.lists(st.one_of(LINES, WORDS, st.sampled_from(["", "  ", "\t"])), max_size=14)


@pytest.fixture(scope="module")
def bert(tiny_tokenizer_dir: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(tiny_tokenizer_dir)


@pytest.fixture(scope="module")
def roberta() -> PreTrainedTokenizerBase:
    """A byte-level BPE tokenizer like RoBERTa's: the space before a word is part of its token, no token types."""
    byte_level = Tokenizer(models.BPE())
    byte_level.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    byte_level.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    byte_level.train_from_iterator([BYTE_LEVEL_TEXT], trainer)
    byte_level.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=byte_level, bos_token="<s>", eos_token="</s>", cls_token="<s>", sep_token="</s>",
        pad_token="<pad>", unk_token="<unk>", model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip


@pytest.fixture(scope="module")
def words() -> PreTrainedTokenizerBase:
    """One token for each word between blanks: quick, and with no special tokens around a text."""
    whole_words = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1, "b": 2}, unk_token="<unk>"))
    whole_words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=whole_words, unk_token="<unk>")


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    """Pack bytes or a text as a file of its own."""
    count = iter(range(10**6))

    def pack(content: str | bytes, tokenizer: PreTrainedTokenizerBase, max_length: int = 16) -> Corpus:
        number = next(count)
        path = tmp_path / f"{number}.txt"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return pack_corpus(path, tokenizer, max_length, Spool(tmp_path / f"spool{number}", "tokenizer"))

    return pack


@pytest.fixture(scope="session", params=["ours", "WikiText-2"])
def wikitext(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The validation part of WikiText-2, and articles of our own that look like its."""
    if request.param == "WikiText-2":
        return real_file("HSKCACHE_CORPUS", "corpus", "wiki.valid.tokens")
    article = (
        " \n = The {0} ferry = \n \n The {0} ferry , or <unk> , carries 3 @,@ {0}00 people a day .\n"
        " Its captain 's dog \" sleeps aboard most nights{1} ; fares went up by 0 @.@ {0} % . \n"
        " \n = = The café = = \n \n It closed , opened again in 19{0} and closed for the winter . \n"
    )
    path = tmp_path_factory.mktemp("wikitext") / "wiki.valid.tokens"
    path.write_text(
        "".join(article.format(number, " or days" * (number % 9)) for number in range(2500)), encoding="utf-8"
    )
    return path


def documents(text: str) -> list[str]:
    """The documents of a corpus, each as one line."""
    blocks: list[list[str]] = [[]]
    for line in text.split("\n"):
        if line.strip():
            blocks[-1].append(line.strip())
        else:
            blocks.append([])
    return [" ".join(block) for block in blocks if block]


def rows_of(found: Corpus) -> list[list[int]]:
    rows = found.rows
    return [rows.input_ids[start:stop].tolist() for start, stop in zip(rows.offsets, rows.offsets[1:], strict=False)]


def expected_rows(text: str, tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[list[int]]:
    """Rows packed word by word from whole documents, the special tokens put around them by the tokenizer's template."""
    before, after = ([tokenizer.cls_token_id], [tokenizer.sep_token_id]) if tokenizer.cls_token else ([], [])
    room = max_length - len(before) - len(after)
    rows = []
    for document in documents(text):
        encoding = tokenizer(document, add_special_tokens=False)
        by_word: dict[int, list[int]] = {}
        for token, word in zip(encoding["input_ids"], encoding.word_ids(), strict=True):
            by_word.setdefault(word, []).append(token)
        row: list[int] = []
        for word in by_word.values():
            if row and len(row) + len(word) > room:
                # A word that is longer than a row begins on a new one all the same.
                rows.append(row)
                row = []
            row += word
            while len(row) > room:
                rows.append(row[:room])
                row = row[room:]
        rows += [row] if row else []
    return [before + row + after for row in rows]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=TEXTS,
    max_length=st.integers(3, 24),
    ending=st.sampled_from(["\n", "\r\n"]),
    around=st.tuples(st.sampled_from(["", "\ufeff"]), st.sampled_from(["", "\n"])),
    name=st.sampled_from(["bert", "roberta", "words"]),
    batch=st.sampled_from([(1, 1), (3, 40), (1 << 13, 1 << 20)]),
)
def test_every_token_is_in_one_row_in_order_and_rows_end_with_words_and_documents(
    request: pytest.FixtureRequest, pack: Pack, lines: list[str], max_length: int, ending: str,
    around: tuple[str, str], name: str, batch: tuple[int, int],
) -> None:  # fmt: skip
    """For every tokenizer, line ending and internal batch size, with and without a byte order mark."""
    text = ending.join(lines)
    tokenizer = request.getfixturevalue(name)
    expected = expected_rows(text, tokenizer, max_length)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "BATCH_TEXTS", batch[0])
        patch.setattr(reading, "BATCH_CHARACTERS", batch[1])
        if not expected:
            with pytest.raises(DataError, match="holds no text"):
                pack(text.join(around), tokenizer, max_length)
            return
        found = pack(text.join(around), tokenizer, max_length)
    assert rows_of(found) == expected
    tokens = [tokenizer(document, add_special_tokens=False)["input_ids"] for document in documents(text)]
    assert (found.num_documents, found.num_tokens) == (sum(map(bool, tokens)), sum(map(len, tokens)))


def test_wikitext_gives_the_tokens_of_its_lines(wikitext: Path, bert: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    done: list[int] = []
    found = pack_corpus(wikitext, bert, 128, Spool(tmp_path, "tokenizer"), done.append)
    lines = [line.strip() for line in wikitext.read_text(encoding="utf-8").split("\n")]
    whole = bert(lines, add_special_tokens=False)["input_ids"]
    body = np.array(found.rows.input_ids)
    body = body[(body != bert.cls_token_id) & (body != bert.sep_token_id)]
    assert np.array_equal(body, np.concatenate([np.array(ids, np.int32) for ids in whole]))
    assert found.num_tokens == len(body)
    assert sum(done) == wikitext.stat().st_size
    assert len(done) > 1
    assert found.rows.lengths.max() == 128


def test_wikitext_is_divided_at_its_titles(pack: Pack, bert: PreTrainedTokenizerBase) -> None:
    """Blank lines and section headings stand inside an article; other files are divided at blank lines alone."""
    article = "\n = the film = \n \n the plot \n \n = = the cast = = \n \n the music \n"
    found = pack(article + article, bert)
    assert found.num_documents == 2
    assert bert.decode(found.rows.input_ids[: found.rows.offsets[1]]) == (
        "[CLS] [UNK] the film [UNK] the plot [UNK] [UNK] the cast [UNK] [UNK] the music [SEP]"
    )
    assert pack("the plot\n" + article, bert).num_documents == 5


def test_rows_are_maps_of_files_with_the_documented_types(pack: Pack, bert: PreTrainedTokenizerBase) -> None:
    found = pack("the film\nis dull\n\nthe story is charming\n", bert)
    rows = found.rows
    assert isinstance(rows.input_ids, np.memmap)
    assert isinstance(rows.offsets, np.memmap)
    assert [rows.input_ids.dtype, rows.offsets.dtype, rows.lengths.dtype] == [np.int32, np.int64, np.int64]
    assert rows.token_type_ids is not None
    assert (rows.token_type_ids.dtype, rows.token_type_ids.shape) == (np.uint8, rows.input_ids.shape)
    assert not rows.token_type_ids.any()
    assert rows.special_ids == set(bert.convert_tokens_to_ids(["[CLS]", "[SEP]", "[PAD]", "[MASK]"]))
    assert (found.num_rows, found.num_documents, len(rows)) == (2, 2, 2)
    assert bert.decode(rows.input_ids[: rows.offsets[1]]) == "[CLS] the film is dull [SEP]"


def test_a_line_goes_on_with_a_space_where_the_tokenizer_marks_spaces(
    pack: Pack, roberta: PreTrainedTokenizerBase
) -> None:
    found = pack("the film\n  is dull \r\n\nthe story", roberta, 64)
    assert [roberta.decode(row) for row in rows_of(found)] == ["<s>the film is dull</s>", "<s>the story</s>"]
    assert found.rows.token_type_ids is None


def test_a_tokenizer_saved_with_truncation_and_padding_packs_alike_and_keeps_them(
    tiny_tokenizer_dir: Path, pack: Pack, bert: PreTrainedTokenizerBase
) -> None:
    padding = PreTrainedTokenizerFast.from_pretrained(tiny_tokenizer_dir)
    padding.backend_tokenizer.enable_padding(length=30)
    padding.backend_tokenizer.enable_truncation(4)
    text = "the film is dull and the film is dull\nthe film"
    assert rows_of(pack(text, padding)) == rows_of(pack(text, bert))
    assert padding.backend_tokenizer.truncation["max_length"] == 4
    assert padding.backend_tokenizer.padding["length"] == 30


def test_a_length_with_no_room_for_text_is_refused(pack: Pack, bert: PreTrainedTokenizerBase) -> None:
    assert pack("the film", bert, 3).rows.lengths.max() == 3
    with pytest.raises(SpecError, match=r"2 tokens at most leave no room .* give at least 3"):
        pack("the film", bert, 2)


def test_token_types_other_than_0_are_refused_rather_than_lost(tiny_tokenizer_dir: Path, pack: Pack) -> None:
    typed = PreTrainedTokenizerFast.from_pretrained(tiny_tokenizer_dir)
    marks = [(token, typed.convert_tokens_to_ids(token)) for token in ("[CLS]", "[SEP]")]
    typed.backend_tokenizer.post_processor = processors.TemplateProcessing("$A [SEP] [CLS]:2", "$A $B", marks)
    with pytest.raises(TeacherError, match="token types other than 0"):
        pack("the film", typed)


@pytest.mark.parametrize("content", [b"", b"\n", b"\xef\xbb\xbf", b" \r\n\t\n", b"\x00\x07\n"])
def test_a_file_without_text_is_refused(pack: Pack, bert: PreTrainedTokenizerBase, content: bytes) -> None:
    with pytest.raises(DataError, match="holds no text"):
        pack(content, bert)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"the film\n\nis \xff dull\n", "line 3: byte 0xff is not UTF-8"),
        ("the film".encode("utf-16"), "line 1: byte 0xff is not UTF-8"),
        (b"caf\xc3", "line 1: byte 0xc3 is not UTF-8"),
        (b"half a pair \xed\xa0\x80\n", "line 1: byte 0xed is not UTF-8"),
        (b"a\n" + b"film " * (1 << 16) + b"\n\nb\x80", "line 4: byte 0x80 is not UTF-8"),
    ],
)
def test_bytes_that_are_not_utf_8_are_named_by_line(
    pack: Pack, bert: PreTrainedTokenizerBase, content: bytes, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        pack(content, bert)
    assert "\n" not in str(caught.value)


def test_what_is_no_file_is_refused_at_once(tmp_path: Path, bert: PreTrainedTokenizerBase) -> None:
    os.mkfifo(tmp_path / "pipe")
    cases = {tmp_path: "is a folder", tmp_path / "gone": "No such file", tmp_path / "pipe": "not a regular file"}
    for path, message in cases.items():
        with pytest.raises(DataError, match=message):
            pack_corpus(path, bert, 16, Spool(tmp_path / "spool", "tokenizer"))
        with pytest.raises(DataError, match=message):
            corpus_fingerprint(path, 16)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), name=st.sampled_from(["bert", "roberta"]), part_bytes=st.integers(80, 200))
def test_lines_longer_than_a_part_give_the_tokens_of_the_whole_line(
    request: pytest.FixtureRequest, pack: Pack, data: st.DataObject, name: str, part_bytes: int
) -> None:
    """Cut between words, wherever the parts happen to end."""
    words = data.draw(st.lists(WORDS, min_size=1, max_size=80))
    text = "the " + " ".join(words) + "\nfilm\n"
    tokenizer = request.getfixturevalue(name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "PART_BYTES", part_bytes)
        found = pack(text, tokenizer)
    assert rows_of(found) == expected_rows(text, tokenizer, 16)


def test_a_line_of_megabytes_without_a_blank_loses_no_character(pack: Pack, roberta: PreTrainedTokenizerBase) -> None:
    """Cut between characters of several bytes, with no space put in."""
    text = "\u6f22\u00e9\U0001f600" * 120_000 + "\n" + " " * 200_000 + "\nthe film" + " " * 200_000 + "is dull"
    found = pack(text, roberta, 512)
    ids = found.rows.input_ids
    decoded = roberta.decode(ids[(ids != 0) & (ids != 2)])
    assert decoded == text.split("\n")[0] + "the film is dull"
    assert found.num_documents == 2


def test_the_fingerprint_is_known_without_tokenizing_and_names_content_and_length(
    tmp_path: Path, bert: PreTrainedTokenizerBase
) -> None:
    one, same, other = (tmp_path / name for name in ("one", "same", "other"))
    one.write_text("the film\n")
    same.write_text("the film\n")
    other.write_text("the film \n")
    found = pack_corpus(one, bert, 16, Spool(tmp_path / "spool", "tokenizer"))
    assert found.fingerprint == corpus_fingerprint(same, 16)
    assert len({found.fingerprint, corpus_fingerprint(one, 17), corpus_fingerprint(other, 16)}) == 3
    # The same in every version, unless the packing changes.
    sha256 = hashlib.sha256(b"the film\n").hexdigest()
    assert found.fingerprint == hashlib.sha256(f"hskcache corpus 1\n{sha256}\n16\n".encode()).hexdigest()


MEMORY = """
import resource, sys
from pathlib import Path
from transformers import PreTrainedTokenizerFast
from hskcache.text.corpus import pack_corpus
from hskcache.text.spool import Spool

folder = Path(sys.argv[1])
tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer")
peaks = []
for name in ("small", "large"):
    pack_corpus(folder / name, tokenizer, 128, Spool(folder / f"{name}.spool", "tokenizer"))
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10)
print(peaks[1] - peaks[0])
"""


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path, words: PreTrainedTokenizerBase) -> None:
    """Seven times the text, in short lines and in one long one, takes no more than a few megabytes of memory more."""
    words.save_pretrained(tmp_path / "tokenizer")
    part = ("lengthy words of no interest " * 20 + "\n") * 800 + "\n" + "lengthy words of no interest " * 16_000
    for name, count in (("small", 2), ("large", 14)):
        (tmp_path / name).write_text(part * count)
    child = subprocess.run([sys.executable, "-c", MEMORY, tmp_path], capture_output=True, text=True, check=True)
    ids_bytes = (tmp_path / "large.spool" / "ids.bin").stat().st_size
    assert int(child.stdout) < ids_bytes / 2
