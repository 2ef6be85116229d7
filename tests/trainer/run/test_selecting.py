"""Evaluations within epochs: when they are made, what they keep, and that training does not notice them."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import CPU, PREDICTION, config_file, fit_of, recipe_of, scalars, weights_of

from hskcache.errors import SpecError
from trainer.recipe import load_recipe
from trainer.run.fit import fit

# Six steps an epoch.
MORE = PREDICTION | {"epochs": 2}


class Script:
    """A score that says what it was told to, and what the student was then."""

    def __init__(self, values: Sequence[float], folder: Path) -> None:
        self.values: Iterator[float] = iter(values)
        self.folder = folder
        self.weights: list[dict[str, torch.Tensor]] = []
        self.num_kept = 0

    def __call__(self, student: Any) -> dict[str, float]:
        self.weights.append({name: tensor.clone() for name, tensor in student.state_dict().items()})
        self.num_kept = max(self.num_kept, len(list(self.folder.rglob("best-*"))))
        return {"accuracy": next(self.values, 0.0)}


@pytest.fixture
def run(cache_dir: Path, tsv_file: Path, tmp_path: Path) -> Callable[..., tuple[dict[str, Any], Script]]:
    """Train a narrow student with dropout by one stage and scripted scores."""
    student = config_file(tmp_path / "student", width=16, hidden_dropout_prob=0.2)

    def start(values: Sequence[float], out: Path = tmp_path / "out", **stage: Any) -> tuple[dict[str, Any], Script]:
        script = Script(values, out)
        job = fit_of(cache_dir, tsv_file, student, recipe_of(prediction=MORE | stage), score=script)
        return fit(job, out, CPU)["stages"][0], script

    return start


def steps_of(stage: dict[str, Any], script: Script) -> list[int]:
    steps = [round(6 * entry["epoch"]) for entry in stage["evaluations"]]
    # One more is the score of the finished student.
    assert len(script.weights) == len(steps) + 1
    return steps


def test_the_best_of_all_evaluations_is_kept_whether_a_checkpoint_is_there_or_not(run: Any, tmp_path: Path) -> None:
    stage, script = run([0.5, 0.6, 0.9, 0.9], eval_steps=4)
    assert steps_of(stage, script) == [4, 6, 8, 12]
    kept = weights_of(tmp_path / "out")
    assert all(torch.equal(tensor, script.weights[2][name]) for name, tensor in kept.items())
    assert any(not torch.equal(tensor, script.weights[3][name]) for name, tensor in kept.items())


def test_training_does_not_notice_evaluations(run: Any, tmp_path: Path) -> None:
    often, seldom = tmp_path / "often", tmp_path / "seldom"
    run([], out=often, eval_steps=1)
    run([], out=seldom)
    losses = [scalars(out / "logs" / "prediction")["train/loss"] for out in (often, seldom)]
    assert losses[0] == losses[1]


def test_patience_counts_epochs_whatever_is_evaluated_in_them(run: Any) -> None:
    stage, script = run([0.5, 0.6], epochs=4, eval_steps=2, patience=1)
    assert steps_of(stage, script) == [2, 4, 6, 8, 10], "the best is of step 4"
    assert stage["steps"] == 10


def test_weights_that_nothing_goes_back_to_are_dropped_at_once(run: Any) -> None:
    _, script = run([0.01 * number for number in range(20)], epochs=3, eval_steps=1)
    assert script.num_kept == 2, "that of the last checkpoint, and that of the last evaluation"


def test_steps_hold_for_the_stages_that_keep_their_best() -> None:
    hidden, prediction = load_recipe("mud").evaluated_every(10).stages
    assert (hidden.eval_steps, prediction.eval_steps) == (None, 10)
    assert load_recipe("mud").evaluated_every(None) == load_recipe("mud")
    with pytest.raises(SpecError, match=r"no stage of recipe 'tinybert-general' keeps its best weights; leave it out$"):
        load_recipe("tinybert-general").evaluated_every(10)
    with pytest.raises(SpecError, match=r"leave it out, or give --set prediction\.select=best"):
        load_recipe("mud", ["prediction.select=last"]).evaluated_every(10)
    with pytest.raises(SpecError, match="eval_steps needs select: best"):
        load_recipe("mud", ["hidden.eval_steps=10"])
