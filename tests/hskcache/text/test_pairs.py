"""Rows of pairs: which texts stand together, where they are cut, and that nothing else decides it but the seed."""

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from forked import in_child
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from hskcache.errors import DataError, SpecError
from hskcache.spec import Packing
from hskcache.text import corpus, load_tokenizer, packing
from hskcache.text import lines as reading
from hskcache.text.corpus import Corpus, corpus_fingerprint, pack_corpus
from hskcache.text.spool import Spool

CLS, SEP, PAD, MASK, UNK = range(5)
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORD = {letter: 5 + number for number, letter in enumerate(LETTERS)}
TWO_DOCUMENTS = "a b c\n\nd e\n"

Pack = Callable[..., Corpus]
Row = tuple[str, str | None]


def letters_tokenizer(with_types: bool = True, has_mask: bool = True) -> PreTrainedTokenizerBase:
    """A token for every letter and the special tokens of BERT; letters without a blank between are one word."""
    vocabulary = {"[CLS]": CLS, "[SEP]": SEP, "[PAD]": PAD, "[MASK]": MASK, "[UNK]": UNK, **WORD}
    vocabulary |= {f"##{letter}": 31 + number for number, letter in enumerate(LETTERS)}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=1000))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.BertProcessing(("[SEP]", SEP), ("[CLS]", CLS))
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if with_types else [])]
    mask = {"mask_token": "[MASK]"} if has_mask else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", unk_token="[UNK]",
        model_input_names=names, **mask,
    )  # fmt: skip


@pytest.fixture(scope="module")
def letters() -> PreTrainedTokenizerBase:
    return letters_tokenizer()


@pytest.fixture
def pack(tmp_path: Path, letters: PreTrainedTokenizerBase) -> Pack:
    """Pack a text as a file of its own."""
    count = iter(range(10**6))

    def pack(text: str, max_length: int = 8, tokenizer: PreTrainedTokenizerBase = letters, **how: object) -> Corpus:
        number = next(count)
        (tmp_path / f"{number}.txt").write_text(text, encoding="utf-8")
        spool = Spool(tmp_path / f"spool{number}", "tokenizer", Packing.model_validate(how))
        return pack_corpus(tmp_path / f"{number}.txt", tokenizer, max_length, spool)

    return pack


def spelled(ids: list[int]) -> str:
    """Letters, a piece that goes on with a word without a blank before it."""
    words = (LETTERS[token - 31] if token >= 31 else f" {LETTERS[token - 5]}" for token in ids)
    return "".join(words).strip()


def rows_of(found: Corpus) -> list[Row]:
    """The texts of every row, once its special tokens and types are what the template of pairs puts."""
    rows: list[Row] = []
    types = found.rows.token_type_ids
    assert types is not None
    for start, stop in zip(found.rows.offsets, found.rows.offsets[1:], strict=False):
        ids, kinds = found.rows.input_ids[start:stop].tolist(), types[start:stop].tolist()
        seps = [place for place, token in enumerate(ids) if token == SEP]
        assert ids[0] == CLS
        assert seps[-1] == len(ids) - 1
        assert kinds == [0] * (seps[0] + 1) + [1] * (len(ids) - seps[0] - 1)
        second = spelled(ids[seps[0] + 1 : -1]) if len(seps) == 2 else None
        rows.append((spelled(ids[1 : seps[0]]), second))
    return rows


def alphabet(num_documents: int, num_words: int) -> list[str]:
    """Documents of words that tell where they come from: aa ab ac ..., ba bb bc ..."""
    return [
        " ".join(f"{LETTERS[number]}{LETTERS[word // 26]}{LETTERS[word % 26]}" for word in range(num_words))
        for number in range(num_documents)
    ]


@pytest.mark.parametrize("seed", range(6))
def test_next_pairs_what_follows_within_one_document_alone(pack: Pack, seed: int) -> None:
    rows = rows_of(pack(TWO_DOCUMENTS, pairs="next", seed=seed))
    assert rows[0] in {("a", "b c"), ("a b", "c")}
    assert rows[1:] == [("d", "e")]


@pytest.mark.parametrize("seed", range(6))
def test_random_takes_the_second_text_from_the_other_document(pack: Pack, seed: int) -> None:
    rows = rows_of(pack(TWO_DOCUMENTS, pairs="random", seed=seed))
    firsts = " ".join(first for first, _ in rows)
    assert firsts == "a b c d e"
    for first, second in rows:
        assert second is not None
        assert (first in "a b c") == (second in "d e")
        assert (first in "d e") == (second in "a b c")


def test_mixed_is_half_of_each(pack: Pack) -> None:
    documents = alphabet(20, 400)
    rows = rows_of(pack("\n\n".join(documents), 32, pairs="mixed"))
    others = [first[0] != str(second)[0] for first, second in rows]
    assert len(rows) > 1000
    assert abs(np.mean(others) - 0.5) < 0.05
    # Of the tokens between the special ones as many are in second texts; where a text ends was drawn.
    lengths = np.array([[len(first.replace(" ", "")), len(str(second).replace(" ", ""))] for first, second in rows])
    assert abs(lengths[:, 1].sum() / lengths.sum() - 0.5) < 0.03


@pytest.mark.parametrize("pairs", ["none", "next", "random", "mixed"])
@pytest.mark.parametrize("short_rows", [0.0, 0.3])
def test_every_word_of_a_document_stands_once_in_order_and_whole(pack: Pack, pairs: str, short_rows: float) -> None:
    """In its own rows; those of another document stand beside it as partners, consecutive and whole as well."""
    documents = alphabet(9, 60)
    rows = rows_of(pack("\n\n".join(documents), 24, pairs=pairs, short_rows=short_rows))
    own = []
    for first, second in rows:
        document = documents[LETTERS.index(first[0])]
        assert first in document
        own.append(first)
        if second is not None:
            assert any(second in one for one in documents)
            if second[0] == first[0]:
                assert f"{first} {second}" in document
                own.append(second)
    assert " ".join(own) == " ".join(documents)
    assert all((second is None) == (pairs == "none") for first, second in rows if " " in first)


def test_short_rows_have_drawn_lengths_and_the_others_none(pack: Pack) -> None:
    text = "\n\n".join(alphabet(3, 600))
    full = pack(text, 32, pairs="next").rows.lengths
    mixed = pack(text, 32, pairs="next", short_rows=0.4).rows.lengths
    # Words have three tokens: a row is as long as whole words allow.
    assert (full > 28).mean() > 0.98
    short = (mixed <= 28).mean()
    assert 0.4 * (20 / 28) < short < 0.45
    assert len(np.unique(mixed)) > 5


def test_copies_are_cut_elsewhere_and_have_other_partners(pack: Pack) -> None:
    documents = alphabet(4, 300)
    one = rows_of(pack("\n\n".join(documents), 24, pairs="mixed"))
    three = rows_of(pack("\n\n".join(documents), 24, pairs="mixed", copies=3))
    assert three[: len(one)] == one
    firsts = " ".join(
        part for first, second in three for part in ([first, second] if second and first[0] == second[0] else [first])
    )
    assert firsts == " ".join(documents * 3)
    assert len(set(three) & set(one)) < len(one) * 1.1
    assert max(Counter(three).values()) <= 3
    assert len(set(three[len(one) :]) & set(one)) < len(one) / 10


def test_copies_of_single_texts_are_cut_elsewhere_too(pack: Pack) -> None:
    one = rows_of(pack("\n\n".join(alphabet(3, 200)), 24))
    two = rows_of(pack("\n\n".join(alphabet(3, 200)), 24, copies=2))
    assert two[: len(one)] == one
    assert len(set(two[len(one) :]) & set(one)) < len(one) / 3


def bytes_of(found: Corpus) -> list[bytes]:
    rows = found.rows
    return [np.asarray(array).tobytes() for array in (rows.input_ids, rows.offsets, rows.token_type_ids)]


HOW = {"pairs": "mixed", "short_rows": 0.2, "copies": 2, "mask": 0.15, "seed": 7}


def test_nothing_but_text_and_packing_decides_the_rows(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither batches of texts, nor blocks of rows, nor how much of a file is read at once; another seed does."""
    text = "\n\n".join(line.replace(" ", "\n", 9) for line in alphabet(12, 90))
    usual = bytes_of(pack(text, 24, **HOW))
    for texts, rows, ahead in ((1, 1, 1), (7, 3, 40), (1000, 10**6, 10**6)):
        monkeypatch.setattr(reading, "BATCH_TEXTS", texts)
        monkeypatch.setattr(packing, "BLOCK_ROWS", rows)
        monkeypatch.setattr(corpus, "AHEAD", ahead)
        assert bytes_of(pack(text, 24, **HOW)) == usual
    assert bytes_of(pack(text, 24, **HOW | {"seed": 8})) != usual


@pytest.mark.parametrize("file", ["documents.rows.json.tmp", "types.bin", "rows.json.tmp", "documents.ids.bin"])
def test_a_kill_anywhere_ends_with_the_same_files(tmp_path: Path, letters: PreTrainedTokenizerBase, file: str) -> None:
    """Before documents are whole, while rows are written, before these are whole, and while documents are removed."""
    path, how = tmp_path / "corpus.txt", Packing.model_validate(HOW)
    path.write_text("\n\n".join(alphabet(12, 90)), encoding="utf-8")
    whole, killed = (Spool(tmp_path / name / "building", "tokenizer", how) for name in ("whole", "killed"))
    pack_corpus(path, letters, 24, whole)
    event = "os.remove" if file == "documents.ids.bin" else "os.rename" if file.endswith("tmp") else "open"
    seen = []

    def hook(name: str, arguments: tuple[object, ...]) -> None:
        if name == event and str(arguments[0]).endswith(f"building/{file}"):
            seen.append(name)
            if len(seen) == (2 if event == "os.remove" else 1):
                os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(lambda: pack_corpus(path, letters, 24, killed), hook) == -signal.SIGKILL
    pack_corpus(path, letters, 24, killed)
    files = [{one.name: one.read_bytes() for one in spool.folder.iterdir()} for spool in (whole, killed)]
    assert files[0] == files[1]
    assert set(files[0]) == {"ids.bin", "offsets.bin", "types.bin", "rows.json"}


def test_tokens_are_used_again_where_packing_was_cut_off(tmp_path: Path, letters: PreTrainedTokenizerBase) -> None:
    path, spool = tmp_path / "corpus.txt", Spool(tmp_path / "spool", "tokenizer", Packing(pairs="random"))
    path.write_text("a b c d\n", encoding="utf-8")
    with pytest.raises(DataError):
        pack_corpus(path, letters, 8, spool)
    tokens = spool.folder / "documents.ids.bin"
    before = tokens.stat().st_ino
    again = Spool(spool.folder, "tokenizer", Packing(pairs="next"))
    os.link(tokens, tmp_path / "linked")
    pack_corpus(path, letters, 8, again)
    assert (tmp_path / "linked").stat().st_ino == before
    assert not tokens.exists()


def test_a_document_that_is_alone_has_no_other(pack: Pack, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match=r"is one document, and --pairs random takes .* give --pairs next") as caught:
        pack("a b c\nd e\n", pairs="random")
    assert "\n" not in str(caught.value)
    alone = pack("a b c\nd e f g\n", pairs="mixed")
    assert "is one document" in capsys.readouterr().err
    assert all(second is not None for _, second in rows_of(alone))
    assert " ".join(f"{first} {second}" for first, second in rows_of(alone)) == "a b c d e f g"


def test_one_word_alone_is_a_single_text_unless_there_is_another_document(pack: Pack) -> None:
    assert rows_of(pack("abc\n\nd e", pairs="next")) == [("abc", None), ("d", "e")]
    assert rows_of(pack("abc\n\nd", pairs="mixed")) == [("abc", "d"), ("d", "abc")]


@pytest.mark.parametrize("pairs", ["next", "random", "mixed"])
def test_a_word_longer_than_a_row_loses_no_letter(pack: Pack, pairs: str) -> None:
    """It is cut inside, and no row is too long."""
    text = f"a {'b' * 100} c\n\n{'d' * 50}"
    found = pack(text, 12, pairs=pairs, short_rows=0.5)
    assert found.rows.lengths.max() <= 12
    body = "".join(first + (second if second and pairs == "next" else "") for first, second in rows_of(found)).replace(
        " ", ""
    )
    if pairs != "mixed":
        assert body == text.replace(" ", "").replace("\n", "")


def test_a_tokenizer_without_types_has_pairs_on_request_and_no_types(pack: Pack) -> None:
    """RoBERTa's template puts two separators between the texts."""
    roberta = letters_tokenizer(with_types=False)
    roberta.backend_tokenizer.post_processor = processors.RobertaProcessing(("[SEP]", SEP), ("[CLS]", CLS))
    found = pack(TWO_DOCUMENTS, 9, roberta, pairs="next", seed=0)
    assert found.rows.token_type_ids is None
    rows = np.split(found.rows.input_ids, found.rows.offsets[1:-1])
    assert rows[1].tolist() == [CLS, WORD["d"], SEP, SEP, WORD["e"], SEP]


def test_masks_take_whole_words_at_their_share_and_leave_special_tokens(pack: Pack) -> None:
    text = "\n\n".join(alphabet(10, 650))
    plain, masked = (pack(text, 64, pairs="mixed", mask=mask) for mask in (0.0, 0.15))
    before, after = np.array(plain.rows.input_ids), np.array(masked.rows.input_ids)
    assert np.array_equal(plain.rows.offsets, masked.rows.offsets)
    special = before <= UNK
    assert np.array_equal(before[special], after[special])
    starts = (before < 31) & ~special
    changed = before != after
    assert abs(changed[~special].mean() - 0.15 * 0.9) < 0.01
    assert abs((after == MASK).mean() / (~special).mean() - 0.15 * 0.8) < 0.01
    # A word is masked or left alone: of a masked word of three pieces hardly any has none that changed.
    words = np.add.reduceat(changed & ~special, np.flatnonzero(starts))
    assert abs((words > 0).mean() - 0.15) < 0.01
    assert not (after[changed] <= UNK)[after[changed] != MASK].any(), "another piece is no special token"


def test_masks_need_a_token_for_it(pack: Pack) -> None:
    with pytest.raises(SpecError, match=r"--mask 0.15 needs a mask token"):
        pack("a b c", 8, letters_tokenizer(has_mask=False), mask=0.15)


def test_a_length_with_no_room_for_two_texts_is_refused(pack: Pack) -> None:
    assert rows_of(pack("a b\n\nc d", 5, pairs="next")) == [("a", "b"), ("c", "d")]
    with pytest.raises(SpecError, match=r"4 tokens at most leave no room .* of pairs; give at least 5"):
        pack("a b", 4, pairs="next")


def test_rows_are_pairs_as_the_tokenizer_that_ships_with_a_teacher_makes_them(
    tiny_tokenizer_dir: Path, pack: Pack
) -> None:
    bert = load_tokenizer(tiny_tokenizer_dir)
    documents = ["the film is charming", "its music is a waste"]
    rows = pack("\n\n".join(documents), 48, bert, pairs="next").rows
    assert rows.token_type_ids is not None
    for number, words in enumerate(map(str.split, documents)):
        row = slice(rows.offsets[number], rows.offsets[number + 1])
        made = [bert(" ".join(words[:cut]), " ".join(words[cut:])) for cut in range(1, len(words))]
        found = rows.input_ids[row].tolist(), rows.token_type_ids[row].tolist()
        assert found in [(one["input_ids"], one["token_type_ids"]) for one in made]


def test_the_packing_is_part_of_the_fingerprint_and_its_default_is_not(tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text("a b c")
    packings = [Packing(), Packing(pairs="next"), Packing(pairs="next", seed=1), Packing(copies=2), Packing(mask=0.1)]
    assert len({corpus_fingerprint(path, 16, one) for one in packings}) == 5
    # Nothing is drawn: the seed names no other rows.
    assert corpus_fingerprint(path, 16, Packing(seed=3)) == corpus_fingerprint(path, 16)
