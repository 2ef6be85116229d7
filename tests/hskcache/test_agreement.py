"""Counts, correlations and the order of classes that fits best, against the plain definitions."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hskcache.agreement import class_agreement, score_agreement
from hskcache.store.agreement import ClassAgreement, ScoreAgreement, joined, told

NAMES = ("entailment", "neutral", "contradiction")


def of(answers: list[int], labels: list[int], num_classes: int = 3) -> ClassAgreement:
    return class_agreement(np.array(answers), np.array(labels), num_classes)


def test_rows_without_a_label_or_an_answer() -> None:
    found = of([0, 1, 1, -1, 2], [0, 1, 2, 2, -1])
    assert (found.num_rows, found.num_agreed) == (4, 2)
    assert (found.label_counts, found.answer_counts) == ([1, 1, 2], [1, 2, 0])
    assert found.share == 0.5
    assert found.majority == 0.5


def test_another_order_that_fits_much_better_is_found_and_told() -> None:
    labels = [0, 1, 2] * 20
    answers = [{0: 1, 1: 2, 2: 0}[label] for label in labels]
    found = of(answers, labels)
    assert found.num_agreed == 0
    assert found.reordered is not None
    # Output 0 answers for contradiction, output 1 for entailment, output 2 for neutral.
    assert found.reordered.order == [2, 0, 1]
    assert found.reordered.num_agreed == 60
    line = told(found, "the teacher", NAMES)
    assert line is not None
    assert "agrees with 0.0 % of the labels" in line
    assert "100.0 % where they are contradiction, entailment, neutral" in line
    assert '{"0": "contradiction", "1": "entailment", "2": "neutral"}' in line


def test_without_scipy_the_same_order_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    labels, order = draw.integers(0, 5, 300), np.array([3, 0, 4, 1, 2])
    answers = np.where(draw.random(300) < 0.8, order[labels], draw.integers(0, 5, 300))
    first = class_agreement(answers, labels, 5)
    monkeypatch.setitem(__import__("sys").modules, "scipy.optimize", None)
    assert class_agreement(answers, labels, 5) == first
    assert first.reordered is not None
    assert first.reordered.order == np.argsort(order).tolist()
    assert class_agreement(np.arange(80) % 8, (np.arange(80) + 1) % 8, 8).reordered is None


@pytest.mark.parametrize(
    ("answers", "labels"),
    [
        ([1] * 60, [0] * 40 + [1] * 20),  # one answer: no order is better than the frequencies
        ([0, 1, 1, 0], [1, 0, 0, 1]),  # four rows may be chance
        ([0] * 50 + [1] * 10, [0] * 50 + [1] * 10),  # it fits as it is
        ([0, 1] * 30, [0, 0, 1, 1] * 15),  # independent of the labels
    ],
)
def test_an_order_that_fits_better_by_chance_is_not_spoken_of(answers: list[int], labels: list[int]) -> None:
    assert of(answers, labels, 2).reordered is None


def test_a_rare_class_does_not_hide_a_swap() -> None:
    labels = [0] * 950 + [1] * 50
    found = of([1 - label for label in labels], labels, 2)
    assert found.reordered is not None
    assert found.reordered.order == [1, 0]


@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(30, 200))
def test_random_answers_have_no_better_order(seed: int, num_classes: int, num_rows: int) -> None:
    draw = np.random.default_rng(seed)
    found = class_agreement(
        draw.integers(0, num_classes, num_rows), draw.integers(0, num_classes, num_rows), num_classes
    )
    assert found.reordered is None


@pytest.mark.parametrize(
    ("answers", "labels", "words"),
    [
        ([1] * 10, [0] * 5 + [1] * 5, "answers neutral for every row, which agrees with 50.0 % of the labels"),
        ([0, 1] * 5, [0] * 8 + [1] * 2, "agrees with 50.0 % of the labels, and always answering entailment would with"),
        ([1] * 10, [0] * 10, "answers neutral for every row, which agrees with 0.0 % of the labels"),
        ([0] * 9 + [1], [0] * 10, None),  # one class among the labels tells nothing
        ([0] * 6 + [1] * 4, [0] * 5 + [1] * 5, None),
    ],
)
def test_chance_is_noticed(answers: list[int], labels: list[int], words: str | None) -> None:
    found = of(answers, labels)
    chance = found.chance(NAMES)
    assert found.is_chance == (words is not None)
    assert (chance is None) if words is None else (chance is not None and words in chance)


def test_scores_are_compared_by_their_moments() -> None:
    draw = np.random.default_rng(1)
    labels = draw.normal(2, 3, 200)
    answers = 0.5 * labels + draw.normal(1, 1, 200)
    found = score_agreement(np.append(answers, np.nan), np.append(labels, 1.0))
    assert found.num_rows == 200
    assert found.pearson == pytest.approx(np.corrcoef(answers, labels)[0, 1])
    assert found.mean_squared_error == pytest.approx(((answers - labels) ** 2).mean())
    assert not found.is_chance


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (np.full(50, 3.25, np.float32), "gives every row the score 3.25"),
        (-np.arange(50.0), "do not rise with the labels"),
    ],
)
def test_scores_that_tell_nothing_are_noticed(answers: Any, words: str) -> None:
    found = score_agreement(answers, np.arange(50, dtype=np.float32))
    assert found.is_chance
    assert words in (found.chance(()) or "")


def test_parts_join_to_the_agreement_of_all_rows() -> None:
    draw = np.random.default_rng(2)
    answers, labels = draw.integers(0, 3, 100), draw.integers(0, 3, 100)
    parts = [class_agreement(answers[place], labels[place], 3) for place in (slice(0, 30), slice(30, None))]
    assert joined(*parts) == class_agreement(answers, labels, 3)
    scores = draw.normal(5, 2, 100), draw.normal(1, 2, 100)
    both = joined(*(score_agreement(scores[0][place], scores[1][place]) for place in (slice(0, 30), slice(30, None))))
    whole = score_agreement(*scores)
    assert isinstance(both, ScoreAgreement)
    assert both.model_dump(exclude={"kind"}) == pytest.approx(whole.model_dump(exclude={"kind"}), rel=1e-9)
    assert joined(parts[0], whole) is None
    assert joined(None, whole) is None


def test_what_a_manifest_says_is_checked() -> None:
    found = of([0, 1, 2], [1, 2, 0])
    plain = json.loads(found.model_dump_json())
    assert ClassAgreement.model_validate_json(json.dumps(plain)) == found
    for change in ({"answer_counts": [1]}, {"reordered": {"order": [0, 0, 1], "num_agreed": 3}}):
        with pytest.raises(ValueError, match=r"other classes|no order"):
            ClassAgreement.model_validate_json(json.dumps(plain | change))
    assert told(of([], []), "the teacher", NAMES) is None


def test_labels_of_one_score_are_told_to_compare_with_nothing() -> None:
    told_of = told(score_agreement(np.array([0.5, 1.5]), np.array([2.5, 2.5])), "the teacher", ())
    assert told_of is not None
    assert "cannot be compared with the labels, which are 2.5 in every row" in told_of
