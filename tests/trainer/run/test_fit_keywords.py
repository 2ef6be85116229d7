"""A run by keywords is the run of the same command, whatever holds the cache, the student and the rows."""

import json
import tempfile
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from tiny import weights_of
from transformers import AutoModelForSequenceClassification

import hskcache
import trainer
from hskcache.errors import CacheError, SpecError
from trainer.cli import main
from trainer.recipe import load_recipe

CHANGES = {"hidden.epochs": 1, "prediction.epochs": 1, "prediction.learning_rate": 1e-3}
OPTIONS: dict[str, Any] = {"changes": CHANGES, "task": "sst2", "device": "cpu", "seed": 3}


@pytest.fixture(scope="module")
def frame(tsv_file: Path) -> pd.DataFrame:
    return pd.read_csv(tsv_file, sep="\t", quoting=3)


@pytest.fixture(scope="module")
def by_command(cache_dir: Path, tsv_file: Path, narrow: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("command") / "student"
    args = ["fit", "--cache", cache_dir, "--student", narrow, "--task", "sst2", "--seed", 3, "--device", "cpu"]
    args += [word for key, value in CHANGES.items() for word in ("--set", f"{key}={value}")]
    result = CliRunner().invoke(main, [*map(str, args), "--eval-data", str(tsv_file), "--out", str(out)])
    assert result.exit_code == 0, result.output
    return out


def assert_same_student(one: Path, other: Path) -> None:
    ours, theirs = weights_of(one), weights_of(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_an_open_cache_and_rows_in_memory_train_the_same_student(
    by_command: Path, cache_dir: Path, narrow: Path, frame: pd.DataFrame, tmp_path: Path
) -> None:
    rows = {"dev": datasets.Dataset.from_pandas(frame), "again": frame.to_dict("list")}
    result = trainer.fit(hskcache.open_cache(cache_dir), narrow, out=tmp_path / "s", eval_data=rows["dev"], **OPTIONS)
    assert_same_student(tmp_path / "s", by_command)
    two = trainer.fit(cache_dir, narrow, out=tmp_path / "t", eval_data=rows | {"file": frame}, **OPTIONS)
    assert_same_student(tmp_path / "t", by_command)
    assert two["scores"] == result["scores"] == two["others"]["again"] == two["others"]["file"]


def test_a_finished_run_is_found_and_a_view_is_another(
    by_command: Path, cache_dir: Path, narrow: Path, tsv_file: Path, tmp_path: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in by_command.glob("*.safetensors")}
    trainer.fit(hskcache.open_cache(cache_dir), str(narrow), out=by_command, eval_data=tsv_file, **OPTIONS)
    assert before == {path: path.stat().st_mtime_ns for path in by_command.glob("*.safetensors")}
    seen = hskcache.open_cache(cache_dir).view("1l_4t")
    trainer.fit(seen, str(narrow), out=tmp_path / "a", eval_data=[tsv_file], **OPTIONS)
    trainer.fit(cache_dir, str(narrow), out=tmp_path / "b", eval_data=[tsv_file], view="1l_4t", **OPTIONS)
    assert_same_student(tmp_path / "a", tmp_path / "b")
    with pytest.raises(CacheError):
        trainer.fit(seen, str(narrow), out=by_command, eval_data=tsv_file, **OPTIONS)


def test_a_student_in_memory_begins_as_from_its_folder(
    by_command: Path, cache_dir: Path, tsv_file: Path, tmp_path: Path
) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(by_command)
    for name, student in (("a", model), ("b", by_command)):
        trainer.fit(cache_dir, student, out=tmp_path / name, eval_data=tsv_file, projection="fresh", **OPTIONS)
    assert_same_student(tmp_path / "a", tmp_path / "b")
    # A folder that is gone tells nobody anything.
    assert f"- began as: {by_command.name}\n" in (tmp_path / "a" / "README.md").read_text(encoding="utf-8")
    told = [json.loads((tmp_path / name / "metrics.json").read_text(encoding="utf-8")) for name in ("a", "b")]
    assert told[0]["origin"] == told[1]["origin"]
    texts = [path.read_text(encoding="utf-8") for path in (tmp_path / "a").iterdir() if path.suffix in {".json", ".md"}]
    assert not any(f"{tempfile.gettempdir()}/hskcache-" in text for text in texts)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"residncy": "host"}, "trainer.fit has no option residncy; do you mean 'residency'"),
        ({"residency": "hots"}, "residency is 'hots'; give one of .*; do you mean 'host'"),
        ({"recipe": "mudd"}, "do you mean 'mud'"),
        ({"changes": {"hiden.epochs": 1}}, "do you mean 'hidden'"),
        ({"machine": trainer.Machine("cpu")}, "machine says how to compute, and so does device"),
        ({"recipe": load_recipe("mud")}, "changes are of a recipe by name or file"),
        ({"out": None}, "needs a student and out"),
        ({"eval_data": ["a.tsv", "a.tsv"]}, "eval_data a.tsv is given twice"),
        ({"eval_data": ()}, "labelled rows that score the student"),
    ],
)
def test_what_a_keyword_cannot_be_is_told(
    given: dict[str, Any], words: str, cache_dir: Path, narrow: Path, tsv_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(SpecError, match=words):
        trainer.fit(cache_dir, narrow, **{"out": tmp_path / "s", "eval_data": tsv_file} | OPTIONS | given)
    assert not (tmp_path / "s").exists()
