"""A model that knows no more than which class is the most frequent is told of, and metrics.json keeps it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from hskcache.cache import Cache
from hskcache.evaluation import Scores
from hskcache.metrics import METRICS
from trainer import chance
from trainer.cli import main
from trainer.run.finetuner import Finetuner
from trainer.stark.folder import Folder
from trainer.stark.results import results_of, table
from trainer.stark.settings import DENSE, KNOWLEDGE, Level

NEVER = "1e-12"
"""A learning rate at which nothing is learned."""


def hsktrain(*args: object) -> Result:
    result = CliRunner().invoke(main, list(map(str, [*args, "--device", "cpu"])), catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return result


@pytest.fixture(scope="module")
def constant(tiny_teacher_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that answers class 1 for every row."""
    folder = tmp_path_factory.mktemp("constant") / "m"
    model = AutoModelForSequenceClassification.from_pretrained(tiny_teacher_dir)
    model.classifier.weight.data.zero_()
    model.classifier.bias.data.copy_(model.classifier.bias.new_tensor([0.0, 1.0]))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_teacher_dir).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def good(tsv_file: Path, tiny_teacher_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny teacher, fine-tuned until it is right most of the time."""
    out = tmp_path_factory.mktemp("good") / "m"
    data = ("--task", "sst2", "--data", tsv_file, "--eval-data", tsv_file)
    hsktrain(
        "finetune", "--model", tiny_teacher_dir, *data, "--epochs", 8, "--batch-size", 8, "--lr", "2e-3", "--out", out
    )
    return out


def test_evaluate_tells_it(constant: Path, good: Path, tsv_file: Path) -> None:
    data = ("--task", "sst2", "--data", tsv_file)
    result = hsktrain("evaluate", "--model", constant, *data, "--json")
    words = "answers 1 for every row, which agrees with 50.0 % of the labels"
    assert f"{constant} {words}: train it at another learning rate" in result.stderr
    noticed = {"majority": 0.5, "predicted_classes": 1, "at_chance": True, "notice": words}
    assert json.loads(result.stdout)["chance"] == noticed
    result = hsktrain("evaluate", "--model", good, *data, "--json")
    assert json.loads(result.stdout)["chance"]["notice"] is None
    assert "the labels" not in result.stderr


def test_evaluate_tells_of_classes_in_another_order(good: Path, tsv_file: Path, tmp_path: Path) -> None:
    lines = tsv_file.read_text().splitlines()
    swapped = tmp_path / "swapped.tsv"
    swapped.write_text("\n".join([lines[0], *(line[:-1] + str(1 - int(line[-1])) for line in lines[1:])]) + "\n")
    result = hsktrain("evaluate", "--model", good, "--task", "sst2", "--data", swapped, "--json")
    noticed = json.loads(result.stdout)["chance"]
    assert not noticed["at_chance"]
    assert "where they are 1, 0" in noticed["notice"]
    assert "id2label" in result.stderr


def test_finetune_and_fit_tell_it_and_keep_it(constant: Path, caches: Any, tsv_file: Path, tmp_path: Path) -> None:
    cache: Cache = caches("bitmask")
    data, rate = ("--task", "sst2", "--eval-data", tsv_file), f"prediction.learning_rate={NEVER}"
    runs = {
        "finetune": ("--model", constant, "--data", tsv_file, "--epochs", 1, "--lr", NEVER),
        "fit": ("--cache", cache.root, "--student", constant, "--recipe", "logits", "--set", "prediction.epochs=1"),
    }
    runs["fit"] += ("--set", rate)
    for (name, flags), helps in zip(runs.items(), ("(--lr)", "(--set prediction.learning_rate=...)"), strict=True):
        out = tmp_path / name
        # The second time it is finished already.
        for _ in range(2):
            told = hsktrain(name, *flags, *data, "--out", out).stderr.splitlines()
            line = next(one for one in told if "answers 1" in one)
            assert line.startswith(f"{out} answers 1 for every row")
            assert helps in line
        assert json.loads((out / "metrics.json").read_text())["chance"]["at_chance"]


def test_the_best_epoch_of_an_earlier_process_is_judged_again(
    constant: Path, tsv_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = Finetuner.evaluate

    def forgetful(self: Finetuner, *args: Any, **given: Any) -> dict[str, float]:
        values = evaluate(self, *args, **given)
        self.scores.clear()
        return values

    monkeypatch.setattr(Finetuner, "evaluate", forgetful)
    flags = ("--model", constant, "--data", tsv_file, "--epochs", 1, "--lr", NEVER, "--task", "sst2")
    hsktrain("finetune", *flags, "--eval-data", tsv_file, "--out", tmp_path / "o")
    assert json.loads((tmp_path / "o" / "metrics.json").read_text())["chance"]["predicted_classes"] == 1


def test_without_a_task_there_is_nothing_to_notice(capsys: pytest.CaptureFixture[str]) -> None:
    assert chance.record({}) == {}
    assert chance.record(Scores()) == {}
    chance.tell({"scores": {}}, "m", "")
    assert not chance.is_at_chance({"scores": {}})
    assert capsys.readouterr().err == ""


def test_the_table_of_levels_marks_chance(tmp_path: Path) -> None:
    level = Level(KNOWLEDGE, 30)
    noticed = {"majority": 0.5, "predicted_classes": 1, "at_chance": True, "notice": "answers 1 for every row"}
    for one, record in ((DENSE, {}), (level, {"chance": noticed})):
        place = Folder(tmp_path).student(one)
        place.mkdir(parents=True)
        (place / "metrics.json").write_text(json.dumps({"metric": "accuracy", "scores": {"accuracy": 0.5}} | record))
        (place / "model.safetensors").write_bytes(b"weights")
    outcomes = Folder(tmp_path).trained()
    scores = {one: outcome.scores for one, outcome in outcomes.items()}
    at_chance = [one for one, outcome in outcomes.items() if outcome.is_at_chance]
    found = results_of("accuracy", (4, 10), 9, scores, at_chance)
    assert [row.at_chance for row in found.rows] == [False, True]
    lines = table(found).splitlines()
    assert lines[1].endswith("best")
    assert lines[2].endswith("chance")


def test_the_majority_has_the_metrics_of_one_answer_for_all_rows() -> None:
    classes, scores = np.array([1, 1, 1, 0]), np.array([0.5, 1.5, 4.0], np.float32)
    names = ("accuracy", "f1", "matthews")
    assert chance.majority(classes, {name: METRICS[name] for name in names}) == pytest.approx(
        {"accuracy": 0.75, "f1": 2 * 3 / (2 * 3 + 1), "matthews": 0.0}
    )
    assert chance.majority(scores, {"pearson": METRICS["pearson"]}) == {"pearson": 0.0}
