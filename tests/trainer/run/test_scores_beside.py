"""A student's scores stand beside its teacher's and the majority's: on the screen, in metrics.json and in the card."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from huggingface_hub import ModelCard
from tiny import config_file

from hskcache.cli import main as hskcache
from trainer.cli import main as hsktrain

KEEP = ("--keep", "2l_6t", "--student-layers", "2", "--max-length", "24", "--device", "cpu")
QUICK = ("--set", "hidden.epochs=1", "--set", "prediction.epochs=2", "--device", "cpu")
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ROOT = Path(__file__).resolve().parents[3]


def invoke(command: Any, *args: object) -> Result:
    result = CliRunner().invoke(command, list(map(str, args)), catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return result


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def place(tiny_teacher_dir: Path, tsv_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows, a student's config, and a cache whose build has scored the teacher on these rows."""
    folder = tmp_path_factory.mktemp("beside")
    shutil.copy(tsv_file, folder / "dev.tsv")
    config_file(folder, width=16).rename(folder / "narrow.json")
    rows = ("--data", tsv_file, "--task", "sst2", "--eval-data", folder / "dev.tsv")
    invoke(hskcache, "build", "--teacher", tiny_teacher_dir, *rows, *KEEP, "--out", folder / "scored.hsk")
    return folder


def fit(place: Path, out: Path, *args: object, cache: str = "scored.hsk") -> Result:
    given = ("--cache", place / cache, "--student", place / "narrow.json", "--eval-data", place / "dev.tsv")
    return invoke(hsktrain, "fit", *given, *QUICK, "--out", out, *args)


@pytest.fixture(scope="module")
def fitted(place: Path) -> tuple[Path, Result]:
    """A student and all that its run has said."""
    return place / "student", fit(place, place / "student")


def test_every_evaluation_is_told_beside_the_teacher_and_the_majority(
    place: Path, fitted: tuple[Path, Result], tiny_teacher_dir: Path
) -> None:
    out, result = fitted
    metrics = read(out / "metrics.json")
    scored = invoke(
        hsktrain, "evaluate", "--model", tiny_teacher_dir, "--data", place / "dev.tsv", "--task", "sst2", "--json",
        "--max-length", 24, "--device", "cpu",
    )  # fmt: skip
    teacher = json.loads(scored.stdout)["metrics"]
    assert metrics["baselines"] == {"teacher": pytest.approx(teacher), "majority": {"accuracy": 0.5}}
    lines = [line for line in result.stderr.splitlines() if line.startswith("prediction epoch ")]
    assert [line.partition(":")[0] for line in lines] == ["prediction epoch 1", "prediction epoch 2"]
    assert all(line.endswith(f"; teacher {teacher['accuracy']:.4f}, majority 0.5000") for line in lines)
    first, second = (entry["accuracy"] for entry in metrics["stages"][-1]["evaluations"])
    assert f"accuracy {first:.4f}; the best so far; " in lines[0]
    told = "the best so far" if second > first else f"best accuracy {first:.4f} in epoch 1"
    assert f"accuracy {second:.4f}; {told}; " in lines[1]


def test_the_end_tells_the_score_its_epoch_and_the_share_that_is_kept(fitted: tuple[Path, Result]) -> None:
    out, result = fitted
    metrics = read(out / "metrics.json")
    score, best = metrics["scores"]["accuracy"], metrics["best"]
    evaluations = metrics["stages"][-1]["evaluations"]
    assert best["epoch"] == next(one["epoch"] for one in evaluations if one["accuracy"] == score)
    kept = 100 * score / metrics["baselines"]["teacher"]["accuracy"]
    error = (score * (1 - score) / 96) ** 0.5
    line = next(line for line in result.stderr.splitlines() if line.startswith(f"{out}: accuracy"))
    assert f"accuracy {score:.4f} (standard error {error:.4f}, 96 rows), of epoch {best['epoch']:g}" in line
    assert line.endswith(f"{kept:.1f} % of the teacher's is kept")
    assert f"next: hsktrain predict --model {out}" in result.stderr


def test_a_cache_without_the_score_says_so_once_and_tells_the_agreement_with_its_own_rows(
    place: Path, tiny_teacher_dir: Path, tsv_file: Path, tmp_path: Path
) -> None:
    rows = ("--data", tsv_file, "--task", "sst2")
    invoke(hskcache, "build", "--teacher", tiny_teacher_dir, *rows, *KEEP, "--out", tmp_path / "bare.hsk")
    said = fit(place, tmp_path / "student", cache=str(tmp_path / "bare.hsk")).stderr
    share = read(tmp_path / "bare.hsk" / "manifest.json")["agreement"]["logits"]["num_agreed"] / 96
    assert said.count(f"is not known (the cache's hskcache build takes it with --eval-data {place / 'dev.tsv'})") == 1
    assert f"of the rows of the cache it agrees with {100 * share:.1f} % of the labels" in said
    assert "; majority 0.5000" in said
    assert read(tmp_path / "student" / "metrics.json")["baselines"].keys() == {"majority"}


def test_rows_that_the_teacher_was_not_scored_on_have_no_score_of_it(place: Path, tmp_path: Path) -> None:
    few = tmp_path / "few.tsv"
    few.write_text("".join((place / "dev.tsv").read_text().splitlines(keepends=True)[:31]), encoding="utf-8")
    given = ("--cache", place / "scored.hsk", "--student", place / "narrow.json", "--eval-data", few)
    invoke(hsktrain, "fit", *given, *QUICK, "--out", tmp_path / "student")
    assert "teacher" not in read(tmp_path / "student" / "metrics.json")["baselines"]


def test_a_teacher_in_the_loop_is_scored_on_the_rows(place: Path, tiny_teacher_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(invoke(hskcache, "info", place / "scored.hsk", "--spec").stdout)
    rows = ("--data", place / "dev.tsv", "--eval-data", place / "dev.tsv", "--task", "sst2")
    live = ("--teacher", tiny_teacher_dir, "--spec", tmp_path / "spec.yaml", "--student", place / "narrow.json")
    invoke(hsktrain, "fit", *live, *rows, *QUICK, "--out", tmp_path / "student")
    ours, cached = (read(out / "metrics.json")["baselines"] for out in (tmp_path / "student", fit_once(place)))
    assert ours["teacher"] == pytest.approx(cached["teacher"])


def fit_once(place: Path) -> Path:
    if not (place / "student" / "metrics.json").exists():
        fit(place, place / "student")
    return place / "student"


def test_the_card_is_read_by_the_hubs_library(place: Path, fitted: tuple[Path, Result]) -> None:
    out, _ = fitted
    metrics, card = read(out / "metrics.json"), ModelCard.load(out / "README.md")
    assert card.data.library_name == "transformers"
    assert "knowledge-distillation" in card.data.tags
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value) == ("accuracy", metrics["scores"]["accuracy"])
    assert (result.dataset_type, result.dataset_name) == ("sst2", "dev.tsv")
    assert f"`{read(place / 'scored.hsk' / 'manifest.json')['cache_id']}`: `logits`, `hidden`" in card.text
    assert "| accuracy | " in card.text
    assert "learning_rate:" in card.text
    assert str(place) not in card.content, "a path of this machine is nothing for others"
    arguments = read(out / "training_args.json")
    assert arguments["prediction"]["num_train_epochs"] == 2
    assert arguments.keys() == {"hidden", "prediction"}
    assert str(place) not in (out / "training_args.json").read_text()


def test_sizes_are_those_of_both_models(fitted: tuple[Path, Result], tiny_teacher_dir: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    out, _ = fitted
    ours, theirs = (
        AutoModelForSequenceClassification.from_pretrained(folder).num_parameters()
        for folder in (out, tiny_teacher_dir)
    )
    assert f"| parameters | {ours:,} | {theirs:,} |" in (out / "README.md").read_text()


def test_what_the_card_says_to_run_runs_as_printed(place: Path, fitted: tuple[Path, Result]) -> None:
    out, _ = fitted
    blocks = BLOCK.findall((out / "README.md").read_text(encoding="utf-8"))
    assert [language for language, _ in blocks] == ["python", "bash"]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    settings: dict[str, Any] = {"cwd": place, "env": environment, "capture_output": True, "text": True, "timeout": 120}
    answered = subprocess.run([sys.executable, "-c", blocks[0][1]], **settings)
    assert "score" in answered.stdout, answered.stderr
    commands = [shlex.split(line) for line in blocks[1][1].splitlines() if line.startswith("hsktrain ")]
    assert [words[1] for words in commands] == ["evaluate", "predict"]
    for words in commands:
        done = subprocess.run([*words, "--device", "cpu"], **settings)
        assert done.returncode == 0, done.stderr
    assert (place / "predictions.tsv").read_text().count("\n") == 97


@pytest.mark.parametrize("change", [lambda _card: "mine\n", lambda card: card.replace("Scores", "My scores")])
def test_a_card_that_somebody_wrote_or_edited_stays(
    change: Callable[[str], str], place: Path, fitted: tuple[Path, Result], tmp_path: Path
) -> None:
    """A run is finished again where its record is gone: what it writes then leaves the card alone."""
    out = Path(shutil.copytree(fitted[0], tmp_path / "student"))
    for name in ("metrics.json", "asked.json"):
        (out / name).unlink()
    edited = change((out / "README.md").read_text())
    (out / "README.md").write_text(edited)
    fit(place, out)
    assert (out / "metrics.json").is_file()
    assert (out / "README.md").read_text() == edited


def test_a_teacher_of_ours_has_a_card_and_its_scores_go_into_the_cache(place: Path, tmp_path: Path) -> None:
    rows = ("--data", place / "dev.tsv", "--eval-data", place / "dev.tsv", "--task", "sst2")
    begun = config_file(tmp_path, width=32)
    tuned = ("--model", begun, "--tokenizer", place / "scored.hsk" / "tokenizer", "--lr", "3e-3", "--epochs", 2)
    said = invoke(hsktrain, "finetune", *tuned, *rows, "--max-length", 24, "--device", "cpu", "--out", tmp_path / "t")
    assert "epoch 1: accuracy" in said.stderr
    metrics, card = read(tmp_path / "t" / "metrics.json"), ModelCard.load(tmp_path / "t" / "README.md")
    assert card.data.eval_results[0].metric_value == metrics["best"]["metrics"]["accuracy"]
    assert "fine-tuned on labels" in card.text
    build = ("build", "--teacher", tmp_path / "t", "--data", place / "dev.tsv", *KEEP)
    told = invoke(hskcache, *build, "--out", tmp_path / "c.hsk").stderr
    assert f"the teacher has accuracy {metrics['scores']['accuracy']:.4f} on" in told
    result = fit(place, tmp_path / "s", cache=str(tmp_path / "c.hsk"))
    assert f"; teacher {metrics['scores']['accuracy']:.4f}, majority 0.5000" in result.stderr


def test_a_package_to_report_to_that_is_missing_is_named_at_once(place: Path, tmp_path: Path) -> None:
    missing = next((name for name in ("wandb", "mlflow") if find_spec(name) is None), None)
    if missing is None:
        pytest.skip("both are installed")
    given = ("--cache", place / "scored.hsk", "--student", "nowhere", "--eval-data", "nowhere.tsv")
    result = CliRunner().invoke(
        hsktrain,
        list(map(str, ["fit", *given, "--out", tmp_path / "o", "--report-to", missing])),
        catch_exceptions=False,
    )
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: --report-to {missing}: {missing} is not installed; pip install {missing}")
    assert not (tmp_path / "o").exists()


MLFLOW = """
__version__ = "3.17.2"
class MlflowException(Exception):
    pass
class utils:
    class validation:
        MAX_PARAM_VAL_LENGTH = MAX_PARAMS_TAGS_PER_BATCH = 100
def active_run():
    return None
def is_tracking_uri_set():
    return True
def get_tracking_uri():
    return "mlruns"
def start_run(**options):
    raise MlflowException("The filesystem tracking backend is in maintenance mode.\\nSee the page.")
"""


def test_a_package_to_report_to_that_fails_is_told_in_a_line(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As mlflow 3.17 refuses a folder, and wandb 0.31 to begin without a key; both have been seen to."""
    path = tmp_path / "mlflow.py"
    path.write_text(MLFLOW, encoding="utf-8")
    spec = spec_from_file_location("mlflow", path)
    assert spec is not None
    assert spec.loader is not None
    package = module_from_spec(spec)
    spec.loader.exec_module(package)
    monkeypatch.setitem(sys.modules, "mlflow", package)
    given = ("--cache", place / "scored.hsk", "--student", place / "narrow.json", "--eval-data", place / "dev.tsv")
    words = ["fit", *given, *QUICK, "--out", tmp_path / "s", "--report-to", "mlflow"]
    result = CliRunner().invoke(hsktrain, list(map(str, words)))
    assert result.exit_code == 2
    line = result.stderr.splitlines()[-1]
    assert line.startswith(
        "error: --report-to mlflow: The filesystem tracking backend is in maintenance mode; mend that"
    )
    assert "accuracy" in fit(place, tmp_path / "s").stderr
