"""``hsktrain fit`` as a user types it, after ``hskcache build``."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from tiny import config_file, scalars, weights_of
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertForSequenceClassification

from hskcache.cli import main as hskcache
from trainer.cli import main as hsktrain

ROOT = Path(__file__).resolve().parents[3]
HSKTRAIN = Path(sys.executable).with_name("hsktrain")
KEEP = ["--keep", "2l_6t_0.3h", "--student-layers", "2", "--max-length", "24", "--encoding", "float32"]
QUICK = ["--set", "hidden.epochs=1", "--set", "prediction.epochs=1", "--set", "prediction.learning_rate=1e-3"]
CPU = ["--device", "cpu"]


def invoke(command: Any, *args: object) -> Result:
    return CliRunner().invoke(command, list(map(str, args)), catch_exceptions=False)


def data_of(result: Result) -> Any:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def places(tiny_teacher_dir: Path, tsv_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A cache with labels, one without hidden states, a spec file, and a student's config."""
    folder = tmp_path_factory.mktemp("places")
    common = ["build", "--teacher", tiny_teacher_dir, "--data", tsv_file, *CPU]
    assert invoke(hskcache, *common, "--task", "sst2", *KEEP, "--out", folder / "cache").exit_code == 0
    bare = ["--text", "sentence", "--keep", "none", "--max-length", "24"]
    assert invoke(hskcache, *common, *bare, "--out", folder / "logits").exit_code == 0
    spec = data_of(invoke(hskcache, "info", folder / "cache", "--json"))["spec"]
    (folder / "spec.yaml").write_text(json.dumps(spec), encoding="utf-8")
    found = {name: folder / name for name in ("cache", "logits", "spec.yaml")}
    return found | {
        "teacher": tiny_teacher_dir,
        "data": tsv_file,
        "student": config_file(folder, width=16),
        "deep": config_file(folder / "deep", num_hidden_layers=3),
    }


def fit(places: dict[str, Path], out: Path, *args: object) -> Result:
    given = ["--cache", places["cache"], "--student", places["student"], "--eval-data", places["data"], "--out", out]
    return invoke(hsktrain, "fit", *given, *CPU, *args)


def test_the_result_is_json_on_stdout_and_progress_on_stderr(
    places: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    result = fit(places, tmp_path / "out", *QUICK, "--json")
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert data_of(result) == metrics
    assert metrics["origin"] == {"source": str(places["student"]), "random_weights": True}
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "prediction loss" in result.stderr + printed.err


def test_the_metric_that_is_chosen_picks_and_belongs_to_the_run(places: dict[str, Path], tmp_path: Path) -> None:
    given = [*QUICK, "--metric", "f1", "--eval-steps", 2]
    result = data_of(fit(places, tmp_path / "out", *given, "--json"))
    assert result["metric"] == "f1"
    assert list(result["scores"]) == ["f1", "accuracy"]
    evaluations = result["stages"][-1]["evaluations"]
    assert max(entry["f1"] for entry in evaluations) == result["scores"]["f1"]
    assert any(not float(entry["epoch"]).is_integer() for entry in evaluations)
    again = fit(places, tmp_path / "out", *QUICK, "--eval-steps", 2)
    assert again.exit_code == 2
    assert "holds a run with metric 'f1' and this one has 'accuracy'" in again.stderr


def test_people_see_one_metric_a_line(places: dict[str, Path], tmp_path: Path) -> None:
    result = fit(places, tmp_path / "out", *QUICK)
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["accuracy"]
    assert "hidden: 3 steps" in result.stderr
    again = fit(places, tmp_path / "out", *QUICK)
    assert again.stdout == result.stdout
    assert "is finished already" in again.stderr


def test_evaluate_gives_the_score_that_fit_gave(places: dict[str, Path], tmp_path: Path) -> None:
    fitted = data_of(fit(places, tmp_path / "out", *QUICK, "--json"))
    scored = invoke(
        hsktrain, "evaluate", "--model", tmp_path / "out", "--data", places["data"], "--task", "sst2", *CPU, "--json"
    )
    assert data_of(scored)["metrics"] == pytest.approx(fitted["scores"])


def test_further_files_score_the_finished_student_and_choose_nothing(places: dict[str, Path], tmp_path: Path) -> None:
    few, out = tmp_path / "few.tsv", tmp_path / "out"
    few.write_text("".join(places["data"].read_text().splitlines(keepends=True)[:8]), encoding="utf-8")
    result = data_of(fit(places, out, *QUICK, "--eval-data", few, "--json"))
    scored = data_of(invoke(hsktrain, "evaluate", "--model", out, "--data", few, *CPU, "--json"))
    assert result["others"] == {str(few): scored["metrics"]}
    assert len(result["stages"][-1]["evaluations"]) == 1, "of the first file alone"
    again = fit(places, out, *QUICK, "--eval-data", few)
    lines = [line.split() for line in again.stdout.splitlines()]
    assert lines == [
        [str(places["data"]), "accuracy", f"{result['scores']['accuracy']:.4f}"],
        [str(few), "accuracy", f"{scored['metrics']['accuracy']:.4f}"],
    ]
    plain = fit(places, tmp_path / "plain", *QUICK)
    assert plain.exit_code == 0
    late = fit(places, tmp_path / "plain", *QUICK, "--eval-data", few)
    assert f"was finished without {few}; score it with hsktrain evaluate" in late.stderr


def test_the_teacher_in_the_loop_gives_the_same_student(places: dict[str, Path], tmp_path: Path) -> None:
    """Also of a student that has learned before, whose projection both go on with."""
    assert fit(places, tmp_path / "begun", *QUICK).exit_code == 0
    given = ["--student", tmp_path / "begun", "--seed", 1, *QUICK, "--json"]
    cached = fit(places, tmp_path / "cached", *given)
    live = invoke(
        hsktrain,
        *["fit", "--teacher", places["teacher"], "--data", places["data"], "--spec", places["spec.yaml"]],
        *["--task", "sst2", "--eval-data", places["data"], "--out", tmp_path / "live", *CPU, *given],
    )
    assert data_of(live)["scores"] == pytest.approx(data_of(cached)["scores"])
    for stage in ("hidden", "prediction"):
        ours, theirs = (scalars(tmp_path / name / "logs" / stage)["train/loss"] for name in ("cached", "live"))
        assert ours == pytest.approx(theirs, rel=1e-5)
    for result in (cached, live):
        assert "hidden: goes on with the student's projection (shared, 16 -> 32)" in result.stderr


def test_a_teacher_in_the_loop_that_gives_nan_ends_in_one_line_and_leaves_no_checkpoint(
    places: dict[str, Path], tmp_path: Path
) -> None:
    """One word of the data makes it so; a cache would have been refused, or built without those rows."""
    tokenizer = AutoTokenizer.from_pretrained(places["teacher"])
    teacher = AutoModelForSequenceClassification.from_pretrained(places["teacher"])
    row = places["data"].read_text(encoding="utf-8").splitlines()[7].split("\t")[0]
    with torch.no_grad():
        teacher.get_input_embeddings().weight[tokenizer(row)["input_ids"][1]] = torch.nan
    teacher.save_pretrained(tmp_path / "teacher")
    tokenizer.save_pretrained(tmp_path / "teacher")
    given = ["fit", "--teacher", tmp_path / "teacher", "--data", places["data"], "--spec", places["spec.yaml"]]
    given += ["--task", "sst2", "--student", places["student"], "--eval-data", places["data"], *CPU, *QUICK]
    for _ in range(2):
        result = invoke(hsktrain, *given, "--save-steps", 1, "--out", tmp_path / "out")
        assert result.exit_code == 2
        (line,) = (line for line in result.stderr.splitlines() if line.startswith("error"))
        assert "the teacher has given values that are not finite" in line
        states = [torch.load(path) for path in (tmp_path / "out").rglob("objective.pt")]
        assert all(tensor.isfinite().all() for state in states for tensor in state.values())
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_rows_without_labels_teach_by_logits(places: dict[str, Path], tmp_path: Path) -> None:
    """The cache knows no task and no labels; the evaluation data bring theirs."""
    given = ["--cache", places["logits"], "--recipe", "logits", "--set", "prediction.epochs=1", "--task", "sst2"]
    result = fit(places, tmp_path / "out", *given, "--json")
    assert set(data_of(result)["scores"]) == {"accuracy"}
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert model.config.num_labels == 2


def test_the_first_rows_alone_are_trained_on_where_so_many_are_asked_for(
    places: dict[str, Path], tmp_path: Path
) -> None:
    """And a run of other rows is another run."""
    given = ["--recipe", "labels", "--set", "labels.epochs=1", "--set", "labels.batch_size=8"]
    result = data_of(fit(places, tmp_path / "out", *given, "--rows", 20, "--json"))
    assert [stage["steps"] for stage in result["stages"]] == [3]
    again = fit(places, tmp_path / "out", *given)
    assert again.exit_code == 2
    assert "holds a run with knowledge" in again.stderr


@pytest.mark.parametrize("columns", [["--task", "sst2"], ["--text", "sentence", "--label", "label"], []])
def test_epochs_are_those_of_the_task_of_the_rows(columns: list[str], places: dict[str, Path], tmp_path: Path) -> None:
    stage = {"name": "labels", "epochs": 3, "epochs_by_task": {"sst2": 1}, "losses": {"label": {}}}
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(json.dumps({"name": "mine", "stages": [stage]}), encoding="utf-8")
    result = data_of(fit(places, tmp_path / "out", "--recipe", recipe, *columns, "--json"))
    assert [stage["steps"] for stage in result["stages"]] == [3]


def test_a_regression_learns_scores(places: dict[str, Path], tmp_path: Path) -> None:
    teacher = BertForSequenceClassification.from_pretrained(
        places["teacher"], num_labels=1, ignore_mismatched_sizes=True
    )
    teacher.config.problem_type = "regression"
    teacher.save_pretrained(tmp_path / "teacher")
    AutoTokenizer.from_pretrained(places["teacher"]).save_pretrained(tmp_path / "teacher")
    rows = places["data"].read_text(encoding="utf-8").splitlines()[1:]
    lines = ["text\tscore", *(f"{row.split(chr(9))[0]}\t{len(row) / 10}" for row in rows)]
    data = tmp_path / "scores.tsv"
    data.write_text("\n".join(lines) + "\n", encoding="utf-8")
    columns = ["--text", "text", "--label", "score"]
    built = invoke(
        hskcache,
        *["build", "--teacher", tmp_path / "teacher", "--data", data, *columns, *KEEP, *CPU, "--out", tmp_path / "c"],
    )
    assert built.exit_code == 0, built.stderr
    recipe = [*QUICK, "--set", "prediction.losses.label.weight=1"]
    scored = places | {"cache": tmp_path / "c", "data": data}
    result = data_of(fit(scored, tmp_path / "out", *columns, *recipe, "--json"))
    assert result["metric"] == "pearson"
    assert set(result["scores"]) == {"pearson", "spearman"}
    logs = scalars(tmp_path / "out" / "logs" / "prediction")
    assert {"train/loss_soft", "train/loss_label"} <= logs.keys()


def test_a_student_with_the_teachers_tokenizer_goes_on_from_its_weights(
    places: dict[str, Path], tmp_path: Path
) -> None:
    cut = ["create", "--from", places["teacher"], "--layers", "uniform:2", "--out", tmp_path / "student"]
    assert invoke(hsktrain, *cut).exit_code == 0
    given = ["--student", tmp_path / "student", "--recipe", "labels", "--set", "labels.epochs=0.1"]
    given += ["--set", "labels.learning_rate=1e-12", "--json"]
    assert fit(places, tmp_path / "out", *given).exit_code == 0
    for name, tensor in weights_of(tmp_path / "student").items():
        torch.testing.assert_close(weights_of(tmp_path / "out")[name], tensor, rtol=0, atol=1e-6)


def test_without_labelled_rows_the_end_is_kept_and_nothing_is_scored(places: Any, tmp_path: Path) -> None:
    given = ["--cache", places["cache"], "--student", places["student"], *CPU, *QUICK]
    refused = invoke(hsktrain, "fit", *given, "--out", tmp_path / "none")
    assert refused.exit_code == 2
    assert "--set prediction.select=last keeps the end and scores nothing" in refused.stderr
    done = invoke(hsktrain, "fit", *given, "--set", "prediction.select=last", "--out", tmp_path / "s")
    assert done.exit_code == 0, done.stderr
    assert "no score, as there are no labelled rows" in done.stderr
    assert json.loads((tmp_path / "s" / "metrics.json").read_text())["scores"] == {}
    card = (tmp_path / "s" / "README.md").read_text(encoding="utf-8")
    assert "A classifier of texts" in card
    assert "hsktrain predict --model s --data FILE" in card


MISTAKES: dict[str, tuple[list[str], str]] = {
    "neither cache nor teacher": (["fit"], "give either --cache CACHE or --teacher"),
    "both": (["fit", "--cache", "{cache}", "--teacher", "{teacher}"], "give either --cache CACHE or --teacher"),
    "data with a cache": (["fit", "--cache", "{cache}", "--data", "{data}"], "--data belongs to --teacher"),
    "spec with a cache": (["fit", "--cache", "{cache}", "--spec", "{spec.yaml}"], "--spec belongs to --teacher"),
    "teacher without data": (["fit", "--teacher", "{teacher}"], "--data FILE"),
    "missing spec": (
        ["fit", "--teacher", "{teacher}", "--data", "{data}", "--task", "sst2", "--spec", "/no/spec.yaml"],
        "--spec /no/spec.yaml: No such file",
    ),
    "too many rows": (["fit", "--cache", "{cache}", "--rows", "97"], "the first 97 rows are asked for"),
    "rows of a teacher": (
        ["fit", "--teacher", "{teacher}", "--data", "{data}", "--task", "sst2", "--spec", "{spec.yaml}", "--rows", "9"],
        "--rows belongs to --cache",
    ),
    "no cache": (["fit", "--cache", "/no/cache"], "/no/cache"),
    "not a cache": (["fit", "--cache", "{teacher}"], "is not a cache"),
    "unknown recipe": (
        ["fit", "--cache", "{cache}", "--recipe", "mut"],
        "none of embedding, heal, labels, lm, lm-hidden, logits, logits-long, mud, stark, tinybert-general, ",
    ),
    "unknown setting": (["fit", "--cache", "{cache}", "--set", "hidden.epoch=1"], "hidden.epoch=1: stages.0.epoch"),
    "no hidden states": (["fit", "--cache", "{logits}", "--task", "sst2"], "learns from hidden states"),
    "no labels": (["fit", "--cache", "{logits}", "--recipe", "labels"], "learns from labels"),
    "no labels to score on": (
        ["fit", "--cache", "{logits}", "--recipe", "logits", "--text", "sentence"],
        "is read without labels to score the student on",
    ),
    "other layers": (["fit", "--cache", "{cache}", "--student", "{deep}"], "has 3 layers"),
    "uneven slices": (["fit", "--cache", "{cache}", "--gradient-accumulation", "5"], "cannot be cut into 5"),
    "unknown metric": (["fit", "--cache", "{cache}", "--metric", "accurracy"], "do you mean 'accuracy'?"),
    "metric of scores": (["fit", "--cache", "{cache}", "--metric", "pearson"], "not a metric of a classification task"),
    "no best to evaluate": (
        ["fit", "--cache", "{cache}", "--eval-steps", "2", "--set", "prediction.select=last"],
        "no stage of recipe 'mud' keeps its best weights",
    ),
    "unknown task": (["fit", "--cache", "{cache}", "--task", "sst3"], "'sst3' is not a task"),
    "task of other columns": (["fit", "--cache", "{cache}", "--task", "rte"], "no column 'sentence1'"),
    "task of other classes": (
        ["fit", "--cache", "{cache}", "--task", "mnli"],
        "--task mnli has 3 outputs and the cache",
    ),
    "score for classes": (["fit", "--cache", "{cache}", "--task", "stsb"], "--task stsb has 1 output and the cache"),
    "missing rows": (["fit", "--cache", "{cache}", "--eval-data", "/no/dev.tsv"], "/no/dev.tsv"),
    "unknown student": (["fit", "--cache", "{cache}", "--student", "./huge"], "huge"),
    "other tokenizer": (
        ["fit", "--cache", "{cache}", "--student", "{other}", "--recipe", "logits"],
        "the tokenizer of",
    ),
    "other classes": (["fit", "--cache", "{cache}", "--student", "{three}", "--recipe", "logits"], "3 classes"),
    "small vocabulary": (["fit", "--cache", "{cache}", "--student", "{small}", "--recipe", "logits"], "token ids"),
    "few positions": (["fit", "--cache", "{cache}", "--student", "{short}", "--recipe", "logits"], "16 positions"),
    "folder in use": (["fit", "--cache", "{cache}", "--out", "{teacher}"], "is not empty"),
}


@pytest.fixture(scope="module")
def checkpoints(places: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Students with weights that each differ in one thing from what the cache needs."""
    folder = tmp_path_factory.mktemp("checkpoints")
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "max_position_embeddings": 64,
        "vocab_size": len(AutoTokenizer.from_pretrained(places["teacher"])),
    }
    changes: dict[str, dict[str, Any]] = {
        "other": {},
        "three": {"num_labels": 3},
        "small": {"vocab_size": 60},
        "short": {"max_position_embeddings": 16},
    }
    for name, change in changes.items():
        BertForSequenceClassification(BertConfig(**sizes | change)).save_pretrained(folder / name)
    tokenizer = json.loads((places["teacher"] / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    first, second = sorted(vocabulary, key=vocabulary.get)[-2:]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (folder / "other" / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    shutil.copy(places["teacher"] / "tokenizer_config.json", folder / "other")
    return {name: folder / name for name in changes}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_in_one_line_before_anything_is_written(
    mistake: str, places: dict[str, Path], checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    known = {name: str(path) for name, path in (places | checkpoints).items()} | {"spec.yaml": "spec.yaml"}
    args, complaint = MISTAKES[mistake]
    given = [arg if arg != "{spec.yaml}" else str(places["spec.yaml"]) for arg in args]
    given = [arg.format(**known) for arg in given]
    for flag, value in (("--student", "student"), ("--eval-data", "data")):
        if flag not in given:
            given += [flag, str(places[value])]
    if "--out" not in given:
        given += ["--out", str(tmp_path / "out")]
    result = invoke(hsktrain, *given, *CPU)
    assert result.exit_code == 2, result.stderr
    assert complaint in result.stderr
    assert result.stdout == ""
    assert len([line for line in result.stderr.splitlines() if line.lower().startswith("error")]) == 1
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


# As in an environment without the extra "teacher": datasets and pyarrow cannot be imported.
ALONE = """
import sys
sys.modules.update(dict.fromkeys(("datasets", "pyarrow", "pandas")))
from trainer.cli import main
main(sys.argv[1:], standalone_mode=False)
loaded = [name for name in sorted(sys.modules) if name.split(".")[0] == "hskcache"]
rooms = ("teacher", "build", "audit", "repair", "cli", "selection.")
print([name for name in loaded if name.startswith(tuple(f"hskcache.{room}" for room in rooms))])
"""


def test_a_cached_run_needs_no_teacher_and_none_of_its_extra(places: dict[str, Path], tmp_path: Path) -> None:
    args = ["fit", "--cache", places["cache"], "--student", places["student"], "--eval-data", places["data"]]
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *map(str, [*args, "--out", tmp_path / "out", *CPU, *QUICK])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = [f"hskcache.selection.{name}" for name in ("columns", "depth", "positions")]
    assert done.stdout.splitlines()[-1] == str(expected)
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_torchrun_trains_the_same_student_in_two_processes(places: dict[str, Path], tmp_path: Path) -> None:
    alone = data_of(fit(places, tmp_path / "alone", *QUICK, "--json"))
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python", HSKTRAIN]
    args = ["fit", "--cache", places["cache"], "--student", places["student"], "--eval-data", places["data"]]
    done = subprocess.run(
        [sys.executable, *map(str, [*launch, *args, "--out", tmp_path / "out", *CPU, *QUICK, "--json"])],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["scores"] == pytest.approx(alone["scores"])
    ours, theirs = weights_of(tmp_path / "out"), weights_of(tmp_path / "alone")
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=2e-4)
    assert len(list((tmp_path / "out" / "logs" / "hidden").iterdir())) == 1
