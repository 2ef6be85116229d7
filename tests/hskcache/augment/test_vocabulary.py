"""Which pieces begin words, in every kind of vocabulary."""

from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hskcache.augment.masked_lm import MaskedLM
from hskcache.augment.vocabulary import fold, word_pieces
from hskcache.errors import TeacherError

SPECIAL = ("<s>", "</s>", "<unk>", "<mask>", "<pad>")


def tokenizer_of(model: Any, **steps: Any) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(model)
    for name, step in steps.items():
        setattr(tokenizer, name, step)
    names = ("bos_token", "eos_token", "unk_token", "mask_token", "pad_token")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **dict(zip(names, SPECIAL, strict=True)))


def numbered(*pieces: str) -> dict[str, int]:
    return {piece: number for number, piece in enumerate((*SPECIAL, *pieces))}


def test_wordpiece_drops_special_and_continuing_pieces(lm: MaskedLM) -> None:
    words = word_pieces(lm.tokenizer, "m")
    vocabulary = lm.tokenizer.get_vocab()
    expected = {piece for piece in vocabulary if not piece.startswith(("##", "["))}
    assert set(words.values()) == expected
    assert len(expected) < len(vocabulary) - 5
    assert all(vocabulary[word] == number for number, word in words.items())


def test_byte_level_bpe_takes_marked_pieces_that_are_whole_characters() -> None:
    vocabulary = numbered("film", "Ġfilm", "ĠFilm", "Ġ", "ĠÃ©tÃ©", "ĠÃ", "Ġ.", "Ċ", "ĠĠ")
    tokenizer = tokenizer_of(
        models.BPE(vocabulary, [], unk_token="<unk>"),
        pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=False),
        decoder=decoders.ByteLevel(),
    )
    assert sorted(word_pieces(tokenizer, "m").values()) == [".", "Film", "film", "été"]
    assert fold(tokenizer, "Film") == "Film"


@pytest.mark.parametrize("as_normalizer", [False, True])
def test_sentencepiece_takes_marked_pieces(as_normalizer: bool) -> None:
    pieces = [*SPECIAL, "▁film", "film", "▁", "▁a▁b", "▁été", "s"]
    lower = [normalizers.NFKC(), normalizers.Lowercase()]
    steps: dict[str, Any] = {"pre_tokenizer": pre_tokenizers.Metaspace(), "normalizer": normalizers.Sequence(lower)}
    if as_normalizer:
        marks = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        steps = {"normalizer": normalizers.Sequence([*lower, *marks])}
    tokenizer = tokenizer_of(models.Unigram([(piece, -1.0) for piece in pieces], unk_id=2), **steps)
    assert sorted(word_pieces(tokenizer, "m").values()) == ["film", "été"]
    assert fold(tokenizer, "FILM") == "film"


def test_a_list_of_words_is_taken_whole() -> None:
    tokenizer = tokenizer_of(models.WordLevel(numbered("film", "##s"), unk_token="<unk>"))
    assert sorted(word_pieces(tokenizer, "m").values()) == ["##s", "film"]


def test_a_vocabulary_that_hides_where_words_begin_is_refused() -> None:
    tokenizer = tokenizer_of(
        models.BPE(numbered("film</w>", "fi"), [], unk_token="<unk>", end_of_word_suffix="</w>"),
        pre_tokenizer=pre_tokenizers.Whitespace(),
    )
    with pytest.raises(TeacherError, match="the BPE vocabulary of m does not mark where words begin"):
        word_pieces(tokenizer, "m")


def test_an_uncased_tokenizer_folds_case_and_accents(lm: MaskedLM) -> None:
    assert fold(lm.tokenizer, "CAFÉ") == "cafe"
