"""A build scores its teacher on rows that do not come into the cache; whatever carries the cache carries the scores."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from commanded import parsed, refused, run
from sharing import done

from hskcache.cache import open_cache
from hskcache.evaluation import evaluate
from hskcache.metrics import PROBLEM_METRICS, metrics_for
from hskcache.model.load import CLASSIFIER, ModelDemands, load_model
from hskcache.store.ledger import Ledger
from hskcache.text import examples_for, load_task, load_tokenizer, tokenized

KEEP = ("--keep", "none", "--max-length", "24", "--device", "cpu")


@pytest.fixture(scope="module")
def dev(tsv_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 30 rows, as a file of their own."""
    path = tmp_path_factory.mktemp("dev") / "dev.tsv"
    path.write_text("".join(tsv_file.read_text().splitlines(keepends=True)[:31]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def common(tiny_teacher_dir: Path, tsv_file: Path) -> tuple[object, ...]:
    return ("build", "--teacher", tiny_teacher_dir, "--data", tsv_file, "--task", "sst2", *KEEP)


@pytest.fixture(scope="module")
def scored(common: tuple[object, ...], dev: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scored") / "c.hsk"
    parsed(*common, "--eval-data", dev, "--out", folder)
    return folder


def test_the_scores_are_those_of_the_teacher_and_change_no_identity(
    scored: Path, common: tuple[object, ...], dev: Path, tiny_teacher_dir: Path, tmp_path: Path
) -> None:
    (known,) = open_cache(scored).manifest.evaluations
    examples = examples_for(dev, load_task("sst2"))
    model, _ = load_model(str(tiny_teacher_dir), ModelDemands(CLASSIFIER, "a teacher"))
    rows = tokenized(examples, load_tokenizer(str(tiny_teacher_dir)), 24)
    metrics = metrics_for("classification", PROBLEM_METRICS["classification"])
    assert known.metrics == pytest.approx(evaluate(model, examples, rows, metrics))
    assert (known.num_rows, known.max_length, known.fingerprint) == (30, 24, examples.fingerprint)
    without = parsed(*common, "--out", tmp_path / "without.hsk")
    assert without["cache_id"] == open_cache(scored).id
    assert "evaluations" not in json.loads((tmp_path / "without.hsk" / "manifest.json").read_text())


def test_a_finished_cache_gets_the_scores_and_its_teacher_runs_over_nothing_else(
    scored: Path, common: tuple[object, ...], dev: Path, tmp_path: Path
) -> None:
    parsed(*common, "--out", tmp_path / "c.hsk")
    shards = {path: path.stat().st_mtime_ns for path in (tmp_path / "c.hsk").rglob("*.zip")}
    result = run(*common, "--eval-data", dev, "--out", tmp_path / "c.hsk")
    assert "scoring the teacher on" in result.stderr
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "c.hsk").rglob("*.zip")} == shards
    assert (tmp_path / "c.hsk" / "manifest.json").read_bytes() == (scored / "manifest.json").read_bytes()
    assert run("verify", tmp_path / "c.hsk").exit_code == 0
    assert "scoring" not in run(*common, "--eval-data", dev, "--out", tmp_path / "c.hsk").stderr


def test_info_shows_them_and_push_pull_parts_views_and_rebuilds_keep_them(scored: Path, tmp_path: Path) -> None:
    (known,) = open_cache(scored).manifest.evaluations
    assert parsed("info", scored)["evaluations"] == [known.model_dump()]
    assert f"the teacher has accuracy {known.metrics['accuracy']:.4f}" in run("info", scored).stdout
    done("push", scored, f"file://{tmp_path}/there.hsk")
    done("pull", f"file://{tmp_path}/there.hsk", tmp_path / "part.hsk", "--rows", "10")
    assert open_cache(tmp_path / "part.hsk").manifest.evaluations == [known]
    assert open_cache(scored).view("rows=8").manifest.evaluations == [known]
    again = Path(shutil.copytree(scored, tmp_path / "again.hsk"))
    manifest, ledger = open_cache(again).manifest, Ledger(again)
    ledger.finish(manifest.request, manifest.fields, manifest.environment, manifest.agreement)
    assert open_cache(again).manifest == manifest


def test_a_teacher_that_was_measured_here_is_taken_at_its_word_only_as_it_is(
    common: tuple[Any, ...], scored: Path, tiny_teacher_dir: Path, tmp_path: Path
) -> None:
    manifest = open_cache(scored).manifest
    (known,) = manifest.evaluations
    teacher = Path(shutil.copytree(tiny_teacher_dir, tmp_path / "teacher"))
    told = {"evaluation": known.model_dump(), "weights_sha256": manifest.request.teacher.weights_sha256}
    build = [*common[:2], teacher, *common[3:]]
    for name, content, expected in (
        ("its", told, [known]),
        ("another's", told | {"weights_sha256": "0" * 64}, []),
        ("odd", {"evaluation": 1, "weights_sha256": manifest.request.teacher.weights_sha256}, []),
        ("none", [], []),
    ):
        (teacher / "metrics.json").write_text(json.dumps(content))
        parsed(*build, "--out", tmp_path / name)
        assert open_cache(tmp_path / name).manifest.evaluations == expected


def test_rows_that_cannot_score_a_teacher_are_refused_before_it_runs(
    common: tuple[object, ...], dev: Path, tmp_path: Path
) -> None:
    few = tmp_path / "few.tsv"
    few.write_text("sentence\n a film\n", encoding="utf-8")
    assert "label" in refused(*common, "--eval-data", few, "--out", tmp_path / "c.hsk")
    assert "is given twice" in refused(*common, "--eval-data", dev, "--eval-data", dev, "--out", tmp_path / "c.hsk")
    assert not (tmp_path / "c.hsk" / "manifest.json").exists()
    (tmp_path / "corpus.txt").write_text("a film\n", encoding="utf-8")
    corpus = ("build", "--teacher", "t", "--corpus", tmp_path / "corpus.txt", "--out", tmp_path / "c.hsk")
    assert "a corpus has no task; leave it out" in refused(*corpus, "--eval-data", dev)
    added = ("build", "--teacher", "t", "--add-field", "logits", "--name", "s", "--out", tmp_path / "c.hsk")
    assert "leave it out with --add-field" in refused(*added, "--eval-data", dev)
