"""The trainer's commands look at files and folders before models, too."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from trainer.cli import main

GOOD = ("--data", "good.csv", "--eval-data", "good.csv", "--task", "sst2")
OTHER = ("--data", "good.csv", "--eval-data", "other.csv", "--task", "sst2")
STARK = ("stark", "--teacher", "./none-such", "--student", "tinybert4")
CASES = {
    "finetune, data": ("finetune", "--data", "other.csv", "--eval-data", "good.csv", "--task", "sst2"),
    "finetune, evaluation": ("finetune", *OTHER),
    "stark, data": (*STARK, "--data", "other.csv", "--eval-data", "good.csv", "--task", "sst2"),
    "stark, scores": (*STARK, *GOOD, "--score-data", "other.csv"),
    "fit, evaluation": ("fit", "--teacher", "./none-such", "--student", "tinybert4", "--spec", "s.yaml", *OTHER),
}


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the commands run; there is no model anywhere."""
    (tmp_path / "other.csv").write_text("text,score\nfine,1\nbad,0\n", encoding="utf-8")
    (tmp_path / "good.csv").write_text("sentence,label\nfine,1\nbad,0\n", encoding="utf-8")
    (tmp_path / "s.yaml").write_text("max_length: 32\n", encoding="utf-8")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", CASES)
def test_a_missing_column_is_told_first(name: str) -> None:
    model = ("--model", "./none-such") if name.startswith("finetune") else ()
    result = CliRunner().invoke(main, [*CASES[name], *model, "--out", "o", "--device", "cpu"])
    assert result.exit_code == 2
    assert "no column 'sentence'; the columns are text, score" in result.stderr.splitlines()[-1]
    assert not Path("o").exists()


def test_a_folder_that_holds_something_else_is_told_first() -> None:
    for command in (
        ("finetune", "--model", "./none-such", *GOOD),
        ("fit", "--cache", "none", "--student", "tinybert4"),
    ):
        result = CliRunner().invoke(main, [*command, "--out", "mine", "--device", "cpu"])
        assert (result.exit_code, "mine is not empty and holds no run" in result.stderr) == (2, True), result.stderr
    assert [path.name for path in Path("mine").iterdir()] == ["thesis.tex"]
