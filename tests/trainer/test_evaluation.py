import dataclasses
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from hskcache.encoder import num_positions
from hskcache.errors import DataError, MismatchError, SpecError
from hskcache.text import Examples, TokenizedRows, load_task, task_names
from trainer.evaluation import (
    METRICS,
    evaluate,
    length_batches,
    metrics_for,
    pad_batch,
    predict,
    takes_token_types,
)

SHAPE = {"vocab_size": 40, "pad_token_id": 0}
BERT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}


def rows_of(lengths: list[int], seed: int = 0) -> TokenizedRows:
    draw = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    total = int(offsets[-1])
    ids, types = draw.integers(1, 40, total, dtype=np.int32), draw.integers(0, 2, total).astype(np.uint8)
    return TokenizedRows(ids, offsets, types, frozenset())


def examples_of(labels: list[float] | None, problem: str = "classification") -> Examples:
    dtype = np.int64 if problem == "classification" else np.float32
    values = None if labels is None else np.array(labels, dtype)
    texts = ["x"] * (len(labels) if labels else 1)
    return Examples(texts, None, values, ("0", "1"), problem, "rows.tsv", None, "")


def bert(**changes: object) -> PreTrainedModel:
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(**SHAPE | BERT | {"initializer_range": 0.5} | changes))


def set_logits(model: PreTrainedModel, bias: list[float]) -> PreTrainedModel:
    torch.nn.init.zeros_(model.classifier.weight)
    model.classifier.bias.data = torch.tensor(bias)
    return model


PREDICTED, LABELS = np.array([1, 1, 1, 0, 0, 0, 0, 1]), np.array([1, 1, 0, 0, 0, 1, 0, 1])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("accuracy", 6 / 8),
        ("f1", 2 * 3 / (2 * 3 + 1 + 1)),
        ("accuracy_f1", (6 / 8 + 0.75) / 2),
        ("f1_macro", (0.75 + 0.75) / 2),
        ("matthews", (3 * 3 - 1 * 1) / 16),
    ],
)
def test_class_metrics_follow_their_definitions(name: str, expected: float) -> None:
    assert METRICS[name](PREDICTED, LABELS) == pytest.approx(expected)


def test_f1_scores_class_1_alone_and_f1_macro_all_classes() -> None:
    predicted, labels = np.array([0, 1, 2, 2]), np.array([0, 1, 2, 1])
    assert METRICS["f1"](predicted, labels) == pytest.approx(2 / 3)
    assert METRICS["f1_macro"](predicted, labels) == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)


def test_spearman_ranks_and_pearson_does_not() -> None:
    labels = np.array([1, 2, 3, 4], np.float32)
    assert METRICS["spearman"](labels**4, labels) == pytest.approx(1.0)
    linear = np.corrcoef(labels**4, labels)[0, 1]
    assert METRICS["pearson"](labels**4, labels) == pytest.approx(linear)
    assert METRICS["pearson_spearman"](labels**4, labels) == pytest.approx((linear + 1) / 2)


@pytest.mark.parametrize("name", ["matthews", "pearson", "spearman", "f1"])
@pytest.mark.parametrize("constant", ["predictions", "labels", "both"])
def test_a_constant_side_scores_zero_without_a_warning(name: str, constant: str) -> None:
    varied, flat = np.array([0, 2, 0, 2]), np.zeros(4, dtype=np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predictions = varied if constant == "labels" else flat
        assert METRICS[name](predictions, varied if constant == "predictions" else flat) == 0.0


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_correlations_of_hopeless_predictions_are_zero(name: str) -> None:
    labels = np.array([1, 2, 3], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert METRICS[name](np.array([1, np.nan, 2], np.float32), labels) == 0.0
        assert METRICS[name](np.array([1, np.inf, 2], np.float32), labels) == 0.0
        assert METRICS[name](labels[:1], labels[:1]) == 0.0


def test_metrics_keep_the_order_asked_for() -> None:
    assert list(metrics_for("classification", ["matthews", "accuracy"])) == ["matthews", "accuracy"]
    assert next(iter(metrics_for("regression"))) == "pearson"
    assert list(metrics_for("classification", ["f1", "accuracy"], "accuracy")) == ["accuracy", "f1"]
    assert list(metrics_for("regression", ["spearman"], "pearson_spearman")) == ["pearson_spearman", "spearman"]
    with pytest.raises(SpecError, match=r"'acuracy' is not a metric .*matthews; do you mean 'accuracy'\?"):
        metrics_for("classification", first="acuracy")


@pytest.mark.parametrize(("problem", "name"), [("classification", "bleu"), ("regression", "accuracy")])
def test_a_metric_that_does_not_fit_is_refused_with_those_that_do(problem: str, name: str) -> None:
    with pytest.raises(
        SpecError, match=f"'{name}'.*choose among {'pearson' if problem == 'regression' else 'accuracy'}"
    ):
        metrics_for(problem, [name])


def test_every_task_preset_names_metrics_that_exist() -> None:
    for name in task_names():
        task = load_task(name)
        assert list(metrics_for(task.problem, task.metrics)) == task.metrics


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
    logits = predict(model, rows, pad_token_id=0, device="cpu", token_budget=budget)
    assert logits.dtype == np.float32
    for index in range(len(lengths)):
        with torch.no_grad():
            alone = model(**pad_batch(rows, np.array([index]), 0)).logits[0]
        np.testing.assert_allclose(logits[index], alone.numpy(), atol=1e-5)


def test_no_rows_give_no_logits() -> None:
    assert predict(bert(num_labels=3), rows_of([]), pad_token_id=0, device="cpu").shape == (0, 3)


def test_prediction_turns_dropout_off_and_restores_every_module_s_mode() -> None:
    model = bert(hidden_dropout_prob=0.5).train()
    model.bert.pooler.eval()
    before = {name: module.training for name, module in model.named_modules()}
    first = predict(model, rows_of([5, 6]), pad_token_id=0, device="cpu")
    second = predict(model, rows_of([5, 6]), pad_token_id=0, device="cpu")
    np.testing.assert_array_equal(first, second)
    assert {name: module.training for name, module in model.named_modules()} == before


def test_the_mode_is_restored_when_prediction_fails() -> None:
    model = bert().train()
    bad = dataclasses.replace(rows_of([3]), token_type_ids=np.full(3, 7, np.uint8))
    with pytest.raises(IndexError):
        predict(model, bad, pad_token_id=0, device="cpu")
    assert model.training


def test_bfloat16_logits_are_float32_and_near() -> None:
    model, rows = bert(initializer_range=0.1), rows_of([4, 9, 2])
    exact = predict(model, rows, pad_token_id=0, device="cpu")
    rough = predict(model, rows, pad_token_id=0, device="cpu", bf16=True)
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
        with_types, without = (predict(model, data, pad_token_id=0, device="cpu") for data in (rows, blank))
        assert np.array_equal(with_types, without) is not expected


def test_a_row_longer_than_the_positions_is_refused_before_computing() -> None:
    bert_model = bert(max_position_embeddings=8)
    roberta = RobertaForSequenceClassification(
        RobertaConfig(**SHAPE | BERT | {"pad_token_id": 1}, max_position_embeddings=8)
    )
    for model, positions in ((bert_model, 8), (roberta, 6)):
        assert num_positions(model) == positions
        predict(model, rows_of([positions]), pad_token_id=0, device="cpu")
        with pytest.raises(MismatchError, match=f"{positions + 1} tokens.*--max-length {positions}"):
            predict(model, rows_of([positions + 1]), pad_token_id=0, device="cpu")


def test_a_token_id_outside_the_vocabulary_is_refused() -> None:
    with pytest.raises(MismatchError, match="tokenizer"):
        predict(bert(vocab_size=10), rows_of([30]), pad_token_id=0, device="cpu")


def test_evaluation_takes_the_largest_logit() -> None:
    model = set_logits(bert(num_labels=3), [0.0, 2.0, 1.0])
    examples, rows = examples_of([1, 1, 2, 0]), rows_of([3, 4, 5, 6])
    assert evaluate(model, examples, rows, metrics_for("classification", ["accuracy"])) == {"accuracy": 0.5}


def test_rows_without_finite_logits_count_as_wrong() -> None:
    model = set_logits(bert(), [float("nan"), 0.0])
    values = evaluate(model, examples_of([0, 0]), rows_of([3, 4]), metrics_for("classification", ["accuracy", "f1"]))
    assert values == {"accuracy": 0.0, "f1": 0.0}


def test_a_regression_is_scored_on_its_single_output() -> None:
    model, rows = bert(num_labels=1), rows_of([3, 4, 5, 6])
    scores = predict(model, rows, pad_token_id=0, device="cpu")[:, 0]
    examples = examples_of((2 * scores + 1).tolist(), "regression")
    assert evaluate(model, examples, rows, metrics_for("regression"))["pearson"] == pytest.approx(1.0)


@pytest.mark.parametrize("labels", [None, []])
def test_evaluation_needs_labelled_rows(labels: list[float] | None) -> None:
    with pytest.raises(DataError, match=r"rows\.tsv has no (labels|rows)"):
        evaluate(bert(), examples_of(labels), rows_of([3]), metrics_for("classification"))


def test_a_label_that_is_no_class_of_the_model_is_refused() -> None:
    with pytest.raises(MismatchError, match=r"class 2 .* 2 classes"):
        evaluate(bert(), examples_of([0, 2]), rows_of([3, 3]), metrics_for("classification"))


def test_rows_in_the_form_of_glue_can_be_scored(glue: Path, tiny_teacher_dir: Path) -> None:
    """CoLA has no header and its metric is Matthews correlation."""
    from sklearn.metrics import matthews_corrcoef

    from hskcache.text import examples_for, load_tokenizer, tokenize

    task = load_task("cola")
    examples = examples_for(glue / "CoLA" / "dev.tsv", task)
    rows = tokenize(examples, load_tokenizer(tiny_teacher_dir), 32)
    model = BertForSequenceClassification.from_pretrained(tiny_teacher_dir)
    values = evaluate(model, examples, rows, metrics_for(task.problem, task.metrics))
    assert list(values) == ["matthews", "accuracy"]
    answers = predict(model, rows, pad_token_id=0, device="cpu").argmax(axis=1)
    assert values["matthews"] == pytest.approx(matthews_corrcoef(examples.labels, answers))
