"""Statistics of a cache are those of its decoded rows, computed from their definitions and all at once."""

import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from commanded import parsed, run
from stored import shard_file

from hskcache.cache import Cache, open_cache
from hskcache.stats import stats
from hskcache.stats.answers import AnswersOfClasses, AnswersOfScores
from hskcache.stats.model import CacheStats, ClassAnswers, LayerValues
from hskcache.stats.moments import Moments

ATTENTION = ("--attention", "2l_6t", "--no-specials")


@pytest.fixture(scope="module")
def magnitude(sources: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 rows with columns of their own at every position, and attention scores."""
    out = tmp_path_factory.mktemp("magnitude") / "c"
    kept = ("--keep", "2l_5t_0.25h", *ATTENTION, "--student-layers", "2", "--max-length", "48", "--shard-rows", "16")
    assert run("build", *sources, "--task", "sst2", *kept, "--out", out).exit_code == 0
    return out


@pytest.fixture(scope="module")
def found(magnitude: Path) -> CacheStats:
    return stats(open_cache(magnitude))


def layer_of(found: CacheStats, field: str, layer: int | None) -> LayerValues:
    return next(one for one in found.values if (one.field, one.layer) == (field, layer))


def test_values_of_states_whose_columns_differ_from_position_to_position(magnitude: Path, found: CacheStats) -> None:
    states_VD = np.concatenate(open_cache(magnitude).hidden(4)).astype(np.float64)
    counts_D = (states_VD != 0).sum(0)
    layer = layer_of(found, "hidden", 4)
    stored = states_VD[states_VD != 0]
    assert layer.num_vectors == len(states_VD)
    # A column that is kept may be 0 once it is encoded, and none is here.
    assert layer.num_values == counts_D.sum() == 8 * len(states_VD)
    assert layer.entries == "columns"
    assert (layer.values.mean, layer.values.std) == (pytest.approx(stored.mean()), pytest.approx(stored.std()))
    assert (layer.values.least, layer.values.most) == (stored.min(), stored.max())
    norms = np.linalg.norm(states_VD, axis=1)
    assert (layer.norms.mean, layer.norms.std) == (pytest.approx(norms.mean()), pytest.approx(norms.std()))
    assert layer.by_entry.counts == counts_D.tolist()
    np.testing.assert_allclose(layer.by_entry.rms, np.sqrt((states_VD**2).mean(0)))
    means = [column[column != 0].mean() if column.any() else 0.0 for column in states_VD.T]
    np.testing.assert_allclose(layer.by_entry.means, means)


def test_values_of_components_are_those_of_the_teachers_columns(built: Path) -> None:
    states_VD = np.concatenate(open_cache(built).hidden(2)).astype(np.float64)
    layer = layer_of(stats(open_cache(built)), "hidden", 2)
    assert layer.num_values == states_VD.size
    np.testing.assert_allclose(layer.by_entry.means, states_VD.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(layer.by_entry.stds, states_VD.std(0), rtol=1e-4)


def test_values_of_attention_are_by_key(magnitude: Path, found: CacheStats) -> None:
    cache = open_cache(magnitude)
    layer = layer_of(found, "attention", 4)
    scores = cache.column("attention.4")
    positions = cache.column("attention.4.positions")
    assert layer.entries == "keys"
    assert layer.num_values == sum(one.size for one in scores)
    of_first = np.concatenate([one[:, :, at == 0].ravel() for one, at in zip(scores, positions, strict=True)])
    assert layer.by_entry.means[0] == pytest.approx(of_first.mean(), rel=1e-5)


def test_an_entry_far_above_the_others_is_an_outlier() -> None:
    from hskcache.stats.values import _outliers

    rms = np.ones(64)
    rms[[7, 40]] = 9.0, 12.0
    assert _outliers(rms).tolist() == [40, 7]
    assert _outliers(np.ones(64)).tolist() == []
    assert _outliers(np.zeros(0)).tolist() == []


def test_moments_of_pieces_are_those_of_the_whole_far_from_zero() -> None:
    numbers = np.random.default_rng(0).normal(1e8, 1.0, (3, 500))
    moments = Moments()
    for piece in np.split(numbers, [1, 130, 490], axis=1):
        mean = piece.mean(1)
        moments.add(np.full(3, float(piece.shape[1])), mean, ((piece - mean[:, None]) ** 2).sum(1))
    np.testing.assert_allclose(moments.stds_E, numbers.std(1), rtol=1e-9)
    _, mean, std = moments.joined()
    assert (mean, std) == (pytest.approx(numbers.mean()), pytest.approx(numbers.std(), rel=1e-9))


def test_lengths_and_kept_positions(magnitude: Path, found: CacheStats) -> None:
    cache = open_cache(magnitude)
    lengths = np.array([len(row) for row in cache.column("input_ids")])
    assert found.lengths.counts == np.bincount(lengths).tolist()
    assert found.lengths.mean == pytest.approx(lengths.mean())
    assert found.lengths.longest == lengths.max()
    assert found.num_tokens == lengths.sum()
    layer = next(one for one in found.kept if (one.field, one.layer) == ("hidden", 4))
    positions = [np.asarray(one) for one in cache.column("hidden.4.positions")]
    assert layer.num_kept == sum(map(len, positions))
    assert layer.by_position == np.bincount(np.concatenate(positions)).tolist()
    assert layer.by_count == np.bincount([len(one) for one in positions]).tolist()
    assert layer.first_by_position == np.bincount([one[0] for one in positions]).tolist()
    kept = np.concatenate([row[at] for row, at in zip(cache.column("input_ids"), positions, strict=True)])
    assert layer.tokens[0].num_kept == np.bincount(kept).max()
    assert all(token.num_kept == (kept == token.token_id).sum() for token in layer.tokens)
    special = layer.tokens[0]
    assert special.num_there >= special.num_kept


def test_bytes_by_layer_add_up_to_those_of_the_fields(magnitude: Path, found: CacheStats) -> None:
    cache = open_cache(magnitude)
    for name in cache.fields:
        parts = [one for one in found.sizes if one.field == name]
        assert sum(one.num_bytes for one in parts) == cache.num_bytes(name)
        assert all(one.num_bytes > 0 for one in parts)
    assert [one.layer for one in found.sizes if one.field == "hidden"] == [2, 4, None]


def test_answers_beside_labels(magnitude: Path, found: CacheStats) -> None:
    cache = open_cache(magnitude)
    logits, labels = cache.logits().astype(np.float64), np.asarray(cache.column("label"))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    answers, confidence = probabilities.argmax(1), probabilities.max(1)
    (told,) = found.answers
    assert isinstance(told, ClassAnswers)
    assert told.num_rows == 96
    assert told.accuracy == (answers == labels).mean()
    assert told.log_loss == pytest.approx(-np.log(probabilities[np.arange(96), labels]).mean())
    expected = [[int(((labels == row) & (answers == column)).sum()) for column in range(2)] for row in range(2)]
    assert told.confusion == expected
    error = 0.0
    for place in range(15):
        inside = (confidence >= place / 15) & (confidence < (place + 1) / 15)
        if inside.any():
            error += inside.mean() * abs((answers == labels)[inside].mean() - confidence[inside].mean())
    assert told.calibration_error == pytest.approx(error)
    wrong = np.flatnonzero(answers != labels)
    surest = wrong[np.argsort(-confidence[wrong], kind="stable")]
    assert [one.row for one in told.wrong] == surest[:10].tolist()
    assert told.wrong[0].surety == pytest.approx(confidence[surest[0]])
    assert sum(map(sum, told.label_probabilities.values())) == 96


def test_a_teacher_that_is_always_sure_and_half_right_is_off_by_half() -> None:
    answers = AnswersOfClasses("logits", 2)
    logits, labels = np.array([[-50.0, 50.0]] * 8, np.float32), np.array([0, 1] * 4)
    answers.add(logits[:3], labels[:3], np.arange(3))
    answers.add(logits[3:], labels[3:], np.arange(3, 8))
    told = answers.told()
    assert told.calibration_error == pytest.approx(0.5)
    assert [(one.label, one.answer, one.num_rows) for one in told.pairs] == [(0, 1, 4), (1, 1, 4)]
    assert [one.row for one in told.wrong] == [0, 2, 4, 6]


def test_rows_without_a_label_do_not_count() -> None:
    answers = AnswersOfClasses("logits", 2)
    answers.add(np.array([[0.0, 1.0]] * 3, np.float32), np.array([1, -100, 7]), np.arange(3))
    told = answers.told()
    assert (told.num_rows, told.num_unlabelled, told.accuracy) == (1, 2, 1.0)


def test_logits_that_are_not_finite_count_nowhere() -> None:
    logits = np.array([[0, 1], [np.nan, 1], [0, np.inf]], np.float32)
    classes, scores = AnswersOfClasses("logits", 2), AnswersOfScores("logits", 3)
    classes.add(logits, np.array([1, 1, 1]), np.arange(3))
    scores.add(logits[:, :1], np.array([1.0, 1.0, 1.0], np.float32), np.arange(3))
    assert (classes.told().num_rows, classes.told().num_nonfinite, classes.told().accuracy) == (1, 2, 1.0)
    assert (scores.told().num_rows, scores.told().num_nonfinite) == (2, 1)


def test_scores_beside_labels() -> None:
    draw = np.random.default_rng(0)
    labels = draw.uniform(0, 5, 300).astype(np.float32)
    scores = (labels + draw.normal(0, 0.5, 300) + 0.25).astype(np.float32)
    labels[17] = np.nan
    answers = AnswersOfScores("logits", 300)
    for rows in np.split(np.arange(300), [1, 90]):
        answers.add(scores[rows, None], labels[rows], rows)
    told, there = answers.told(), np.arange(300) != 17
    far = np.abs(scores - labels)[there].astype(np.float64)
    assert (told.num_rows, told.num_unlabelled) == (299, 1)
    assert told.correlation == pytest.approx(np.corrcoef(labels[there], scores[there])[0, 1], rel=1e-6)
    assert told.mean_error == pytest.approx(far.mean())
    assert told.rms_error == pytest.approx(np.sqrt((far**2).mean()))
    assert told.wrong[0].surety == pytest.approx(far.max())
    assert len(told.points) == 299


def test_the_same_in_one_shard_and_in_many(sources: tuple[object, ...], magnitude: Path, tmp_path: Path) -> None:
    kept = ("--keep", "2l_5t_0.25h", *ATTENTION, "--student-layers", "2", "--max-length", "48", "--shard-rows", "96")
    assert run("build", *sources, "--task", "sst2", *kept, "--out", tmp_path / "c").exit_code == 0
    many, one = (stats(open_cache(path)) for path in (magnitude, tmp_path / "c"))
    assert one.lengths == many.lengths
    assert one.kept == many.kept
    for here, there in zip(one.values, many.values, strict=True):
        np.testing.assert_allclose(here.by_entry.rms, there.by_entry.rms, rtol=1e-3)


def test_a_view_is_counted_as_if_it_had_been_built_so(magnitude: Path) -> None:
    found = parsed("stats", magnitude, "--view", "1l_2t_0.25h,rows=32,fields=hidden")
    assert found["num_rows"] == 32
    assert [(one["field"], one["layer"]) for one in found["kept"]] == [("hidden", 4)]
    assert max(place for place, count in enumerate(found["kept"][0]["by_count"]) if count) == 2


def test_the_command_tells_every_field(magnitude: Path) -> None:
    told = run("stats", magnitude).stdout
    for word in ("inputs", "logits", "hidden", "attention", "[CLS]", "expected calibration error", "label, answered"):
        assert word in told


@pytest.mark.parametrize("field", ["inputs", "logits", "hidden"])
def test_a_damaged_shard_is_named_and_ends_it(field: str, magnitude: Path, tmp_path: Path) -> None:
    shutil.copytree(magnitude, tmp_path / "c")
    path = shard_file(tmp_path / "c", field, 2)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    result = run("stats", tmp_path / "c")
    assert result.exit_code == 1
    assert f"{field} shard 2" in result.stderr
    assert path.name in result.stderr
    assert result.stdout == ""


def test_without_values_torch_is_not_needed(magnitude: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from hskcache.cli import main\n"
        f"main(['stats', {str(magnitude)!r}, '--no-values', '--json'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert '"values": []' in done.stdout


def test_memory_does_not_grow_with_the_number_of_shards(magnitude: Path) -> None:
    """Arrays of one shard at a time; what torch holds is bounded by the same pieces."""
    cache = open_cache(magnitude)
    peaks = [peak(cache.view(rows=count)) for count in (16, 96)]
    assert peaks[1] < 1.25 * peaks[0]


def peak(cache: Cache) -> int:
    stats(cache)
    tracemalloc.start()
    stats(cache)
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found
