"""Fine-tuning by keywords is that of the same command, whatever holds the model and the rows."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from tiny import weights_of
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import trainer
from hskcache.errors import CacheError, SpecError
from hskcache.text.layout import Layout
from trainer.cli import main
from trainer.run.request import FinetuneRequest

OPTIONS: dict[str, Any] = {"task": "sst2", "epochs": 1, "lr": 1e-3, "seed": 5, "device": "cpu"}


@pytest.fixture(scope="module")
def frame(tsv_file: Path) -> pd.DataFrame:
    return pd.read_csv(tsv_file, sep="\t", quoting=3)


@pytest.fixture(scope="module")
def by_command(tiny_teacher_dir: Path, tsv_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("command") / "teacher"
    args = ["--model", tiny_teacher_dir, "--data", tsv_file, "--eval-data", tsv_file, "--out", out]
    flags = ["--task", "sst2", "--epochs", "1", "--lr", "1e-3", "--seed", "5", "--device", "cpu"]
    result = CliRunner().invoke(main, ["finetune", *map(str, args), *flags])
    assert result.exit_code == 0, result.output
    return out


def assert_same_model(one: Path, other: Path) -> None:
    ours, theirs = weights_of(one), weights_of(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_rows_in_memory_and_a_folder_make_the_same_model(
    by_command: Path, tiny_teacher_dir: Path, frame: pd.DataFrame, tsv_file: Path, tmp_path: Path
) -> None:
    result = trainer.finetune(tiny_teacher_dir, frame, frame.to_dict("list"), out=tmp_path / "a", **OPTIONS)
    assert_same_model(tmp_path / "a", by_command)
    assert result["scores"] == json.loads((by_command / "metrics.json").read_text(encoding="utf-8"))["scores"]
    # The command's run is that of the call, and of a request.
    assert trainer.finetune(str(tiny_teacher_dir), tsv_file, frame, out=by_command, **OPTIONS)["best"] == result["best"]
    asked = {"model": str(tiny_teacher_dir), "epochs": 1, "learning_rate": 1e-3, "seed": 5, "device": "cpu"}
    request = FinetuneRequest(data=str(tsv_file), eval_data=str(tsv_file), layout=Layout(task_name="sst2"), **asked)
    assert trainer.finetune(request, by_command)["best"] == result["best"]
    with pytest.raises(SpecError, match="a FinetuneRequest needs out"):
        trainer.finetune(request)


def test_a_model_in_memory_goes_on_and_is_told_by_its_own_name(
    by_command: Path, tiny_teacher_dir: Path, frame: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(tiny_teacher_dir)
    tokenizer = AutoTokenizer.from_pretrained(tiny_teacher_dir)
    given = {"out": tmp_path / "a", "tokenizer": tokenizer, **OPTIONS}
    result = trainer.finetune(model, frame, frame, **given)
    assert_same_model(tmp_path / "a", by_command)
    assert result["origin"] == {"source": str(tiny_teacher_dir), "random_weights": False}
    capsys.readouterr()
    assert trainer.finetune(model, frame, frame, **given) == result
    assert "is finished already" in capsys.readouterr().err
    with torch.no_grad():
        next(model.parameters()).mul_(2)
    with pytest.raises(CacheError, match="holds a run with weights"):
        trainer.finetune(model, frame, frame, **given)
    texts = [path.read_text(encoding="utf-8") for path in (tmp_path / "a").iterdir() if path.suffix in {".json", ".md"}]
    assert not any(f"{tempfile.gettempdir()}/hskcache-" in text for text in texts)


def test_a_shape_takes_a_tokenizer_in_memory_and_goes_on(
    tiny_teacher_dir: Path, narrow: Path, frame: pd.DataFrame, tmp_path: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_teacher_dir)
    first = trainer.finetune(narrow, frame, frame, out=tmp_path / "a", tokenizer=tokenizer, **OPTIONS)
    assert trainer.finetune(narrow, frame, frame, out=tmp_path / "a", tokenizer=tokenizer, **OPTIONS) == first
    trainer.finetune(narrow, frame, frame, out=tmp_path / "b", tokenizer=tiny_teacher_dir, **OPTIONS)
    assert_same_model(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"epoch": 1}, "trainer.finetune has no option epoch; do you mean 'epochs'"),
        ({"epochs": 0}, "epochs is 0; give a whole number from 1 on"),
        ({"epochs": "3"}, "epochs is '3'; give a whole number"),
        ({"lr": 0}, "lr is 0; give a number above 0"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"warmup_ratio": 1}, "warmup_ratio is 1; give a share from 0 on and below 1"),
        ({"eval_data": None}, "needs data, eval_data and out"),
        ({"out": None}, "needs data, eval_data and out"),
        ({"tokenizer": None}, "a model in memory brings no tokenizer"),
        ({"model": 7, "tokenizer": "x"}, "a model is a folder, a hub id or a model of transformers; a int was given"),
        ({"metric": "acuracy"}, "acuracy"),
        ({"report_to": "wnadb"}, "wnadb"),
        ({"task": "sst"}, "sst"),
    ],
)
def test_what_a_keyword_cannot_be_is_told(
    given: dict[str, Any], words: str, tiny_teacher_dir: Path, frame: pd.DataFrame, tmp_path: Path
) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(tiny_teacher_dir)
    tokenizer = AutoTokenizer.from_pretrained(tiny_teacher_dir)
    usual = {"model": model, "tokenizer": tokenizer, "data": frame, "eval_data": frame, "out": tmp_path / "a"}
    with pytest.raises(SpecError, match=words):
        trainer.finetune(**usual | OPTIONS | given)
    assert not (tmp_path / "a").exists()
