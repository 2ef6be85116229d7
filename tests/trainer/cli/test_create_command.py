"""``hsktrain create --prune`` as a user types it, and the ordinary commands on what it makes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from tiny import weights_of
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertForSequenceClassification, BertModel
from transformers.utils import logging

from hskcache.locks import WRITING, sole_writer
from hskcache.text import examples_for, load_task, load_tokenizer, tokenize
from trainer.cli import main
from trainer.student import CompactBertForSequenceClassification
from trainer.student.importance import LabelledBatches, draw_batches, importance
from trainer.student.layers import from_teacher_layers
from trainer.student.prune import Pruning, prune

HSKTRAIN = Path(sys.executable).with_name("hsktrain")
CPU = ["--device", "cpu"]
# Half of the tiny teacher's layers, half of its heads, a quarter of its neurons, a quarter of its rank.
SHAPE = ["--layers", "2", "--heads", "2", "--ffn", "16", "--embedding-rank", "8"]


def hsktrain(*args: object) -> Result:
    return CliRunner().invoke(main, list(map(str, args)), catch_exceptions=False)


def data_of(result: Result) -> Any:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def process(*args: object) -> Any:
    """What a process of its own prints as JSON."""
    done = subprocess.run(
        [HSKTRAIN, *map(str, args), "--json"], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def model_of(folder: Path) -> Any:
    logging.disable_progress_bar()
    return AutoModelForSequenceClassification.from_pretrained(folder)


def test_a_folder_that_another_command_writes_is_refused(tiny_teacher_dir: Path, tmp_path: Path) -> None:
    args = ["create", "--from", tiny_teacher_dir, "--layers", "2", "--out", tmp_path / "out"]
    with sole_writer(tmp_path / "out"):
        result = hsktrain(*args)
    assert result.exit_code == 2
    assert "out is being written by another process" in result.stderr
    assert hsktrain(*args).exit_code == 0
    assert not (tmp_path / "out" / WRITING).exists()


@pytest.fixture(scope="module")
def pruned(tiny_teacher_dir: Path, tsv_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A student cut out of the tiny teacher by the command, and what the command said of it."""
    out = tmp_path_factory.mktemp("pruned") / "student"
    rows = ["--data", tsv_file, "--task", "sst2", "--batch-size", 16, "--max-length", 12, "--seed", 3]
    facts = data_of(hsktrain("create", "--prune", tiny_teacher_dir, *SHAPE, *rows, *CPU, "--out", out, "--json"))
    return {"out": out, "facts": facts}


def test_the_command_makes_the_student_of_the_definition(
    pruned: dict[str, Any], tiny_teacher_dir: Path, tsv_file: Path
) -> None:
    teacher = BertForSequenceClassification.from_pretrained(tiny_teacher_dir)
    examples = examples_for(tsv_file, load_task("sst2"))
    rows = tokenize(examples, load_tokenizer(tiny_teacher_dir), 12)
    sample = LabelledBatches(rows, np.asarray(examples.labels), draw_batches(96, 16, seed=3))
    expected = prune(teacher, Pruning((1, 2), 2, 16, 8), importance(teacher, sample, (1, 2)))
    student = model_of(pruned["out"])
    assert type(student) is CompactBertForSequenceClassification
    for name, weight in expected.model.state_dict().items():
        torch.testing.assert_close(student.state_dict()[name], weight, rtol=0, atol=1e-6)
    heads = [{"layer": layer, "heads": list(numbers)} for layer, numbers in expected.heads.items()]
    assert pruned["facts"] == {
        "out": str(pruned["out"]),
        "layers": 2,
        "width": 32,
        "parameters": student.num_parameters(),
        "classes": 2,
        "heads": 2,
        "head_size": 8,
        "ffn": 16,
        "embedding_rank": 8,
        "teacher_parameters": teacher.num_parameters(),
        "num_rows": 96,
        "kept_heads": heads,
    }


def test_a_share_of_all_is_cut_by_the_importance_of_masks(
    tiny_teacher_dir: Path, tsv_file: Path, tmp_path: Path
) -> None:
    """And told by layer; the student goes through training and evaluation as others do."""
    out = tmp_path / "student"
    rows = ["--data", tsv_file, "--task", "sst2", "--batch-size", 16, "--max-length", 12, "--seed", 3]
    args = ["create", "--prune", tiny_teacher_dir, "--global", 0.3, *rows, *CPU, "--out", out]
    facts = data_of(hsktrain(*args, "--json"))
    teacher = BertForSequenceClassification.from_pretrained(tiny_teacher_dir)
    examples = examples_for(tsv_file, load_task("sst2"))
    tokens = tokenize(examples, load_tokenizer(tiny_teacher_dir), 12)
    sample = LabelledBatches(tokens, np.asarray(examples.labels), draw_batches(96, 16, seed=3))
    scores = importance(teacher, sample, (1, 2, 3, 4), by="masks")
    expected = prune(teacher, Pruning((1, 2, 3, 4), share=0.3), scores)
    assert (facts["heads"], facts["ffn"], facts["share"]) == (5, 77, 0.3)
    assert facts["of"] == {"heads": 16, "ffn": 256}
    assert facts["kept_heads"] == [{"layer": layer, "heads": list(of)} for layer, of in expected.heads.items()]
    assert facts["ffn_by_layer"] == [len(of) for of in expected.neurons.values()]
    assert weights_of(out).keys() == expected.model.state_dict().keys()
    told = hsktrain("create", *args[1:-1], tmp_path / "told")
    assert "5 of 16 heads of 8, 77 of 256 neurons, whole word embedding" in told.stderr
    layer = next(layer for layer, heads in expected.heads.items() if heads)
    assert f"  teacher layer {layer}: heads {', '.join(map(str, expected.heads[layer]))}" in told.stderr
    metrics = data_of(hsktrain("evaluate", "--model", out, "--data", tsv_file, "--task", "sst2", *CPU, "--json"))
    assert metrics["num_rows"] == 96
    more = ["--model", out, "--data", tsv_file, "--eval-data", tsv_file, "--task", "sst2", "--epochs", 1, *CPU]
    assert hsktrain("finetune", *more, "--out", tmp_path / "tuned").exit_code == 0
    for wrong in (["--heads", 1], ["--ffn", 2]):
        refusal = hsktrain(*args[:-1], tmp_path / "wrong", *wrong)
        assert refusal.exit_code == 2
        assert "leave out --heads and --ffn" in refusal.stderr
    refusal = hsktrain("create", "--from", tiny_teacher_dir, "--layers", "1", "--global", 0.5, "--out", tmp_path / "w")
    assert "--global belongs to --prune TEACHER" in refusal.stderr


def test_the_student_is_a_checkpoint_with_its_tokenizer_and_classes(
    pruned: dict[str, Any], tiny_teacher_dir: Path
) -> None:
    ours, theirs = (AutoTokenizer.from_pretrained(folder) for folder in (pruned["out"], tiny_teacher_dir))
    assert ours.get_vocab() == theirs.get_vocab()
    config = model_of(pruned["out"]).config
    assert config.id2label == {0: "0", 1: "1"}
    assert config.architectures == ["CompactBertForSequenceClassification"]


def test_evaluate_scores_it(pruned: dict[str, Any], tsv_file: Path) -> None:
    scored = process("evaluate", "--model", pruned["out"], "--data", tsv_file, "--task", "sst2", *CPU)
    examples = examples_for(tsv_file, load_task("sst2"))
    tokenizer = AutoTokenizer.from_pretrained(pruned["out"])
    with torch.no_grad():
        encoded = tokenizer(examples.texts, padding=True, return_tensors="pt")
        predicted = model_of(pruned["out"])(**encoded).logits.argmax(dim=1).numpy()
    assert scored["metrics"] == {"accuracy": pytest.approx(float((predicted == examples.labels).mean()))}


def test_fit_trains_it_from_a_cache(pruned: dict[str, Any], cache_dir: Path, tsv_file: Path, tmp_path: Path) -> None:
    """Hidden states, then logits; the trained student is of the same class, with other weights, and scores as told."""
    quick = ["--set", "hidden.epochs=1", "--set", "prediction.epochs=1", "--set", "prediction.learning_rate=1e-3"]
    given = ["--cache", cache_dir, "--student", pruned["out"], "--eval-data", tsv_file, "--out", tmp_path / "out"]
    fitted = data_of(hsktrain("fit", *given, *quick, *CPU, "--json"))
    assert [stage["steps"] for stage in fitted["stages"]] == [3, 3]
    before, after = model_of(pruned["out"]), model_of(tmp_path / "out")
    assert type(after) is CompactBertForSequenceClassification
    assert after.config.embedding_rank == 8
    for name in ("embeddings.word_expansion.weight", "encoder.layer.1.attention.self.query.weight"):
        assert not torch.equal(before.bert.get_parameter(name), after.bert.get_parameter(name))
    scored = hsktrain("evaluate", "--model", tmp_path / "out", "--data", tsv_file, "--task", "sst2", *CPU, "--json")
    assert data_of(scored)["metrics"] == pytest.approx(fitted["scores"])


def test_layers_alone_need_no_rows_and_give_what_from_gives(
    tiny_teacher_dir: Path, tsv_file: Path, tmp_path: Path
) -> None:
    given = ["create", "--prune", tiny_teacher_dir, "--layers", 2, "--out", tmp_path / "pruned"]
    result = hsktrain(*given, "--data", tsv_file)
    assert result.exit_code == 0
    assert f"all heads and neurons stay, so {tsv_file} is not read" in result.stderr
    teacher = BertForSequenceClassification.from_pretrained(tiny_teacher_dir)
    expected = from_teacher_layers(teacher, [1, 2]).state_dict()
    student = model_of(tmp_path / "pruned")
    assert type(student) is BertForSequenceClassification
    assert all(torch.equal(student.state_dict()[name], weight) for name, weight in expected.items())
    assert "kept by their importance" not in result.stderr


def test_people_read_what_was_kept(tiny_teacher_dir: Path, tsv_file: Path, tmp_path: Path) -> None:
    given = ["create", "--prune", tiny_teacher_dir, "--layers", "4,2", "--heads", 1, "--data", tsv_file]
    result = hsktrain(*given, "--task", "sst2", "--rows", 40, *CPU, "--out", tmp_path / "out")
    assert result.exit_code == 0
    assert result.stdout == ""
    lines = [line.strip() for line in result.stderr.splitlines()]
    parameters = model_of(tiny_teacher_dir).num_parameters()
    assert f"1 head of 8, ffn 64, whole word embedding; the teacher has {parameters:,} parameters" in lines
    assert "kept by their importance on 40 rows, heads counted from 0:" in lines
    assert [line.rpartition(" ")[0] for line in lines[-2:]] == ["teacher layer 4: heads", "teacher layer 2: heads"]


def test_classes_follow_the_teacher_s_order(tiny_teacher_dir: Path, tsv_file: Path, tmp_path: Path) -> None:
    """A teacher whose outputs and names are swapped is cut the same way: labels are read in its order."""
    teacher = model_of(tiny_teacher_dir)
    teacher.classifier.weight.data = teacher.classifier.weight.data.flip(0)
    teacher.classifier.bias.data = teacher.classifier.bias.data.flip(0)
    teacher.config.id2label, teacher.config.label2id = {0: "1", 1: "0"}, {"1": 0, "0": 1}
    teacher.save_pretrained(tmp_path / "swapped")
    AutoTokenizer.from_pretrained(tiny_teacher_dir).save_pretrained(tmp_path / "swapped")
    students = []
    for name, source in (("a", tiny_teacher_dir), ("b", tmp_path / "swapped")):
        rows = ["--data", tsv_file, "--task", "sst2", *CPU, "--out", tmp_path / name]
        assert hsktrain("create", "--prune", source, "--heads", 2, "--ffn", 20, *rows).exit_code == 0
        students.append(model_of(tmp_path / name))
    first, second = (student.bert.state_dict() for student in students)
    assert all(torch.equal(first[name], second[name]) for name in first)


PRUNE = ["create", "--prune", "{teacher}", "--out", "{out}"]
ROWS = ["--data", "{data}", "--task", "sst2"]
MISTAKES: dict[str, tuple[list[str], str]] = {
    "nothing to cut": ([*PRUNE, *ROWS], "--prune lacks what to keep"),
    "no layers": ([*PRUNE, "--layers", "0"], "--layers 0: the teacher has 4 layers; keep 1 to 4"),
    "another way too": ([*PRUNE, "--layers", "2", "--from", "{teacher}"], "leave out --student, --from and --labels"),
    "a student too": ([*PRUNE, "--layers", "2", "--student", "tinybert4"], "leave out --student, --from and --labels"),
    "labels too": ([*PRUNE, "--layers", "2", "--labels", "2"], "leave out --student, --from and --labels"),
    "heads of --from": (
        ["create", "--from", "{teacher}", "--layers", "2", "--heads", "2", "--out", "{out}"],
        "--heads belongs to --prune TEACHER",
    ),
    "rows of --from": (
        ["create", "--from", "{teacher}", "--layers", "2", "--task", "sst2", "--out", "{out}"],
        "--task belongs to --prune TEACHER",
    ),
    "a default spelled out": (
        ["create", "--from", "{teacher}", "--layers", "2", "--batch-size", "32", "--out", "{out}"],
        "--batch-size belongs to --prune TEACHER",
    ),
    "no rows": ([*PRUNE, "--heads", "2"], "give --data FILE"),
    "no labels": ([*PRUNE, "--heads", "2", "--data", "{data}", "--text", "sentence"], "is read without labels"),
    "other classes": ([*PRUNE, "--ffn", "8", "--data", "{data}", "--task", "mnli"], "2 classes and mnli has 3"),
    "too many heads": ([*PRUNE, *ROWS, "--heads", "5"], "--heads 5: the teacher has 4"),
    "no heads": ([*PRUNE, *ROWS, "--heads", "0"], "--heads"),
    "too many neurons": ([*PRUNE, *ROWS, "--ffn", "65"], "--ffn 65: the teacher has 64"),
    "too high a rank": ([*PRUNE, "--embedding-rank", "33"], "--embedding-rank 33: the teacher has 32"),
    "too many layers": ([*PRUNE, "--layers", "5"], "4 layers"),
    "no such layers": ([*PRUNE, "--layers", "some"], "--layers 'some'"),
    "missing rows": ([*PRUNE, "--heads", "2", "--data", "/no/rows.tsv", "--task", "sst2"], "/no/rows.tsv"),
    "no room for text": ([*PRUNE, *ROWS, "--heads", "2", "--max-length", "2"], "--max-length"),
    "no teacher": (["create", "--prune", "./none", "--layers", "2", "--out", "{out}"], "./none"),
    "no classifier": (["create", "--prune", "{encoder}", "--layers", "2", "--out", "{out}"], "fine-tune it first"),
    "a pruned teacher": (["create", "--prune", "{pruned}", "--layers", "1", "--out", "{out}"], "cannot be pruned"),
    "a folder in use": (["create", "--prune", "{teacher}", "--layers", "2", "--out", "{teacher}"], "is not empty"),
}


@pytest.fixture(scope="module")
def encoder(tiny_teacher_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny teacher without its classifier."""
    logging.disable_progress_bar()
    folder = tmp_path_factory.mktemp("encoder")
    BertModel.from_pretrained(tiny_teacher_dir).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_teacher_dir).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_in_one_line_before_anything_is_written(
    mistake: str, pruned: dict[str, Any], encoder: Path, tiny_teacher_dir: Path, tsv_file: Path, tmp_path: Path
) -> None:
    places = {"teacher": tiny_teacher_dir, "data": tsv_file, "out": tmp_path / "out", "encoder": encoder}
    args, complaint = MISTAKES[mistake]
    result = hsktrain(*(arg.format(**places, pruned=pruned["out"]) for arg in args))
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert result.stdout == ""
    assert len([line for line in result.stderr.splitlines() if line.lower().startswith("error")]) == 1
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()
