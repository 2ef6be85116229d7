"""``hsktrain stark`` as a user types it: a whole run in a process of its own, and what is refused."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from click.testing import CliRunner, Result
from tiny import config_file, weights_of
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertForSequenceClassification

from hskcache.cache import open_cache
from hskcache.locks import sole_writer
from hskcache.text.remembered import of_model
from trainer.cli import main

HSKTRAIN = Path(sys.executable).with_name("hsktrain")
TASK = ["--task", "sst2"]
QUICK = ["distillation.epochs=2", "distillation.batch_size=16", "distillation.learning_rate=3e-3"]


class Finished(NamedTuple):
    """A run of 3 levels and one comparison, in a process that was started with ``args``."""

    args: list[str]
    out: Path
    teacher: Path
    done: subprocess.CompletedProcess[str]

    def again(self, out: Path | None = None, *more: object) -> Result:
        """The same command in this process, in another folder or with other flags."""
        args = [*self.args, *(["--out", str(out)] if out is not None else []), *map(str, more)]
        return CliRunner().invoke(main, args, catch_exceptions=False)


@pytest.fixture(scope="module")
def finished(tiny_teacher_dir: Path, tsv_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Learned from 96 rows, judged by 32."""
    folder = tmp_path_factory.mktemp("stark")
    lines = tsv_file.read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "dev.tsv").write_text("".join(lines[:33]), encoding="utf-8")
    teacher = shutil.copytree(tiny_teacher_dir, folder / "teacher")
    dropout = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    student = config_file(folder, width=16, initializer_range=0.5, **dropout)
    given = ["stark", "--teacher", teacher, "--student", student, "--data", tsv_file, "--eval-data", folder / "dev.tsv"]
    given += [*TASK, "--max-length", 24, "--device", "cpu", "--seed", 3, "--sparsity", "0,30,60", "--compare", "plain"]
    args = [*map(str, [*given, "--out", folder / "out"]), *(word for change in QUICK for word in ("--set", change))]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([HSKTRAIN, *args], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Finished(args, folder / "out", teacher, done)


def test_a_folder_that_another_command_writes_is_refused(finished: Finished) -> None:
    with sole_writer(finished.out):
        result = finished.again()
    assert result.exit_code == 2
    assert "out is being written by another process" in result.stderr


def test_another_metric_is_another_run(finished: Finished) -> None:
    told = finished.again(None, "--metric", "f1").stderr
    assert "holds a run with metric None and this one has 'f1'" in told
    assert "do you mean 'accuracy'" in finished.again(None, "--metric", "acuracy").stderr


def flag(args: list[str], name: str) -> str:
    return args[args.index(name) + 1]


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def files(out: Path) -> dict[Path, tuple[int, int]]:
    """Size and time of everything in a folder."""
    stats = {path: path.stat() for path in out.rglob("*")}
    return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in stats.items()}


def same_weights(one: Path, other: Path) -> bool:
    ours, theirs = weights_of(one), weights_of(other)
    return ours.keys() == theirs.keys() and all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_every_step_is_announced_and_the_table_alone_is_on_stdout(finished: Finished) -> None:
    errors = finished.done.stderr.splitlines()
    assert [line[:9] for line in errors if line.startswith("step ")] == [f"step {step} of" for step in range(1, 6)]
    head, *lines = finished.done.stdout.splitlines()
    columns = ["ranked by", "sparsity", "heads kept", "neurons kept", "variance", "-entropy", "accuracy", "to level 0"]
    assert re.split(" {2,}", head) == columns
    assert [line.split()[:4] for line in lines] == [
        ["0", "%", "16", "256"],
        ["knowledge", "30", "%", "11"],
        ["knowledge", "60", "%", "6"],
        ["plain", "30", "%", "11"],
        ["plain", "60", "%", "6"],
    ]
    assert sum("best" in line for line in lines) == 1
    assert any("student, the best, learned from the" in line for line in errors)


def test_how_far_chance_reaches_is_told_beside_the_best(finished: Finished) -> None:
    share = read(finished.out / "results.json")["rows"][0]["metrics"]["accuracy"]
    assert 0 < share < 1
    error = (share * (1 - share) / 32) ** 0.5
    words = (
        f"one standard error of level 0's accuracy on 32 rows is {error:.4f}: differences of this order may be chance"
    )
    assert words in finished.done.stderr.splitlines()


def test_the_results_hold_what_each_level_removed_and_reached(finished: Finished) -> None:
    results = read(finished.out / "results.json")
    assert (results["metric"], results["heads"], results["neurons"]) == ("accuracy", 16, 256)
    rows = [(row["method"], row["percent"], row["heads_removed"], row["neurons_removed"]) for row in results["rows"]]
    assert rows == [
        ("knowledge", 0, 0, 0),
        ("knowledge", 30, 5, 77),
        ("knowledge", 60, 10, 154),
        ("plain", 30, 5, 77),
        ("plain", 60, 10, 154),
    ]
    for row in results["rows"]:
        name = "s0" if row["field"] == "logits" else row["field"]
        assert row["metrics"] == read(finished.out / "levels" / name / "metrics.json")["scores"]
    assert list(open_cache(finished.out / "cache.hsk").manifest.added) == ["s30", "s60", "plain-s30", "plain-s60"]


def test_the_best_student_is_a_checkpoint_with_its_tokenizer(finished: Finished) -> None:
    """The same as in its level's folder, of the first method's levels the one that scores best."""
    results = read(finished.out / "results.json")
    best = results["best"]
    own = [row for row in results["rows"] if row["method"] == "knowledge"]
    assert best["percent"] == max(own, key=lambda row: (row["metrics"]["accuracy"], -row["percent"]))["percent"]
    level = finished.out / "levels" / f"s{best['percent']}"
    assert same_weights(finished.out / "student", level)
    AutoModelForSequenceClassification.from_pretrained(finished.out / "student")
    assert len(AutoTokenizer.from_pretrained(finished.out / "student")) > 100


def test_level_0_is_the_student_of_a_plain_fit(finished: Finished, tmp_path: Path) -> None:
    """Bit for bit, though it was trained in another process, before the cache had further fields."""
    names = ("--student", "--eval-data", "--seed", "--device")
    given = [word for name in names for word in (name, flag(finished.args, name))]
    given += [word for change in QUICK for word in ("--set", change)]
    cache = str(finished.out / "cache.hsk")
    args = ["fit", "--cache", cache, *TASK, "--recipe", "stark", *given, "--out", str(tmp_path / "plain")]
    assert CliRunner().invoke(main, args, catch_exceptions=False).exit_code == 0
    assert same_weights(tmp_path / "plain", finished.out / "levels" / "s0")
    assert read(tmp_path / "plain" / "run.json") == read(finished.out / "levels" / "s0" / "run.json")


def test_the_best_student_remembers_how_its_rows_are_read(finished: Finished) -> None:
    found = of_model(finished.out / "student")
    assert (found.task, found.is_pairs, found.max_length) == ("sst2", False, int(flag(finished.args, "--max-length")))


@pytest.mark.parametrize("spelling", ["{0}", "{0}/", "{1}", "./{1}/../{1}"])
def test_a_second_call_does_nothing_and_needs_no_teacher(
    spelling: str, finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However its folder is spelled, which is gone."""
    before = files(finished.out)
    monkeypatch.chdir(finished.teacher.parent)
    away = finished.teacher.rename(finished.teacher.with_name("away"))
    try:
        result = finished.again(None, "--json", "--teacher", spelling.format(finished.teacher, finished.teacher.name))
    finally:
        away.rename(finished.teacher)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout) == read(finished.out / "results.json")
    assert files(finished.out) == before
    assert [line for line in result.stderr.splitlines() if not line.endswith("done already")] == []


def test_a_teacher_that_is_there_may_be_spelled_otherwise_and_another_is_refused(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(finished.teacher)
    shutil.copytree(finished.teacher, tmp_path / "other")
    monkeypatch.chdir(tmp_path)
    assert finished.again(None, "--teacher", "link").exit_code == 0
    refused = finished.again(None, "--teacher", "other")
    assert refused.exit_code == 2
    assert f"holds a run with teacher '{finished.teacher.resolve()}'" in refused.stderr


def test_scores_rest_on_training_rows_unless_others_are_given(finished: Finished, tmp_path: Path) -> None:
    """As many as there are to judge by; the rows that judge are never among them by default."""
    scores = read(finished.out / "scores.json")
    assert scores["data"]["name"] == flag(finished.args, "--data")
    assert (scores["data"]["num_rows"], scores["data"]["seed"]) == (32, 3)
    assert (scores["temperature"], scores["max_length"], scores["batch_size"]) == (2.0, 24, 32)
    dev = flag(finished.args, "--eval-data")
    given = ["--score-data", dev, "--score-rows", 8, "--batch-size", 4, "--sparsity", "0", "--compare", ""]
    result = finished.again(tmp_path / "out", *given)
    assert result.exit_code == 0, result.stderr
    assert read(tmp_path / "out" / "scores.json")["data"]["name"] == dev
    assert read(tmp_path / "out" / "scores.json")["data"]["num_rows"] == 8
    assert [row["percent"] for row in read(tmp_path / "out" / "results.json")["rows"]] == [0]


def test_a_regression_has_sparse_teachers_too_and_one_that_lacks_nothing_is_told(
    finished: Finished, tmp_path: Path
) -> None:
    """Of a small teacher 1 % is no head and no neuron; the student of that level is the one of level 0."""
    tokenizer = AutoTokenizer.from_pretrained(finished.teacher)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    config = BertConfig(vocab_size=len(tokenizer), initializer_range=0.3, **sizes, num_labels=1)
    config.problem_type = "regression"
    torch.manual_seed(0)
    BertForSequenceClassification(config).save_pretrained(tmp_path / "teacher")
    tokenizer.save_pretrained(tmp_path / "teacher")
    rows = Path(flag(finished.args, "--data")).read_text(encoding="utf-8").splitlines()[1:33]
    lines = ["text\tscore", *(f"{row.split(chr(9))[0]}\t{len(row) / 10}" for row in rows)]
    data = tmp_path / "scores.tsv"
    data.write_text("\n".join(lines) + "\n", encoding="utf-8")
    given = ["--teacher", tmp_path / "teacher", "--data", data, "--eval-data", data, "--text", "text", "--label"]
    given += ["score", "--sparsity", "1,50", "--compare", "", "--out", tmp_path / "out", "--json"]
    place = finished.args.index("--task")
    args = [*finished.args[:place], *finished.args[place + 2 :], *map(str, given)]
    result = CliRunner().invoke(main, args, catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["metric"] == "pearson"
    assert [(row["percent"], set(row["metrics"])) for row in found["rows"]] == [
        (0, {"pearson", "spearman"}),
        (1, {"pearson", "spearman"}),
        (50, {"pearson", "spearman"}),
    ]
    told = [line for line in result.stderr.splitlines() if "no head and no neuron" in line]
    assert told == ["1 % of this teacher is no head and no neuron: s1 learns as s0 did"]
    assert same_weights(tmp_path / "out" / "levels" / "s1", tmp_path / "out" / "levels" / "s0")


MISTAKES: dict[str, tuple[list[str], str]] = {
    "recipe of hidden states": (["--recipe", "{hidden}"], "learns from hidden states"),
    "recipe of labels": (["--recipe", "{labels}"], "every teacher would give the same student"),
    "other seed": (["--out", "{out}", "--seed", "4"], "holds a run with seed 3 and this one has 4"),
    "other epochs": (["--out", "{out}", "--set", "distillation.epochs=3"], "recipe.stages.0.epochs 2.0 and"),
    "other balance": (["--out", "{out}", "--balance", "1"], "holds a run with balance 0.5"),
    "other slices": (
        ["--out", "{out}", "--gradient-accumulation", "2"],
        "holds a run with gradient_accumulation 1 and this one has 2",
    ),
    "no balance": (["--balance", "nan"], "--balance nan is not a number from 0 to 1"),
    "no balance of a finished run": (["--out", "{out}", "--balance", "nan"], "--balance nan is not a number"),
    "other precision": (["--out", "{out}", "--bf16"], "holds a run with bf16 False"),
    "other rows": (["--out", "{out}", "--score-rows", "9"], "holds a run with score.num_rows 32"),
    "other student": (["--out", "{out}", "--student", "{wide}"], "holds a run with student "),
    "a folder in use": (["--out", "{teacher}"], "is not empty and holds no run"),
    "falling levels": (["--sparsity", "30,10"], "10 comes after 30"),
    "unknown method": (["--compare", "plain,best"], "'best' is no way to rank"),
    "no teacher": (["--teacher", "/no/teacher"], "/no/teacher"),
    "other task": (
        ["--task", "mnli", "--text", "sentence", "--text-pair", "", "--label", "label"],
        "has 2 classes and mnli has 3",
    ),
    "short student": (["--student", "{short}"], "the student has 8 positions"),
    "uneven slices": (["--gradient-accumulation", "3"], "cannot be cut into 3"),
    "missing rows": (["--eval-data", "/no/dev.tsv"], "/no/dev.tsv"),
    "missing rows of scores": (["--score-data", "/no/some.tsv"], "/no/some.tsv"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_in_one_line_before_anything_is_written(
    mistake: str, finished: Finished, tmp_path: Path
) -> None:
    known = {"out": finished.out, "teacher": finished.teacher}
    known |= {"wide": config_file(tmp_path / "wide"), "short": config_file(tmp_path / "s", max_position_embeddings=8)}
    for name, losses in (("hidden", {"hidden": {}, "soft": {}}), ("labels", {"label": {}})):
        stage = {"name": "distillation", "epochs": 1, "losses": losses}
        known[name] = tmp_path / f"{name}.yaml"
        known[name].write_text(json.dumps({"name": name, "stages": [stage]}), encoding="utf-8")
    before = files(finished.out)
    given, complaint = MISTAKES[mistake]
    result = finished.again(tmp_path / "out", *(word.format(**known) for word in given))
    assert result.exit_code == 2, result.stderr
    assert complaint in result.stderr
    assert result.stdout == ""
    assert [
        line for line in result.stderr.splitlines() if not line.startswith("tokenize ")
    ] == result.stderr.splitlines()[-1:]
    assert result.stderr.splitlines()[-1].lower().startswith("error")
    assert not (tmp_path / "out").exists()
    assert files(finished.out) == before
