import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn import bert, rows_of
from transformers import BertForSequenceClassification, PreTrainedModel

from hskcache.errors import DataError, MismatchError, SpecError
from hskcache.evaluation import Scores, evaluate, share_kept
from hskcache.inference import predict
from hskcache.metrics import METRICS, metrics_for
from hskcache.text import Examples, load_task, task_names


def examples_of(labels: list[float] | None, problem: str = "classification") -> Examples:
    dtype = np.int64 if problem == "classification" else np.float32
    values = None if labels is None else np.array(labels, dtype)
    texts = ["x"] * (len(labels) if labels else 1)
    return Examples(texts, None, values, ("0", "1"), problem, "rows.tsv", None, "")


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


@pytest.mark.parametrize(
    ("problem", "given", "name"),
    [
        ("classification", "MCC", "matthews"),
        ("classification", "matthews_correlation", "matthews"),
        ("classification", "acc", "accuracy"),
        ("classification", "macro-f1", "f1_macro"),
        ("classification", "acc_and_f1", "accuracy_f1"),
        ("regression", "spearmanr", "spearman"),
        ("regression", "corr", "pearson_spearman"),
        ("regression", "acc", None),
    ],
)
def test_a_metric_by_the_name_of_another_library_is_answered_with_ours(
    problem: str, given: str, name: str | None
) -> None:
    with pytest.raises(SpecError) as caught:
        metrics_for(problem, first=given)
    assert str(caught.value).startswith(f"--metric {given!r} is not a metric of a {problem} task; choose among ")
    assert str(caught.value).rpartition("; ")[2].startswith(f"do you mean {name!r}" if name else "choose among")


def test_every_task_preset_names_metrics_that_exist() -> None:
    for name in task_names():
        task = load_task(name)
        assert list(metrics_for(task.problem, task.metrics)) == task.metrics


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
    scores = predict(model, rows, pad_token_id=0)[:, 0]
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
    answers = predict(model, rows, pad_token_id=0).argmax(axis=1)
    assert values["matthews"] == pytest.approx(matthews_corrcoef(examples.labels, answers))


def test_the_bootstrap_tells_what_the_binomial_formula_does_where_both_apply() -> None:
    """Under another name accuracy is resampled; 100 samples tell a standard error to about 7 percent."""
    draw = np.random.default_rng(1)
    labels = draw.integers(0, 2, 400)
    predicted = np.where(draw.random(400) < 0.8, labels, 1 - labels)
    scores = Scores({name: METRICS["accuracy"](predicted, labels) for name in ("accuracy", "again")})
    scores.compared, scores.metrics = (predicted, labels), dict.fromkeys(scores, METRICS["accuracy"])
    told = scores.uncertainty()
    share = scores["accuracy"]
    assert told["num_rows"] == 400
    assert told["standard_errors"]["accuracy"] == pytest.approx((share * (1 - share) / 400) ** 0.5)
    assert told["standard_errors"]["again"] == pytest.approx(told["standard_errors"]["accuracy"], rel=0.25)
    assert told == scores.uncertainty(), "drawn alike every time"
    assert Scores().uncertainty() == {}


def test_a_share_of_the_teachers_score_is_told_only_where_there_is_one() -> None:
    assert share_kept({"accuracy": 0.6}, {"accuracy": 0.8}, "accuracy") == pytest.approx(0.75)
    assert share_kept({"matthews": 0.1}, {"matthews": -0.1}, "matthews") is None
    assert share_kept({"accuracy": 0.6}, {}, "accuracy") is None
