"""From a teacher to a score without naming a column twice: what each step read is remembered by the next."""

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tiny import config_file

from hskcache.cache import open_cache
from hskcache.cli import main as hskcache
from hskcache.move.card import card
from hskcache.text.remembered import ROWS, Remembered, of_model, save
from hskcache.text.table import Columns
from trainer.cli import main as hsktrain

CPU = ("--device", "cpu")
ONE_EPOCH = ("--set", "prediction.epochs=1", "--recipe", "logits")
COLUMNS = Columns("question", "other", "same")
TASK = """
name: alike
text: question
text_pair: other
label: same
problem: classification
labels: ["no", "yes"]
metrics: [f1, accuracy]
"""


def invoke(command: Any, *args: object) -> Result:
    return CliRunner().invoke(command, list(map(str, args)), catch_exceptions=False)


def done(command: Any, *args: object) -> Result:
    result = invoke(command, *args)
    assert result.exit_code == 0, result.stderr
    return result


def refused(command: Any, *args: object) -> str:
    result = invoke(command, *args)
    assert result.exit_code == 2, result.output
    return result.stderr.splitlines()[-1]


def rows(tsv_file: Path, start: int, stop: int) -> str:
    lines = [line.split("\t") for line in tsv_file.read_text().splitlines()[1:]]
    pairs = zip(lines[start:stop], reversed(lines[start:stop]), strict=True)
    values = ({"question": one, "other": two, "same": ["no", "yes"][int(label)]} for (one, label), (two, _) in pairs)
    return "".join(json.dumps(value) + "\n" for value in values)


@pytest.fixture(scope="module")
def made(tiny_tokenizer_dir: Path, tsv_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A teacher of pairs by a task of one's own, whose file is gone, its cache and a student of that."""
    folder = tmp_path_factory.mktemp("made")
    found = {name: folder / name for name in ("teacher", "cache", "student", "train.jsonl", "dev.jsonl", "task.yaml")}
    found["config"] = config_file(folder)
    found["train.jsonl"].write_text(rows(tsv_file, 0, 32), encoding="utf-8")
    found["dev.jsonl"].write_text(rows(tsv_file, 32, 64), encoding="utf-8")
    found["task.yaml"].write_text(TASK, encoding="utf-8")
    data = ("--data", found["train.jsonl"])
    tuned = done(
        *(hsktrain, "finetune", "--model", found["config"], "--tokenizer", tiny_tokenizer_dir, *data, *CPU),
        *("--eval-data", found["dev.jsonl"], "--task", found["task.yaml"], "--epochs", 1, "--max-length", 16),
        *("--out", found["teacher"]),
    )
    assert "train.jsonl: " in tuned.stderr
    assert "rows lost" in tuned.stderr
    found["task.yaml"].unlink()
    done(hskcache, "build", "--teacher", found["teacher"], *data, "--keep", "none", *CPU, "--out", found["cache"])
    fit = ("fit", "--cache", found["cache"], "--student", found["config"], *ONE_EPOCH, *CPU)
    told = done(hsktrain, *fit, "--eval-data", found["dev.jsonl"], "--out", found["student"]).stderr
    assert f"columns as in the cache {found['cache']}: question, other, same" in told
    assert f"the cache {found['cache']}: " in told
    assert told.count("rows lost") == 2
    return found


def test_fit_and_evaluate_of_one_student_agree_to_the_digit(made: dict[str, Path]) -> None:
    scores = json.loads((made["student"] / "metrics.json").read_text())["scores"]
    given = ("evaluate", "--model", made["student"], "--data", made["dev.jsonl"], *CPU)
    result = done(hsktrain, *given, "--json")
    found = json.loads(result.stdout)
    assert (list(found["metrics"]), found["metrics"], found["max_length"]) == (["f1", "accuracy"], scores, 16)
    assert f"columns as in the model {made['student']}: question, other, same" in result.stderr
    assert "rows lost" in result.stderr
    assert json.loads(done(hsktrain, *given, "--max-length", 40, "--json").stdout)["max_length"] == 40


def test_a_model_tells_how_its_rows_are_read(made: dict[str, Path]) -> None:
    for name in ("teacher", "student"):
        found = of_model(made[name])
        assert (found.task, found.columns, found.is_pairs, found.max_length) == ("alike", COLUMNS, True, 16)
        assert found.definition is not None
        assert found.definition.metrics == ["f1", "accuracy"]


def test_pairs_are_never_scored_as_single_texts(made: dict[str, Path], tmp_path: Path) -> None:
    single = ("--text", "question", "--label", "same", *CPU)
    fit = ("fit", "--cache", made["cache"], "--student", made["config"], *ONE_EPOCH, "--eval-data", made["dev.jsonl"])
    line = refused(hsktrain, *fit, *single, "--out", tmp_path / "s")
    assert f"read as single texts, and the cache {made['cache']} is of pairs" in line
    assert not (tmp_path / "s").exists()
    line = refused(hsktrain, "evaluate", "--model", made["student"], "--data", made["dev.jsonl"], *single)
    assert f"read as single texts, and the model {made['student']} is of pairs" in line


def test_single_texts_are_never_scored_as_pairs(made: dict[str, Path], tmp_path: Path) -> None:
    model = Path(shutil.copytree(made["student"], tmp_path / "m"))
    save(Remembered("", columns=Columns("question", None, "same"), is_pairs=False, max_length=16), model)
    pairs = ("--text", "question", "--text-pair", "other", "--label", "same", *CPU)
    line = refused(hsktrain, "evaluate", "--model", model, "--data", made["dev.jsonl"], *pairs)
    assert f"read as pairs, and the model {model} is of single texts" in line


def test_a_teacher_in_the_loop_reads_what_it_was_trained_on(made: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text("hidden: null\nmax_length: 16\n", encoding="utf-8")
    given = ("fit", "--teacher", made["teacher"], "--spec", tmp_path / "spec.yaml", "--student", made["config"])
    data = ("--data", made["train.jsonl"], "--eval-data", made["dev.jsonl"])
    done(hsktrain, *given, *data, *ONE_EPOCH, *CPU, "--out", tmp_path / "s")
    here, there = (json.loads((folder / "metrics.json").read_text()) for folder in (tmp_path / "s", made["student"]))
    assert here["scores"].keys() == there["scores"].keys() == {"f1", "accuracy"}


def test_students_cut_out_of_a_teacher_and_sparse_teachers_remember_too(made: dict[str, Path], tmp_path: Path) -> None:
    teacher = made["teacher"]
    done(hsktrain, "create", "--from", teacher, "--layers", "1", "--out", tmp_path / "c")
    done(hskcache, "sparsify", "--teacher", teacher, "--method", "random", "--sparsity", "50", "--out", tmp_path / "s")
    data = ("--data", made["train.jsonl"])
    pruned = ("create", "--prune", teacher, "--heads", 1, *data, *CPU, "--out", tmp_path / "p")
    assert f"columns as in the model {teacher}: question, other, same" in done(hsktrain, *pruned).stderr
    for folder in (tmp_path / "c", tmp_path / "s" / "s50", tmp_path / "p"):
        assert (folder / ROWS).read_bytes() == (teacher / ROWS).read_bytes()


@pytest.mark.parametrize("own", [True, False])
def test_the_command_of_a_data_card_runs_as_it_stands(
    made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    cache = tmp_path / "my cache"
    if own:
        shutil.copytree(made["cache"], cache)
    else:
        columns = ("--text", "question", "--text-pair", "other", "--label", "same")
        given = ("build", "--teacher", made["teacher"], "--data", made["train.jsonl"], *columns)
        done(hskcache, *given, "--keep", "none", *CPU, "--out", cache)
    text = card(open_cache(cache).manifest, "s3://bucket/my cache").decode()
    name, *words = shlex.split(next(line for line in text.splitlines() if line.startswith("hsktrain fit")))
    assert name == "hsktrain"
    assert ("--text-pair" in words) != own
    shutil.copy(made["dev.jsonl"], tmp_path / "dev.jsonl")
    monkeypatch.chdir(tmp_path)
    done(hsktrain, *words, *CPU, "--set", "prediction.epochs=1")
    assert (tmp_path / "student" / ROWS).is_file()


def test_the_command_of_the_data_card_of_a_corpus_runs_as_it_stands(
    tiny_teacher_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.txt").write_text("the film is dull\nthe cast is warm\n\nan old tale is flat\n", encoding="utf-8")
    given = ("build", "--teacher", tiny_teacher_dir, "--corpus", tmp_path / "text.txt", "--max-length", 16)
    done(hskcache, *given, "--keep", "4t", "--attention", "4t", *CPU, "--out", tmp_path / "c.hsk")
    text = card(open_cache(tmp_path / "c.hsk").manifest, "s3://bucket/c.hsk").decode()
    _, *words = shlex.split(next(line for line in text.splitlines() if line.startswith("hsktrain fit")))
    assert words[4:6] == ["tinybert4", "--recipe"]
    monkeypatch.chdir(tmp_path)
    done(hsktrain, *words, *CPU, "--set", "general.epochs=1")
    found = of_model(tmp_path / "student")
    assert (found.has_columns, found.max_length) == (False, 16)
