"""A scoring pass from texts: the scores of the rows that were drawn, and what identifies them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hskcache.errors import SpecError, TeacherError
from hskcache.sparsity.artifact import ModelId
from hskcache.sparsity.sample import Sample, draw_rows
from hskcache.sparsity.scores import score
from hskcache.sparsity.scoring import DrawnRows, ScoreSettings, ScoringPass, draw
from hskcache.sparsity.student import Trial
from hskcache.text import tokenize

STUDENT = ModelId(name="s", weights_sha256="2" * 64)


def numbers(scores: Any) -> list[Any]:
    parts = (scores.expressive, scores.friendly)
    return [part and [part.heads_LH.tolist(), part.neurons_LF.tolist()] for part in parts]


def test_the_rows_that_count_are_scored_as_among_all(
    teacher_of: Any, student_of: Any, examples: Any, rows: Any
) -> None:
    """In their order and with their labels, though only they are tokenized."""
    teacher, student, index_N = teacher_of("bert"), student_of(), draw_rows(10, 5, seed=3)
    drawn, done = draw(examples, 5, seed=3), {"rows": [], "tokens": []}
    scoring = ScoringPass(teacher, Trial(student, STUDENT), drawn, ScoreSettings(2, 3.0, 48))
    found = scoring.run(done["rows"].append, done["tokens"].append)
    assert numbers(found) == numbers(score(teacher, student, Sample(rows, examples.labels, 2, 3.0, index_N)))
    assert done == {"rows": [2, 2, 1], "tokens": [5]}
    assert numbers(found) != numbers(replace(scoring, drawn=draw(examples, 5, seed=4)).run())


def test_all_rows_are_scored_where_none_are_drawn(teacher_of: Any, examples: Any, sample: Any) -> None:
    teacher = teacher_of("bert")
    whole = numbers(score(teacher, None, sample))
    for drawn in (
        DrawnRows(examples),
        draw(examples, None, 0),
        draw(examples, 10, 0),
        DrawnRows(examples, np.arange(10)),
    ):
        assert numbers(ScoringPass(teacher, None, drawn, ScoreSettings(4, max_length=48)).run()) == whole


def test_rows_are_cut_at_the_length_asked_for(teacher_of: Any, examples: Any) -> None:
    teacher = teacher_of("bert")
    short = ScoringPass(teacher, None, DrawnRows(examples), ScoreSettings(4, max_length=8))
    tokens = tokenize(examples, teacher.tokenizer, 8)
    assert numbers(short.run()) == numbers(score(teacher, None, Sample(tokens, examples.labels, 4)))
    with pytest.raises(SpecError, match="give at least"):
        replace(short, settings=ScoreSettings(max_length=3)).run()


def test_what_identifies_the_scores(teacher_of: Any, student_of: Any, examples: Any) -> None:
    teacher, settings = teacher_of("bert"), ScoreSettings(7, 3.0, 40)
    both = ScoringPass(teacher, Trial(student_of(), STUDENT), draw(examples, 4, seed=9), settings).info
    assert (both.teacher.weights_sha256, both.student) == (teacher.info.weights_sha256, STUDENT)
    assert both.data.model_dump() == {"name": "pairs", "fingerprint": "0", "num_rows": 4, "seed": 9}
    assert (both.has_labels, both.batch_size, both.temperature, both.max_length) == (True, 7, 3.0, 40)
    assert both.sha256 is None
    assert both.environment["device"].startswith("cpu ")
    # No student, no temperature: another one makes no other scores. All rows are the same whatever the seed.
    alone = ScoringPass(teacher, None, draw(replace(examples, labels=None), 10, seed=9), settings).info
    assert (alone.student, alone.temperature, alone.has_labels) == (None, None, False)
    assert (alone.data.num_rows, alone.data.seed) == (10, None)


def test_a_row_in_an_error_counts_among_those_drawn(teacher_of: Any, examples: Any) -> None:
    teacher = teacher_of("bert", max_position_embeddings=10)
    scoring = ScoringPass(teacher, None, draw(examples, 4, seed=0), ScoreSettings())
    lengths = tokenize(scoring.drawn.rows, teacher.tokenizer, 128).lengths
    words = rf"pairs \(4 rows drawn\) row {lengths.argmax()}, counted from 0, has {lengths.max()} tokens"
    with pytest.raises(TeacherError, match=words):
        scoring.run()


def test_single_texts_without_labels_are_drawn_too(examples: Any) -> None:
    single = draw(replace(examples, pairs=None, labels=None), 3, seed=1)
    assert single.index_N is not None
    assert single.rows.texts == [examples.texts[row] for row in single.index_N]
    assert (single.rows.pairs, single.rows.labels) == (None, None)
