import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from click.testing import CliRunner, Result
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertForSequenceClassification, BertModel
from transformers.utils import logging

from trainer.cli import COMMANDS, main
from trainer.run.checkpoints import begun
from trainer.run.request import FinetuneArguments

ROOT = Path(__file__).resolve().parents[3]


def hsktrain(*args: object) -> Result:
    return CliRunner().invoke(main, list(map(str, args)), catch_exceptions=False)


def data_of(result: Result) -> Any:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture
def classifier(tiny_teacher_dir: Path, tmp_path: Path) -> Any:
    """Save the tiny teacher again with other class names, its outputs reordered to match."""

    def save(*names: str, order: tuple[int, ...] = (0, 1)) -> Path:
        logging.disable_progress_bar()
        model = BertForSequenceClassification.from_pretrained(tiny_teacher_dir)
        model.classifier.weight.data = model.classifier.weight.data[list(order)]
        model.classifier.bias.data = model.classifier.bias.data[list(order)]
        model.config.id2label = dict(enumerate(names))
        model.config.label2id = {name: index for index, name in enumerate(names)}
        folder = tmp_path / "-".join(names)
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(tiny_teacher_dir).save_pretrained(folder)
        return folder

    return save


def test_no_help_text_waits_for_torch() -> None:
    script = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from trainer.cli import COMMANDS, main\n"
        "for args in ([], *([name] for name in COMMANDS)):\n"
        "    result = CliRunner().invoke(main, [*args, '--help'], catch_exceptions=False)\n"
        "    assert result.exit_code == 0 and 'Usage' in result.output, (args, result.output)\n"
        "print([name for name in ('torch', 'transformers', 'sklearn', 'datasets', 'zarr') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_has_help(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert command.help
    assert [option.name for option in command.params if isinstance(option, click.Option) and not option.help] == []


def test_the_defaults_of_finetune_are_those_of_its_arguments() -> None:
    command = main.get_command(click.Context(main), "finetune")
    assert command is not None
    context = click.Context(command)
    shown = {option.name: option.get_default(context) for option in command.params}
    for field in dataclasses.fields(FinetuneArguments):
        if field.name not in {
            "model",
            "called",
            "device",
            "eval_steps",
            "max_length",
            "metrics",
            "patience",
            "save_steps",
        }:
            assert (shown[field.name] or 0) == field.default, field.name


def test_a_fine_tuned_model_is_cut_and_scored(tiny_teacher_dir: Path, tsv_file: Path, tmp_path: Path) -> None:
    """finetune, evaluate and create --from work on each other's results."""
    files = ["--data", tsv_file, "--eval-data", tsv_file, "--out", tmp_path / "teacher"]
    settings = ["--epochs", 2, "--lr", 1e-3, "--batch-size", 16, "--max-length", 32]
    trained = data_of(hsktrain("finetune", "--model", tiny_teacher_dir, "--task", "sst2", *files, *settings, "--json"))
    scored = data_of(
        hsktrain("evaluate", "--model", tmp_path / "teacher", "--data", tsv_file, "--task", "sst2", "--json")
    )
    assert scored["metrics"] == pytest.approx(trained["best"]["metrics"])
    assert scored["num_rows"] == 96
    assert trained["origin"] == {"source": str(tiny_teacher_dir), "random_weights": False}

    cut = ["--from", tmp_path / "teacher", "--layers", "uniform:4", "--out", tmp_path / "student"]
    assert data_of(hsktrain("create", *cut, "--json"))["layers"] == 4
    again = data_of(
        hsktrain("evaluate", "--model", tmp_path / "student", "--data", tsv_file, "--task", "sst2", "--json")
    )
    assert again["metrics"] == pytest.approx(scored["metrics"])


def test_fine_tuning_takes_the_length_of_the_task_and_a_run_keeps_its_own(
    tiny_teacher_dir: Path, tsv_file: Path, tmp_path: Path
) -> None:
    files = ["--data", tsv_file, "--eval-data", tsv_file, "--task", "sst2", "--epochs", 1, "--batch-size", 48]
    given = ["finetune", "--model", tiny_teacher_dir, *files]
    old, new = tmp_path / "old", tmp_path / "new"
    first = data_of(hsktrain(*given, "--max-length", 128, "--out", old, "--json"))
    again = hsktrain(*given, "--out", old, "--json")
    assert f"{old} is finished already" in again.stderr
    assert data_of(again) == first
    data_of(hsktrain(*given, "--out", new, "--json"))
    lengths = [json.loads((folder / "rows.json").read_text())["max_length"] for folder in (old, new)]
    assert lengths == [128, 64]
    # Nothing to go on from: the task tells it.
    shutil.copytree(old, tmp_path / "begun", ignore=lambda *_: {"metrics.json"})
    assert (begun(old)["max_length"], begun(tmp_path / "begun"), begun(tmp_path / "none")) == (128, {}, {})


def test_every_command_takes_the_length_of_the_task_where_no_model_tells_one(
    tiny_teacher_dir: Path, tsv_file: Path, tmp_path: Path
) -> None:
    rows, out = ["--data", tsv_file, "--task", "sst2", "--device", "cpu"], tmp_path / "p.tsv"
    model, pilot = ["--model", tiny_teacher_dir], tmp_path / "pilot"
    assert data_of(hsktrain("evaluate", *model, *rows, "--json"))["max_length"] == 64
    assert data_of(hsktrain("predict", *model, *rows, "--out", out, "--json"))["max_length"] == 64
    study = ["pilot", "--teacher", tiny_teacher_dir, *rows, "--sparsity", "0", "--seeds", 1]
    for name, given, length in (("new", [], 64), ("old", ["--max-length", 128], 128), ("old", [], 128)):
        assert hsktrain(*study, *given, "--out", pilot / name).exit_code == 0, "a study goes on with its own"
        assert json.loads((pilot / name / "run.json").read_text())["max_length"] == length
    words = "sentence\tlabel\n" + "".join(f"{'film ' * 80}\t{label}\n" for label in (0, 1, 0, 1))
    (tmp_path / "long.tsv").write_text(words, encoding="utf-8")
    long = ["--data", tmp_path / "long.tsv", "--task", "sst2", "--device", "cpu"]
    pruned = hsktrain("create", "--prune", tiny_teacher_dir, "--ffn", 8, *long, "--out", tmp_path / "pruned")
    assert "4 of 4 rows lost 22 % of their tokens" in pruned.stderr


@pytest.mark.parametrize("columns", [("sentence", "label"), ("0", "1")])
def test_columns_by_name_or_number_read_what_the_task_reads(
    columns: tuple[str, str], tiny_teacher_dir: Path, tsv_file: Path
) -> None:
    common = ["evaluate", "--model", tiny_teacher_dir, "--data", tsv_file, "--json"]
    by_task = data_of(hsktrain(*common, "--task", "sst2"))["metrics"]["accuracy"]
    by_column = data_of(hsktrain(*common, "--text", columns[0], "--label", columns[1]))["metrics"]["accuracy"]
    assert by_column == by_task


def test_several_files_are_scored_one_by_one(tiny_teacher_dir: Path, tsv_file: Path, tmp_path: Path) -> None:
    few = tmp_path / "few.tsv"
    few.write_text("".join(tsv_file.read_text().splitlines(keepends=True)[:8]), encoding="utf-8")
    common = ["evaluate", "--model", tiny_teacher_dir, "--task", "sst2"]
    alone = [data_of(hsktrain(*common, "--data", file, "--json")) for file in (few, tsv_file)]
    both = [*common, "--data", few, "--data", tsv_file]
    assert data_of(hsktrain(*both, "--json")) == {
        "model": str(tiny_teacher_dir),
        "evaluations": [{key: value for key, value in one.items() if key != "model"} for one in alone],
    }
    scores = [f"{one['metrics']['accuracy']:.4f}" for one in alone]
    lines = [line.split() for line in hsktrain(*both).stdout.splitlines()]
    assert lines == [[str(few), "accuracy", scores[0]], [str(tsv_file), "accuracy", scores[1]]]
    twice = hsktrain(*both, "--data", few)
    assert twice.exit_code == 2
    assert f"--data {few} is given twice" in twice.stderr
    # Before a model is loaded, of which there is none.
    gone = hsktrain("evaluate", "--model", "./none", "--task", "sst2", "--data", few, "--data", tmp_path / "gone.tsv")
    assert "gone.tsv: No such file" in gone.stderr


def test_a_table_for_people_has_one_metric_a_line(tiny_teacher_dir: Path, glue: Path) -> None:
    asked = ["evaluate", "--model", tiny_teacher_dir, "--data", glue / "SST-2" / "dev.tsv", "--task", "sst2"]
    accuracy = data_of(hsktrain(*asked, "--json"))["metrics"]["accuracy"]
    result = hsktrain(*asked)
    assert result.exit_code == 0
    assert result.stdout.split() == ["accuracy", f"{accuracy:.4f}"]
    assert result.stdout.endswith(f"{accuracy:.4f}\n")


def test_classes_follow_the_order_of_the_model_s_config(classifier: Any, glue: Path) -> None:
    """The same outputs score the same under any order and spelling of their names."""
    common = ["--data", glue / "RTE" / "dev.tsv", "--task", "rte", "--max-length", 48, "--json"]
    task_order = classifier("entailment", "not_entailment")
    other_order = classifier("Not_Entailment", "Entailment", order=(1, 0))
    wrong_order = classifier("not_entailment", "entailment")
    nameless = classifier("LABEL_0", "LABEL_1")
    scores = [
        data_of(hsktrain("evaluate", "--model", folder, *common))["metrics"]["accuracy"]
        for folder in (task_order, other_order, nameless, wrong_order)
    ]
    assert scores[0] == scores[1] == scores[2]
    assert scores[3] == pytest.approx(1 - scores[0])


def test_names_that_are_not_the_task_s_are_taken_in_order_and_said_so(classifier: Any, tsv_file: Path) -> None:
    folder = classifier("NEGATIVE", "POSITIVE")
    result = hsktrain("evaluate", "--model", folder, "--data", tsv_file, "--task", "sst2", "--json")
    assert "NEGATIVE, POSITIVE are taken for the task's 0, 1, in order" in result.stderr
    assert data_of(result)["num_rows"] == 96


@pytest.mark.parametrize(
    ("labels", "names", "problem"),
    [
        ("2", {0: "0", 1: "1"}, "single_label_classification"),
        ("no, yes", {0: "no", 1: "yes"}, "single_label_classification"),
        ("1", {0: "score"}, "regression"),
    ],
)
def test_a_created_student_loads_with_its_classes_and_tokenizer(
    labels: str, names: dict[int, str], problem: str, tiny_tokenizer_dir: Path, tmp_path: Path
) -> None:
    out = tmp_path / "student"
    args = ["--student", "tinybert4", "--tokenizer", tiny_tokenizer_dir, "--labels", labels, "--out", out]
    assert hsktrain("create", *args).exit_code == 0
    model = AutoModelForSequenceClassification.from_pretrained(out)
    assert model.config.id2label == names
    assert model.config.problem_type == problem
    assert model.config.vocab_size == len(AutoTokenizer.from_pretrained(out))


def test_a_created_student_is_decided_by_its_seed(tiny_tokenizer_dir: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(
        '{"model_type": "distilbert", "dim": 8, "hidden_dim": 8, "n_layers": 1, "n_heads": 1}', encoding="utf-8"
    )
    weights = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        args = ["--student", config, "--tokenizer", tiny_tokenizer_dir, "--labels", 2, "--out", tmp_path / name]
        assert hsktrain("create", *args, "--seed", seed).exit_code == 0
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
    assert weights[0] == weights[1] != weights[2]


FINETUNE = ["finetune", "--model", "{teacher}", "--data", "{data}", "--eval-data", "{data}", "--out", "{out}"]
EVALUATE = ["evaluate", "--model", "{teacher}", "--data", "{data}"]
CREATE = ["create", "--student", "tinybert4", "--out", "{out}"]
MISTAKES = {
    "missing data": ([*EVALUATE[:-1], "{out}/no.tsv", "--task", "sst2"], "no.tsv"),
    "unknown task": ([*EVALUATE, "--task", "sst3"], "'sst3' is not a task"),
    "no columns": (EVALUATE, "no task and no text column"),
    "unknown column": ([*EVALUATE, "--text", "words", "--label", "label"], "no column 'words'"),
    "no labels": ([*EVALUATE, "--text", "sentence"], "no labels"),
    "regression task for a classifier": ([*EVALUATE, "--task", "stsb"], "2 classes and stsb has scores"),
    "another number of classes": ([*EVALUATE, "--task", "mnli"], "2 classes and mnli has 3"),
    "no model": (["evaluate", "--model", "/no/such", "--data", "{data}", "--task", "sst2"], "/no/such"),
    "no classifier": (["evaluate", "--model", "{encoder}", "--data", "{data}", "--task", "sst2"], "fine-tune it first"),
    "no epochs": ([*FINETUNE, "--task", "sst2", "--epochs", "0"], "--epochs"),
    "folder in use": ([*FINETUNE[:-1], "{teacher}", "--task", "sst2"], "is not empty"),
    "no tokenizer": ([*CREATE, "--labels", "2"], "lacks --tokenizer"),
    "no labels to create": ([*CREATE, "--tokenizer", "{teacher}"], "lacks --labels"),
    "one label": ([*CREATE, "--tokenizer", "{teacher}", "--labels", "good"], "'good'"),
    "unknown student": (
        ["create", "--student", "./huge", "--tokenizer", "{teacher}", "--labels", "2", "--out", "{out}"],
        "huge",
    ),
    "nothing to create": (
        ["create", "--out", "{out}"],
        "--student with --tokenizer and --labels (of a causal language model without), or --from",
    ),
    "no layers": (["create", "--from", "{teacher}", "--out", "{out}"], "lacks --layers"),
    "too many layers": (["create", "--from", "{teacher}", "--layers", "bottom:5", "--out", "{out}"], "4 layers"),
    "both ways": ([*CREATE, "--from", "{teacher}", "--layers", "1"], "leave out --student"),
    "student over a folder": (["create", "--from", "{teacher}", "--layers", "1", "--out", "{teacher}"], "is not empty"),
}

if not torch.cuda.is_available():
    MISTAKES["no cuda"] = ([*FINETUNE, "--task", "sst2", "--device", "cuda"], "0 CUDA devices")


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_in_one_line_and_exit_code_2(
    mistake: str, tiny_teacher_dir: Path, tsv_file: Path, tmp_path: Path
) -> None:
    places = {"teacher": tiny_teacher_dir, "data": tsv_file, "out": tmp_path / "out", "encoder": tmp_path / "encoder"}
    if mistake == "no classifier":
        BertModel.from_pretrained(tiny_teacher_dir).save_pretrained(tmp_path / "encoder")
        AutoTokenizer.from_pretrained(tiny_teacher_dir).save_pretrained(tmp_path / "encoder")
    args, complaint = MISTAKES[mistake]
    result = hsktrain(*(arg.format(**places) for arg in args))
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert result.stdout == ""
    assert len([line for line in result.stderr.splitlines() if line.lower().startswith("error")]) == 1
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()
