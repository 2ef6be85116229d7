"""How sure a teacher is, against values computed by hand and by scipy, and of what a run left behind."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy
from whole import Places, invoke, read

from hskcache.cache import open_cache
from trainer.stark.confidence import cached_confidence, confidence


def test_two_classes_by_hand() -> None:
    """p = (3/4, 1/4) and (1/2, 1/2): variances 1/16 and 0."""
    found = confidence(np.array([[math.log(3), 0], [5, 5]], np.float32))
    assert found is not None
    assert found.variance == pytest.approx(1 / 32, abs=1e-7)
    expected = (0.75 * math.log(0.75) + 0.25 * math.log(0.25) + math.log(0.5)) / 2
    assert found.negative_entropy == pytest.approx(expected, abs=1e-7)


def test_several_classes_as_scipy_has_it() -> None:
    logits = np.random.default_rng(0).normal(scale=3, size=(50, 4)).astype(np.float32)
    shares = softmax(logits.astype(np.float64), axis=1)
    found = confidence(logits)
    assert found is not None
    assert found.variance == pytest.approx(np.var(shares, axis=1).mean(), rel=1e-12)
    assert found.negative_entropy == pytest.approx(-entropy(shares, axis=1).mean(), rel=1e-12)


def test_certainty_is_the_most_and_no_overflow() -> None:
    found = confidence(np.array([[1000, -1000, 0]], np.float32))
    assert found is not None
    assert (found.variance, found.negative_entropy) == (pytest.approx(2 / 9), 0)


def test_rows_that_are_not_finite_do_not_count_and_a_score_is_no_distribution() -> None:
    rows = np.array([[1, 2], [np.nan, 0], [np.inf, 0]], np.float32)
    assert confidence(rows) == confidence(rows[:1])
    assert confidence(rows[1:]) is None
    assert confidence(np.ones((3, 1), np.float32)) is None


def test_a_run_tells_how_sure_every_teacher_is(finished: Path) -> None:
    """By direct reading of the logits of all rows."""
    cache = open_cache(finished / "cache.hsk")
    for row in read(finished / "results.json")["rows"]:
        logits = []
        for index in range(cache.num_rows):
            found = cache.row(index)
            logits.append(found["logits"] if row["field"] == "logits" else found["added"][row["field"]])
        shares = softmax(np.array(logits, np.float64), axis=1)
        assert row["confidence"]["variance"] == pytest.approx(np.var(shares, axis=1).mean(), rel=1e-9)
        assert row["confidence"]["negative_entropy"] == pytest.approx(-entropy(shares, axis=1).mean(), rel=1e-9)
        assert cached_confidence(cache, row["field"]) is not None


def test_a_folder_of_an_earlier_version_is_told_of_from_its_cache(
    finished: Path, places: Places, tmp_path: Path
) -> None:
    """Its record lacks the confidence; where a level's logits are damaged, that level's stays unknown."""
    out = shutil.copytree(finished, tmp_path / "out")
    results = read(out / "results.json")
    for row in results["rows"]:
        del row["confidence"]
    (out / "results.json").write_text(json.dumps(results), encoding="utf-8")
    assert invoke(places.args(out)).exit_code == 0
    assert read(out / "results.json") == read(finished / "results.json")
    shard = next((out / "cache.hsk" / "s30").glob("*.zip"))
    shard.write_bytes(shard.read_bytes()[:-9])
    done = invoke(places.args(out))
    assert done.exit_code == 0
    assert "the confidence of the teacher of s30 is not known" in done.stderr
    found = {row["field"]: row["confidence"] for row in read(out / "results.json")["rows"]}
    assert [field for field, sure in found.items() if sure is None] == ["s30"]
