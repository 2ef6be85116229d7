"""Fidelity to a teacher by direct computation, and which rows count."""

from pathlib import Path

import numpy as np
import pytest
from additions import Grown
from drawn import bert
from transformers import AutoModelForSequenceClassification

from hskcache.cache import Cache, open_cache
from hskcache.errors import MismatchError
from hskcache.remote.mirror import open_mirror
from trainer.fidelity import beside, cached_rows, fidelity


def test_classes_are_compared_by_the_best_and_by_divergence() -> None:
    """KL(teacher || student) of two rows, worked out term by term; a third row has no teacher."""
    teacher = np.array([[2.0, -1.0], [0.0, 0.5], [np.nan, np.nan]], np.float32)
    student = np.array([[1.0, 0.0], [0.5, 0.0], [3.0, 3.0]], np.float32)
    terms = []
    for theirs, ours in zip(teacher[:2].astype(float), student[:2].astype(float), strict=True):
        p, q = (np.exp(row) / np.exp(row).sum() for row in (theirs, ours))
        terms.append((p * np.log(p / q)).sum())
    found = fidelity(student, teacher)
    assert found == {"agreement": 0.5, "kl": pytest.approx(sum(terms) / 2, rel=1e-6)}
    assert fidelity(student[2:], teacher[2:]) == {}


def test_scores_are_compared_by_error_and_correlation() -> None:
    teacher = np.array([[1.0], [2.0], [4.0], [np.inf]], np.float32)
    student = np.array([[1.5], [1.5], [4.0], [0.0]], np.float32)
    found = fidelity(student, teacher)
    assert found["mse"] == pytest.approx(0.5 / 3)
    assert found["pearson"] == pytest.approx(np.corrcoef([1, 2, 4], [1.5, 1.5, 4])[0, 1])


def test_the_rows_of_a_cache_are_those_that_it_shows_one_by_one(cache_dir: Path) -> None:
    cache = open_cache(cache_dir)
    rows = cached_rows(cache, 2)
    for place, row in enumerate(range(*cache.shards[2])):
        first, last = rows.offsets[place : place + 2]
        shown = cache.row(row)
        assert rows.input_ids[first:last].tolist() == shown["input_ids"].tolist()
        assert rows.token_type_ids is not None
        assert rows.token_type_ids[first:last].tolist() == shown["token_type_ids"].tolist()


def test_any_teacher_of_a_cache_and_a_cache_at_a_url_can_be_compared_with(
    grown: Grown, tiny_teacher_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The added field's own logits, and the same from a URL; every row is counted once."""
    monkeypatch.setenv("HSKCACHE_LOCAL", str(tmp_path / "local"))
    model, counted = AutoModelForSequenceClassification.from_pretrained(tiny_teacher_dir), list[int]()
    ours, theirs = beside(model, grown.cache, "s30", False, counted.append)
    own = logits(grown.plain)
    np.testing.assert_allclose(ours, own, atol=1e-5)
    np.testing.assert_array_equal(theirs, logits(grown.three))
    assert sum(counted) == grown.cache.num_rows
    mirrored = open_mirror(f"file://{grown.cache.root}")
    far = beside(model, mirrored, "s30", False, counted.append)
    np.testing.assert_array_equal(far[1], theirs)
    np.testing.assert_array_equal(far[0], ours)


def test_a_student_that_cannot_read_the_rows_is_not_told_to_shorten_them(cache_dir: Path) -> None:
    """They are tokens by now, and no option changes them."""
    cache = open_cache(cache_dir)
    message = r"tokens and the model 8 positions; give another student, or a cache that was built with --max-length 8"
    with pytest.raises(MismatchError, match=message):
        beside(bert(vocab_size=200, max_position_embeddings=8), cache, "logits", False, lambda _rows: None)
    with pytest.raises(MismatchError, match=r"and the model knows 40 ids; give a student with the cache's tokenizer"):
        beside(bert(), cache, "logits", False, lambda _rows: None)


def logits(cache: Cache) -> np.ndarray:
    return np.concatenate([cache.read("logits", shard)["logits"] for shard in range(len(cache.shards))])
