"""Which level is best, and how all are told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.stark.confidence import Confidence
from trainer.stark.results import results_of, table
from trainer.stark.settings import DENSE, KNOWLEDGE, OTHERS, Level

BERT_BASE = (144, 36864)
LEVELS = st.builds(Level, st.sampled_from((KNOWLEDGE, *OTHERS)), st.integers(1, 99))
SCORES = st.sampled_from([0.25, 0.5, 0.75])


@given(st.dictionaries(LEVELS, SCORES), SCORES)
def test_the_best_is_of_the_method_itself_and_of_equals_removes_least(others: dict[Level, float], dense: float) -> None:
    """Of its levels none scores higher, and none that scores as high removes less."""
    found = results_of("f1", BERT_BASE, 9, {level: {"f1": score} for level, score in (others | {DENSE: dense}).items()})
    best, own = found.best, [row for row in found.rows if row.method == KNOWLEDGE]
    assert best in own
    assert all(
        found.score(row) < found.score(best) or (found.score(row) == found.score(best) and row.percent >= best.percent)
        for row in own
    )
    assert found.dense.field == "logits"
    assert len(found.rows) == len(others) + 1


def test_rows_tell_what_was_removed() -> None:
    """The counts of BERT-base that the paper's levels give."""
    levels = [DENSE, *(Level(KNOWLEDGE, percent) for percent in range(10, 100, 10))]
    rows = results_of("accuracy", BERT_BASE, 9, {level: {"accuracy": 0.5} for level in reversed(levels)}).rows
    assert [row.percent for row in rows] == list(range(0, 100, 10))
    assert [row.heads_removed for row in rows] == [0, 14, 29, 43, 58, 72, 86, 101, 115, 130]
    assert [row.neurons_removed for row in rows] == [
        *[0, 3686, 7373, 11059, 14746, 18432, 22118, 25805, 29491, 33178],
    ]


def test_the_record_names_the_best_and_every_row() -> None:
    scores = {DENSE: {"f1": 0.5, "accuracy": 0.9}, Level("plain", 20): {"f1": 0.8, "accuracy": 0.1}}
    known = {"plain-s20": Confidence(0.25, -0.5), "s30": Confidence(0, 0)}
    assert results_of("f1", (4, 10), 9, scores).with_confidences(known).to_json() == {
        "metric": "f1",
        "heads": 4,
        "neurons": 10,
        "num_evaluated": 9,
        "standard_error": None,
        "best": {"method": "knowledge", "percent": 0, "field": "logits"},
        "rows": [
            {
                "method": "knowledge",
                "percent": 0,
                "field": "logits",
                "heads_removed": 0,
                "neurons_removed": 0,
                "metrics": {"f1": 0.5, "accuracy": 0.9},
                "at_chance": False,
                "confidence": None,
            },
            {
                "method": "plain",
                "percent": 20,
                "field": "plain-s20",
                "heads_removed": 1,
                "neurons_removed": 2,
                "metrics": {"f1": 0.8, "accuracy": 0.1},
                "at_chance": False,
                "confidence": {"variance": 0.25, "negative_entropy": -0.5},
            },
        ],
    }


def test_the_table_shows_every_metric_what_is_kept_and_the_distance_to_level_0() -> None:
    scores = {DENSE: {"f1": 0.5, "accuracy": 0.25}, Level(KNOWLEDGE, 50): {"f1": 0.625, "accuracy": 0.125}}
    assert table(results_of("f1", BERT_BASE, 9, scores)).splitlines() == [
        "sparsity  heads kept  neurons kept      f1  accuracy  to level 0",
        "     0 %         144        36,864  0.5000    0.2500",
        "    50 %          72        18,432  0.6250    0.1250     +0.1250  best",
    ]


def test_the_table_shows_how_sure_the_teachers_are_as_far_as_that_is_known() -> None:
    scores = {DENSE: {"f1": 0.5}, Level(KNOWLEDGE, 50): {"f1": 0.625}}
    found = results_of("f1", (4, 8), 9, scores).with_confidences({"logits": Confidence(0.21, -0.25), "s50": None})
    assert table(found).splitlines() == [
        "sparsity  heads kept  neurons kept  variance  -entropy      f1  to level 0",
        "     0 %           4             8    0.2100   -0.2500  0.5000",
        "    50 %           2             4                      0.6250     +0.1250  best",
    ]


def test_the_table_of_several_methods_names_them() -> None:
    scores = {DENSE: {"f1": 0.5}, Level(KNOWLEDGE, 50): {"f1": 0.375}, Level("random", 50): {"f1": 0.75}}
    assert table(results_of("f1", (4, 8), 9, scores)).splitlines() == [
        "ranked by  sparsity  heads kept  neurons kept      f1  to level 0",
        "                0 %           4             8  0.5000              best",
        "knowledge      50 %           2             4  0.3750     -0.1250",
        "random         50 %           2             4  0.7500     +0.2500",
    ]


def test_the_standard_error_is_that_of_a_share_and_of_accuracy_alone() -> None:
    """277 rows, those of RTE, and 60 % right."""
    scores = {DENSE: {"accuracy": 0.6, "f1": 0.6}, Level(KNOWLEDGE, 20): {"accuracy": 0.9, "f1": 0.9}}
    error = results_of("accuracy", (4, 8), 277, scores).standard_error
    assert error is not None
    assert abs(error - 0.029435) < 1e-6
    assert results_of("f1", (4, 8), 277, scores).standard_error is None


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_of_all_rows_or_none_there_is_no_standard_error(share: float) -> None:
    """It would be 0, as if no difference could be chance."""
    found = results_of("accuracy", (4, 8), 277, {DENSE: {"accuracy": share}})
    assert found.standard_error is None
    assert found.to_json()["standard_error"] is None
