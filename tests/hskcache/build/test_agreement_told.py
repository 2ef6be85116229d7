"""How far a teacher agrees with the labels is told by every labelled build, kept in the manifest and shown."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commanded import SMALL, parsed, run
from folders import unfinished_copy
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from hskcache.agreement import class_agreement, score_agreement
from hskcache.build.addition import add_field, prepare_addition
from hskcache.build.append import append
from hskcache.build.build import build
from hskcache.build.job import Job
from hskcache.cache import Cache, open_cache
from hskcache.errors import DamageError
from hskcache.store.agreement import ClassAgreement
from hskcache.store.consistency import check
from hskcache.store.ledger import Ledger
from hskcache.teacher.load import Teacher, load_teacher
from hskcache.text import Examples


def logits_of(cache: Cache, field: str = "logits") -> np.ndarray[Any, Any]:
    return np.concatenate([cache.read(field, shard)["logits"] for shard in range(len(cache.shards))])


def labels_of(cache: Cache) -> np.ndarray[Any, Any]:
    return np.concatenate([cache.read("inputs", shard)["labels"] for shard in range(len(cache.shards))])


def test_a_build_counts_what_stands_in_the_cache(whole: Path, job: Job, tmp_path: Path) -> None:
    cache = open_cache(whole)
    expected = class_agreement(logits_of(cache).argmax(1), labels_of(cache), 2)
    assert cache.manifest.agreement == {"logits": expected}
    assert expected.num_rows == 40
    again = unfinished_copy(job, whole, tmp_path)
    # A build that was cut off in the middle counts the shards of both runs.
    for shard in (1, 4):
        (again / "logits" / f"{shard:06d}.json").unlink()
    assert build(job, again).agreement == cache.manifest.agreement
    assert (again / "manifest.json").read_bytes() == (whole / "manifest.json").read_bytes()


def test_rows_that_are_appended_count_too(grown: Path, whole: Path, new: Job, tmp_path: Path) -> None:
    cache = open_cache(grown)
    expected = class_agreement(logits_of(cache).argmax(1), labels_of(cache), 2)
    assert cache.manifest.agreement["logits"] == expected
    # Of a cache from before this was kept nothing is known of all rows.
    old = Path(shutil.copytree(whole, tmp_path / "old"))
    ledger, manifest = Ledger(old), open_cache(old).manifest
    (old / "manifest.json").unlink()
    ledger.finish(manifest.request, manifest.fields, manifest.environment)
    assert append(new, open_cache(old)).agreement == {}


def test_an_added_teacher_is_compared_with_the_stored_labels(cache: Cache, other: Teacher) -> None:
    manifest = add_field(prepare_addition(other, cache, "logits", "other"))
    grown = open_cache(cache.root)
    assert manifest.agreement["other"] == class_agreement(logits_of(grown, "other").argmax(1), labels_of(grown), 2)
    assert manifest.agreement["logits"] == cache.manifest.agreement["logits"]
    assert manifest.subset(["logits"]).agreement == cache.manifest.agreement
    assert manifest.subset(["logits"], range(2)).agreement == {}


def test_scores_are_compared_as_scores(scored: Examples, job_of: Any, regressor: Teacher, tmp_path: Path) -> None:
    manifest = build(job_of("none", rows=scored, by=regressor), tmp_path / "c")
    cache = open_cache(tmp_path / "c")
    assert manifest.agreement["logits"] == score_agreement(logits_of(cache)[:, 0], labels_of(cache))


@pytest.fixture
def regressor(tiny_teacher_dir: Path, tmp_path: Path) -> Teacher:
    model = AutoModelForSequenceClassification.from_pretrained(
        tiny_teacher_dir, num_labels=1, problem_type="regression", ignore_mismatched_sizes=True
    )
    model.save_pretrained(tmp_path / "r")
    AutoTokenizer.from_pretrained(tiny_teacher_dir).save_pretrained(tmp_path / "r")
    return load_teacher(str(tmp_path / "r"), "cpu")


def test_rows_that_were_left_out_do_not_count(whole: Path, job: Job, tmp_path: Path) -> None:
    """A row of zeros would count as an answer of the first class."""
    out = unfinished_copy(job, whole, tmp_path)
    ledger = Ledger(out)
    record = ledger.record("logits", 0)
    arrays = open_cache(whole).read("logits", 0)
    arrays["logits"][2] = 0
    (out / "logits" / "000000.json").unlink()
    ledger.commit("logits", 0, (record.start, record.stop), arrays, {2: 1})
    found = build(job, out, on_nonfinite="skip").agreement["logits"]
    assert found.num_rows == 39


def test_without_labels_there_is_nothing_to_tell(unlabelled: Examples, job_of: Any, tmp_path: Path) -> None:
    assert build(job_of("none", rows=unlabelled), tmp_path / "c").agreement == {}


def test_an_agreement_of_other_classes_is_damage(whole: Path) -> None:
    manifest = open_cache(whole).manifest
    one = manifest.agreement["logits"]
    assert isinstance(one, ClassAgreement)
    wide = one.model_copy(update={"label_counts": [1, 2, 3], "answer_counts": [1, 2, 3]})
    for wrong in ({"logits": wide}, {"inputs": one}, {"nothing": one}):
        with pytest.raises(DamageError, match="tells of an agreement"):
            check(manifest.model_copy(update={"agreement": wrong}))


def test_the_commands_tell_it_and_info_shows_it(balanced: Path, tsv_file: Path, tmp_path: Path) -> None:
    build_it = ("build", "--teacher", balanced, "--device", "cpu", "--keep", "none", *SMALL)
    first = (*build_it, "--task", "sst2", "--data", tsv_file, "--out", tmp_path / "c")
    told = run(*first).stderr
    line = next(line for line in told.splitlines() if "of the labels" in line)
    assert line in run(*first).stderr  # complete already
    facts = parsed(*first)
    assert facts["agreement"]["logits"]["num_rows"] == 96
    assert line.partition(":")[0][:60] in run("info", tmp_path / "c").stdout
    assert parsed("info", tmp_path / "c")["agreement"]["logits"]["told"] == line
    # What the teacher calls 0 the labels call 1, on every row.
    lines, cache = tsv_file.read_text().splitlines(), open_cache(tmp_path / "c")
    answers = 1 - logits_of(cache).argmax(1)
    rows = [f"{line.partition(chr(9))[0]}\t{answer}" for line, answer in zip(lines[1:], answers, strict=True)]
    swapped_file = tmp_path / "swapped.tsv"
    swapped_file.write_text("\n".join([lines[0], *rows]) + "\n")
    swapped = run(*build_it, "--task", "sst2", "--data", swapped_file, "--out", tmp_path / "s").stderr
    assert "agrees with 0.0 % of the labels where its outputs are taken for 0, 1, and with 100.0 % where" in swapped
    assert 'set id2label to {"0": "1", "1": "0"}' in swapped


@pytest.fixture
def balanced(tiny_teacher_dir: Path, job_of: Any, tmp_path: Path) -> Path:
    """The tiny teacher without names of its classes, of which it answers each for half of its rows."""
    build(job_of("none"), tmp_path / "first")
    differences = np.diff(logits_of(open_cache(tmp_path / "first")), axis=1)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_teacher_dir)
    model.classifier.bias.data[0] += float(np.median(differences))
    model.config.id2label = {0: "LABEL_0", 1: "LABEL_1"}
    model.save_pretrained(tmp_path / "balanced")
    AutoTokenizer.from_pretrained(tiny_teacher_dir).save_pretrained(tmp_path / "balanced")
    return tmp_path / "balanced"
