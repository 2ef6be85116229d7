"""The scores of a run, and the teachers made of them, are those of ``hskcache sparsify``."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from whole import BATCH_SIZE, MAX_LENGTH, ROWS, SEED, TEMPERATURE, Places, error_of, files, invoke, read

from hskcache.build.addition import add_field, prepare_addition
from hskcache.cache import open_cache
from hskcache.cli import main as hskcache
from hskcache.sparsity.artifact import load_scores
from hskcache.sparsity.sample import Sample, draw_rows
from hskcache.sparsity.scores import score
from hskcache.sparsity.student import load_trial
from hskcache.teacher.load import load_teacher
from hskcache.text import examples_for, load_task, tokenize

SCORES = ("scores.json", "scores.safetensors")


@pytest.fixture(scope="module")
def sparsified(finished: Path, places: Places, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command makes of the run's trial with the run's settings."""
    out = tmp_path_factory.mktemp("sparsified") / "out"
    given = ["--teacher", places.teacher, "--trial-student", finished / "levels" / "s0", "--data", places.train]
    given += ["--task", "sst2", "--rows", ROWS, "--seed", SEED, "--batch-size", BATCH_SIZE, "--temperature"]
    given += [TEMPERATURE, "--max-length", MAX_LENGTH, "--sparsity", "30,60", "--device", "cpu", "--out", out]
    result = CliRunner().invoke(hskcache, ["sparsify", *map(str, given)], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return out


def record(out: Path) -> dict[str, Any]:
    """Of the scores, without the place of the trial."""
    found: dict[str, Any] = read(out / "scores.json")
    del found["student"]["name"]
    return found


def test_the_scores_are_those_of_a_pass_of_its_own(finished: Path, sparsified: Path) -> None:
    """Bit for bit by their digest, from the trial and the rows, labels, batches and temperature of the run."""
    assert record(finished) == record(sparsified)


def test_the_scores_are_of_the_drawn_rows_and_their_own_labels(finished: Path, places: Places) -> None:
    """As the sum over batches of rows that are picked from the whole data set."""
    teacher = load_teacher(str(places.teacher), "cpu")
    trial = load_trial(str(finished / "levels" / "s0"), teacher)
    examples = examples_for(places.train, load_task("sst2"))
    rows = tokenize(examples, teacher.tokenizer, MAX_LENGTH)
    index_N = draw_rows(len(examples), ROWS, SEED)
    assert index_N.tolist() != list(range(ROWS))
    expected = score(teacher, trial.model, Sample(rows, examples.labels, BATCH_SIZE, TEMPERATURE, index_N))
    found, _ = load_scores(finished)
    for name in ("expressive", "friendly"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        np.testing.assert_array_equal(ours.heads_LH, theirs.heads_LH)
        np.testing.assert_array_equal(ours.neurons_LF, theirs.neurons_LF)


@pytest.mark.parametrize("level", ["s30", "s60"])
def test_the_logits_of_a_level_are_those_of_the_sparse_teacher_of_that_name(
    level: str, finished: Path, sparsified: Path, tmp_path: Path
) -> None:
    """As a checkpoint, whose logits are added to the run's cache beside those of the run."""
    teacher = load_teacher(str(sparsified / level), "cpu")
    root = shutil.copytree(finished / "cache.hsk", tmp_path / "cache.hsk")
    manifest = add_field(prepare_addition(teacher, open_cache(root), "logits", "again"))
    assert manifest.added[level].teacher.weights_sha256 == manifest.added["again"].teacher.weights_sha256
    cache = open_cache(root)
    for shard in range(len(cache.shards)):
        ours, theirs, dense = (cache.read(name, shard)["logits"] for name in (level, "again", "logits"))
        np.testing.assert_array_equal(ours, theirs)
        assert not np.array_equal(ours, dense)


@pytest.mark.parametrize("gone", [SCORES, SCORES[:1], SCORES[1:]])
def test_scores_that_are_missing_are_made_anew_from_the_trial(
    gone: tuple[str, ...], finished: Path, places: Places, tmp_path: Path
) -> None:
    """The same, and nothing else is done again; one of the two files without the other is no scores."""
    out = shutil.copytree(finished, tmp_path / "out")
    before = files(out)
    for name in gone:
        (out / name).unlink()
    assert invoke(places.args(out)).exit_code == 0
    assert (out / SCORES[1]).read_bytes() == (finished / SCORES[1]).read_bytes()
    assert record(out) == record(finished)
    assert {name for name, stat in files(out).items() if before[name] != stat} <= set(SCORES)


@pytest.mark.parametrize("name", SCORES)
def test_damaged_scores_end_in_one_line_that_tells_how_to_make_them_anew(
    name: str, finished: Path, places: Places, tmp_path: Path
) -> None:
    out = shutil.copytree(finished, tmp_path / "out")
    (out / name).write_bytes((out / name).read_bytes()[:-9])
    said = error_of(invoke(places.args(out)))
    assert f"delete scores.json and scores.safetensors in {out} and run the same command again" in said
    for file in SCORES:
        (out / file).unlink()
    assert invoke(places.args(out)).exit_code == 0
    assert record(out) == record(finished)
