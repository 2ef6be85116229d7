"""``hsktrain fit --field`` as a user types it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from additions import Grown
from click.testing import CliRunner, Result
from tiny import config_file, weights_of
from transformers import AutoModelForSequenceClassification

from trainer.cli import main as hsktrain

QUICK = ["--recipe", "stark", "--set", "distillation.epochs=1", "--set", "distillation.learning_rate=1e-3"]


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return config_file(tmp_path_factory.mktemp("student"), width=16)


@pytest.fixture
def fit(grown: Grown, student: Path, tsv_file: Path, tmp_path: Path) -> Any:
    """Run the command over the cache with added fields, the output in a folder of the test."""

    def run(*args: object, out: str = "out", cache: Path = grown.cache.root) -> Result:
        given = ["--cache", cache, "--student", student, "--eval-data", tsv_file, "--out", tmp_path / out]
        command = ["fit", *given, "--device", "cpu", *args]
        return CliRunner().invoke(hsktrain, list(map(str, command)), catch_exceptions=False)

    return run


def data_of(result: Result) -> Any:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_a_student_learns_from_the_field_that_is_named(fit: Any, grown: Grown, tmp_path: Path) -> None:
    """The same as from the cache of that teacher; and the command is finished when it is given again."""
    result = data_of(fit(*QUICK, "--field", "s30", "--json"))
    assert set(result["stages"][0]["losses"]) == {"soft", "label"}
    data_of(fit(*QUICK, "--json", cache=grown.three.root, out="own"))
    data_of(fit(*QUICK, "--json", out="dense"))
    ours, own, dense = (weights_of(tmp_path / name) for name in ("out", "own", "dense"))
    assert all(torch.equal(tensor, own[name]) for name, tensor in ours.items())
    assert not all(torch.equal(tensor, dense[name]) for name, tensor in ours.items())
    again = fit(*QUICK, "--field", "s30", "--json")
    assert data_of(again) == result
    assert "is finished already" in again.stderr
    other = fit(*QUICK, "--field", "s50")
    assert other.exit_code == 2
    assert "holds a run with knowledge" in other.stderr


def test_an_ensemble_and_the_layers_of_another_teacher_teach_together(fit: Any, tmp_path: Path) -> None:
    given = ["--field", "s30=0.7", "--field", "s50=0.3", "--field", "hidden2", "--set", "hidden.epochs=1"]
    result = data_of(fit(*given, "--set", "prediction.epochs=1", "--json"))
    assert [stage["name"] for stage in result["stages"]] == ["hidden", "prediction"]
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert model.config.num_labels == 2


KNOWN = "it has logits, hidden, attention, s30, s50, hidden2, attention2, odd"
MISTAKES: dict[str, tuple[list[str], str]] = {
    "unknown": (["--field", "s70"], f"no field s70 to load; {KNOWN}"),
    "unknown with a weight": (["--field", "s70=2"], f"no field s70 to load; {KNOWN}"),
    "no name": (["--field", "=2"], "'=2' names no field; give NAME, or NAME=WEIGHT"),
    "the rows": (["--field", "inputs"], "field inputs holds the rows"),
    "twice": (["--field", "s30=1", "--field", "s30=2"], "field s30 is given twice"),
    "hidden states twice": (["--field", "hidden", "--field", "hidden2"], "fields hidden and hidden2 both hold hidden"),
    "attention twice": (["--field", "attention2", "--field", "attention"], "both hold attention scores"),
    "weighted hidden states": (["--field", "hidden2=1"], "field hidden2 holds hidden states, which have no weight"),
    "weighted attention": (["--field", "attention2=1"], "field attention2 holds attention scores, which have no weigh"),
    "no weight": (["--field", "s30=", "--field", "s50"], "'' is not a weight; give a number such as 0.7"),
    "not a number": (["--field", "s30=half"], "'half' is not a weight"),
    "weight 0": (["--field", "s30=0", "--field", "s50=1"], "field s30 has the weight 0; give a number above 0"),
    "weight below 0": (["--field", "s30=-1"], "field s30 has the weight -1; give a number above 0"),
    "weight nan": (["--field", "s30=nan"], "field s30 has the weight nan"),
    "one weight of two": (["--field", "s30=1", "--field", "s50"], "field s50 has no weight and another has one"),
    "other widths": (["--field", "s30", "--field", "odd"], "logits of 3 and 2 outputs, which cannot be averaged"),
    "another task": (["--field", "odd"], "has 3 outputs and the rows ask for 2"),
    "no stage learns from it": (
        ["--field", "attention2"],
        "--field attention2: recipe 'stark' learns from no attention",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_in_one_line_before_anything_is_written(mistake: str, fit: Any, tmp_path: Path) -> None:
    args, complaint = MISTAKES[mistake]
    check_refused(fit(*QUICK, *args), complaint, tmp_path)


def test_a_teacher_in_the_loop_has_no_fields_to_choose(
    tiny_teacher_dir: Path, tsv_file: Path, student: Path, tmp_path: Path
) -> None:
    live = ["--teacher", tiny_teacher_dir, "--data", tsv_file, "--task", "sst2", "--spec", tmp_path / "spec.yaml"]
    given = ["fit", *live, "--student", student, "--eval-data", tsv_file, "--out", tmp_path / "out", "--field", "s30"]
    result = CliRunner().invoke(hsktrain, [*map(str, given), *QUICK], catch_exceptions=False)
    check_refused(result, "--field s30 belongs to --cache", tmp_path)


def check_refused(result: Result, complaint: str, folder: Path) -> None:
    assert result.exit_code == 2, result.stderr
    assert complaint in result.stderr
    assert result.stdout == ""
    assert len([line for line in result.stderr.splitlines() if line.lower().startswith("error")]) == 1
    assert "Traceback" not in result.stderr
    assert not (folder / "out").exists()
