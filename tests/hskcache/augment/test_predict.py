"""The masked LM's candidates are those of a plain, unbatched call, in batches of every size."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hskcache.augment import predict
from hskcache.augment.masked_lm import MaskedLM
from hskcache.augment.predict import MaskedText, batches, best_ids, masked_text
from hskcache.errors import TeacherError


def ids_of(lm: MaskedLM, text: str) -> np.ndarray:
    return np.array(lm.tokenizer(text, add_special_tokens=False)["input_ids"], np.int64)


def plain_best(lm: MaskedLM, text: str, word: str, num_best: int) -> list[str]:
    """By the tokenizer's own pair, the whole logits and a sort."""
    pair = lm.tokenizer(text.replace(word, "[MASK]", 1), text, return_tensors="pt")
    with torch.inference_mode():
        logits = lm.model(**pair).logits[0, (pair["input_ids"][0] == lm.tokenizer.mask_token_id).nonzero()[0, 0]]
    pieces = lm.tokenizer.convert_ids_to_tokens(logits.argsort(descending=True).tolist())
    return [piece for piece in pieces if not piece.startswith(("##", "["))][:num_best]


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_candidates_are_those_of_plain_calls(lm: MaskedLM, texts: list[str], batch_size: int) -> None:
    asked = []
    for text in texts[:24]:
        for word in text.split():
            ids = ids_of(lm, word)
            if len(ids) == 1 and text.count(word) == 1:
                asked.append((text, word, int(np.flatnonzero(ids_of(lm, text) == ids[0])[0])))
    assert len({len(ids_of(lm, text)) for text, _, _ in asked}) > 4
    places = [masked_text(lm, ids_of(lm, text), position) for text, _, position in asked]
    found = best_ids(lm, places, 6, batch_size)
    for (text, word, _), ids in zip(asked, found, strict=True):
        assert {lm.words[int(number)] for number in ids} == set(plain_best(lm, text, word, 6))
        assert ids.tolist() == sorted(ids.tolist())


def test_as_many_candidates_as_words_are_all_words(lm: MaskedLM) -> None:
    place = masked_text(lm, ids_of(lm, "the film is dull"), 1)
    for num_best in (len(lm.words), 10_000):
        assert best_ids(lm, [place], num_best, 8)[0].tolist() == sorted(lm.words)
    assert len(best_ids(lm, [place], len(lm.words) - 1, 8)[0]) == len(lm.words) - 1


def test_the_input_is_the_masked_sentence_and_the_full_one(lm: MaskedLM) -> None:
    place = masked_text(lm, ids_of(lm, "the film is dull"), 1)
    tokens = lm.tokenizer.convert_ids_to_tokens(place.input_ids)
    assert tokens == ["[CLS]", "the", "[MASK]", "is", "dull", "[SEP]", "the", "film", "is", "dull", "[SEP]"]
    assert place.token_type_ids.tolist() == [0] * 6 + [1] * 5
    assert place.position == 2


@pytest.mark.parametrize("length", [1, 29, 30, 31, 32, 40, 60, 61, 62, 63, 200])
def test_long_sentences_lose_their_second_copy_and_then_all_but_a_window(lm: MaskedLM, length: int) -> None:
    """The tiny model reads 64 tokens, 61 of them text."""
    mask, ids = lm.tokenizer.mask_token_id, np.arange(5, 5 + length) % 100 + 5
    for position in {0, length // 3, length // 2, length - 1}:
        place = masked_text(lm, ids, position)
        assert len(place) == len(place.token_type_ids) == min(2 * length + 3, 64)
        assert place.input_ids[place.position] == mask
        first = place.input_ids[1 : 1 + min(length, 61)]
        shown = np.where(first == mask, ids[position], first)
        start = position - (place.position - 1)
        assert np.array_equal(shown, ids[start : start + len(first)])
        second = place.input_ids[2 + len(first) : -1]
        assert np.array_equal(second, ids[: len(second)])
        assert len(best_ids(lm, [place], 5, 64)[0]) == 5


@given(
    lengths=st.lists(st.integers(1, 300), max_size=60),
    batch_size=st.integers(1, 20),
)
def test_batches_hold_every_text_once_within_their_bounds(lengths: list[int], batch_size: int) -> None:
    texts = [MaskedText(np.zeros(length, np.int64), np.zeros(length, np.int64), 0) for length in lengths]
    found = list(batches(texts, batch_size))
    assert sorted(number for batch in found for number in batch) == list(range(len(texts)))
    for batch in found:
        assert len(batch) <= batch_size
        assert len(batch) == 1 or len(batch) * max(lengths[number] for number in batch) <= 128 * batch_size


def test_a_close_call_is_decided_alone_by_the_lower_id(lm: MaskedLM) -> None:
    """Words with the same output weights are equally likely everywhere; the noise of batches may not choose."""
    model = copy.deepcopy(lm.model)
    place = masked_text(lm, ids_of(lm, "the film is dull"), 1)
    other = masked_text(lm, ids_of(lm, "an old tale is a waste from start to end"), 2)
    order = best_ids(lm, [place], 1, 1)[0]
    best = int(order[0])
    twins = sorted([best, next(number for number in sorted(lm.words) if number != best)])
    with torch.no_grad():
        decoder = model.cls.predictions.decoder
        decoder.weight = torch.nn.Parameter(decoder.weight.clone())
        decoder.bias = torch.nn.Parameter(decoder.bias.clone())
        for twin in twins:
            decoder.weight[twin], decoder.bias[twin] = decoder.weight[best].clone(), decoder.bias[best].clone()
    tied = dataclasses.replace(lm, model=model)
    for together in ([place], [place, other], [other] * 9 + [place]):
        for batch_size in (1, 4, 64):
            found = best_ids(tied, together, 1, batch_size)[together.index(place)]
            assert found.tolist() == twins[:1]


def test_only_close_calls_are_computed_alone(lm: MaskedLM, texts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    places = [masked_text(lm, ids_of(lm, text), 1) for text in texts[:30]]
    calls: list[MaskedText] = []
    alone = predict._alone

    def count(lm: MaskedLM, text: MaskedText, wanted: int) -> np.ndarray:
        calls.append(text)
        return alone(lm, text, wanted)

    monkeypatch.setattr(predict, "_alone", count)
    best = best_ids(lm, places, 6, 16)
    assert len(calls) < len(places) / 4
    calls.clear()
    monkeypatch.setattr(predict, "TOLERANCE", 1e9)
    assert [ids.tolist() for ids in best_ids(lm, places, 6, 16)] == [ids.tolist() for ids in best]
    assert len(calls) == len(places)


def test_logits_that_are_not_finite_are_refused(lm: MaskedLM) -> None:
    model = copy.deepcopy(lm.model)
    with torch.no_grad():
        model.cls.predictions.transform.dense.bias[0] = torch.nan
    place = masked_text(lm, ids_of(lm, "the film is dull"), 1)
    with pytest.raises(TeacherError, match="logits that are not finite"):
        best_ids(dataclasses.replace(lm, model=model), [place], 5, 8)
