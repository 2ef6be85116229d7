"""Logits of rows in batches are those of each row alone."""

import dataclasses

import numpy as np
import pytest
import torch
from drawn import BERT, SHAPE, bert, rows_of
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    DistilBertConfig,
    DistilBertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from hskcache.encoder import num_positions, takes_token_types
from hskcache.errors import MismatchError
from hskcache.inference import length_batches, pad_batch, predict


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 200))
def test_batches_cover_every_row_once_within_the_budget_longest_first(lengths: list[int], budget: int) -> None:
    batches = list(length_batches(np.array(lengths, np.int64), budget))
    flat = [int(row) for batch in batches for row in batch]
    assert sorted(flat) == list(range(len(lengths)))
    assert [lengths[row] for row in flat] == sorted(lengths, reverse=True)
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= budget


def test_a_batch_is_padded_to_its_longest_row_and_keeps_the_order_asked_for() -> None:
    rows = rows_of([2, 5, 3])
    batch = pad_batch(rows, np.array([2, 0]), pad_token_id=39)
    assert batch["input_ids"].tolist() == [rows.input_ids[7:10].tolist(), [*rows.input_ids[0:2].tolist(), 39]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert rows.token_type_ids is not None
    assert batch["token_type_ids"].tolist() == [rows.token_type_ids[7:10].tolist(), [*rows.token_type_ids[0:2], 0]]


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=9), st.sampled_from([1, 16, 8192]))
def test_logits_are_those_of_each_row_alone_in_row_order(lengths: list[int], budget: int) -> None:
    model, rows = bert(num_labels=3).eval(), rows_of(lengths)
    logits = predict(model, rows, pad_token_id=0, token_budget=budget)
    assert logits.dtype == np.float32
    for index in range(len(lengths)):
        with torch.no_grad():
            alone = model(**pad_batch(rows, np.array([index]), 0)).logits[0]
        np.testing.assert_allclose(logits[index], alone.numpy(), atol=1e-5)


def test_no_rows_give_no_logits() -> None:
    assert predict(bert(num_labels=3), rows_of([]), pad_token_id=0).shape == (0, 3)


def test_prediction_turns_dropout_off_and_restores_every_module_s_mode() -> None:
    model = bert(hidden_dropout_prob=0.5).train()
    model.bert.pooler.eval()
    before = {name: module.training for name, module in model.named_modules()}
    first = predict(model, rows_of([5, 6]), pad_token_id=0)
    second = predict(model, rows_of([5, 6]), pad_token_id=0)
    np.testing.assert_array_equal(first, second)
    assert {name: module.training for name, module in model.named_modules()} == before


def test_the_mode_is_restored_when_prediction_fails() -> None:
    model = bert().train()
    bad = dataclasses.replace(rows_of([3]), token_type_ids=np.full(3, 7, np.uint8))
    with pytest.raises(IndexError):
        predict(model, bad, pad_token_id=0)
    assert model.training


def test_bfloat16_logits_are_float32_and_near() -> None:
    model, rows = bert(initializer_range=0.1), rows_of([4, 9, 2])
    exact = predict(model, rows, pad_token_id=0)
    rough = predict(model, rows, pad_token_id=0, bf16=True)
    assert rough.dtype == np.float32
    assert not np.array_equal(rough, exact)
    np.testing.assert_allclose(rough, exact, atol=0.05)


def test_token_types_reach_models_that_have_them_and_no_others() -> None:
    rows = rows_of([6, 4])
    blank = dataclasses.replace(rows, token_type_ids=None)
    roberta = RobertaForSequenceClassification(RobertaConfig(**SHAPE | BERT, type_vocab_size=1))
    distilbert = DistilBertForSequenceClassification(
        DistilBertConfig(**SHAPE, dim=16, hidden_dim=16, n_layers=1, n_heads=2)
    )
    for model, expected in ((bert(), True), (roberta, False), (distilbert, False)):
        assert takes_token_types(model) is expected
        with_types, without = (predict(model, data, pad_token_id=0) for data in (rows, blank))
        assert np.array_equal(with_types, without) is not expected


def test_a_row_longer_than_the_positions_is_refused_before_computing() -> None:
    bert_model = bert(max_position_embeddings=8)
    roberta = RobertaForSequenceClassification(
        RobertaConfig(**SHAPE | BERT | {"pad_token_id": 1}, max_position_embeddings=8)
    )
    for model, positions in ((bert_model, 8), (roberta, 6)):
        assert num_positions(model) == positions
        predict(model, rows_of([positions]), pad_token_id=0)
        with pytest.raises(MismatchError, match=f"{positions + 1} tokens.*--max-length {positions}"):
            predict(model, rows_of([positions + 1]), pad_token_id=0)


def test_a_token_id_outside_the_vocabulary_is_refused() -> None:
    with pytest.raises(MismatchError, match="tokenizer"):
        predict(bert(vocab_size=10), rows_of([30]), pad_token_id=0)
