"""Each word's candidates come from the right place: the masked LM, the vectors, or nowhere."""

import re
from typing import Any

import pytest

from hskcache.augment import Chance, Proposer, Sentence, WordVectors, eligible
from hskcache.augment import predict as predict_module
from hskcache.augment.copies import copies_of
from hskcache.augment.masked_lm import MaskedLM


def choices(sentence: Sentence) -> dict[str, tuple[str, set[str]]]:
    """Origin and candidates by the word as written."""
    return {sentence.text[slice(*c.span)]: (c.origin, set(c.words)) for c in sentence.choices}


def propose(text: str, words: str = "[a-z]+", stop_words: str = "english", **given: Any) -> Sentence:
    return Proposer(eligible(words, stop_words), **{"num_candidates": 2, **given}).propose([text])[0]


def test_one_piece_takes_the_masked_lm_several_pieces_the_vectors(lm: MaskedLM, vectors: WordVectors) -> None:
    """Stop words stay, and so does what has several pieces and no vector."""
    assert [lm.tokenizer.tokenize(word) for word in ("film", "plot")] == [["film"], ["plot"]]
    assert min(len(lm.tokenizer.tokenize(word)) for word in ("calm", "strange")) > 1
    sentence = propose("The Film is calm , but its plot is strange", masked_lm=lm, vectors=vectors)
    found = choices(sentence)
    assert {word: origin for word, (origin, _) in found.items()} == {
        "Film": "masked_lm",
        "calm": "vectors",
        "plot": "masked_lm",
    }
    assert found["calm"][1] == {"patient", "quiet"}
    assert (sentence.num_words, sentence.num_left) == (9, 1)


def test_the_vectors_alone_fold_to_lower_case(vectors: WordVectors) -> None:
    sentence = propose("A PATIENT, Dull film", vectors=vectors, num_candidates=1)
    assert choices(sentence) == {
        "PATIENT": ("vectors", {"calm"}),
        "Dull": ("vectors", {"quiet"}),
    }
    assert sentence.num_left == 1


def test_the_masked_lm_alone_leaves_words_of_several_pieces(lm: MaskedLM) -> None:
    sentence = propose("the film is calm", masked_lm=lm)
    assert list(choices(sentence)) == ["film"]
    assert sentence.num_left == 1


def test_a_word_among_its_own_candidates_is_as_it_is_written(lm: MaskedLM) -> None:
    sentence = propose("The FILM is dull", masked_lm=lm, num_candidates=10_000)
    _, words = choices(sentence)["FILM"]
    assert "FILM" in words
    assert "film" not in words
    assert len(words) == len(lm.words)


@pytest.mark.parametrize("text", ["the and of", "", "... 12 -", "don't n't 's", "don't can't"])
def test_a_text_without_eligible_words_has_no_choices(lm: MaskedLM, vectors: WordVectors, text: str) -> None:
    sentence = propose(text, masked_lm=lm, vectors=vectors)
    assert (sentence.choices, sentence.num_left) == ([], 0)


def test_other_alphabets_take_a_pattern_of_their_own(tmp_path: Any) -> None:
    from hskcache.augment import load_vectors

    path = tmp_path / "v.txt"
    path.write_text("кино 1 0\nфильм 1 0.1\nдом 0 1\nसुंदर 1 1\nअच्छा 1 1.1\n", encoding="utf-8")  # noqa: RUF001
    table = load_vectors(path)
    text = "Кино — это дом!"
    assert choices(propose(text, words="[a-z]+", vectors=table)) == {}
    assert choices(propose(text, words=r"\w+", vectors=table, num_candidates=1)) == {
        "Кино": ("vectors", {"фильм"}),
        "дом": ("vectors", {"अच्छा"}),
    }
    # Python's \w has no combining marks, so scripts with them take any word.
    assert choices(propose("यह सुंदर है", words=".+", vectors=table, num_candidates=1)) == {"सुंदर": ("vectors", {"अच्छा"})}


def test_a_word_the_tokenizer_does_not_know_is_no_single_piece(lm: MaskedLM, vectors: WordVectors) -> None:
    assert lm.tokenizer.tokenize("кино") == ["[UNK]"]
    sentence = propose("кино film", words=r"\w+", masked_lm=lm, vectors=vectors)
    assert list(choices(sentence)) == ["film"]
    assert sentence.num_left == 1


def test_the_same_word_in_two_places_is_asked_twice_and_answers_differ(lm: MaskedLM) -> None:
    sentence = propose("film the small old plot film", masked_lm=lm, stop_words="none", num_candidates=10)
    first, last = (set(c.words) for c in sentence.choices if sentence.text[slice(*c.span)] == "film")
    assert first != last


def test_texts_together_are_proposed_as_each_alone(lm: MaskedLM, vectors: WordVectors, texts: list[str]) -> None:
    for batch_size in (1, 7, 64):
        proposer = Proposer(eligible("[a-z]+", "none"), 5, lm, vectors, batch_size)
        together = proposer.propose(texts[:20])
        assert together == [proposer.propose([text])[0] for text in texts[:20]]
        assert proposer.propose([]) == []


def test_of_a_possessive_the_word_is_asked_for_and_the_ending_stays(lm: MaskedLM, vectors: WordVectors) -> None:
    """As if the ending stood apart; without possessives the word is none of letters alone."""
    text = "the film's plot, Calm's cast"
    sentence = propose(text, masked_lm=lm, vectors=vectors)
    assert {word: origin for word, (origin, _) in choices(sentence).items()} == {
        "film": "masked_lm",
        "plot": "masked_lm",
        "Calm": "vectors",
        "cast": "masked_lm",
    }
    for copy in copies_of(0, [sentence], Chance(5, 1.0, 0))[1:]:
        assert re.fullmatch(r"the .+'s .+, (patient|quiet)'s .+", copy.texts[0])
    before = Proposer(eligible("[a-z]+", "english", possessives=False), 2, lm, vectors).propose([text])[0]
    assert list(choices(before)) == ["plot", "cast"]
    assert (before.num_words, [c.number for c in before.choices]) == (sentence.num_words, [2, 4])


def test_a_text_of_many_lines_and_long_ones_keep_their_places(lm: MaskedLM) -> None:
    """A word 300 tokens into a text is masked in a window of its own."""
    text = "\n".join(["the cast , the music !"] * 60) + "\tplot"
    sentence = propose(text, masked_lm=lm, num_candidates=4)
    assert len(sentence.choices) == 121
    assert sentence.text[slice(*sentence.choices[-1].span)] == "plot"
    places = Proposer(eligible("[a-z]+", "english"), 4, lm).masked_texts([text])
    assert {len(place) for place in places} == {lm.max_length}
    assert all(place.input_ids[place.position] == lm.tokenizer.mask_token_id for place in places)
    assert len(predict_module.best_ids(lm, places[-1:], 4, 1)[0]) == 4
