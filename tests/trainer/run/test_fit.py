"""Runs of a recipe from end to end: what they leave, what they show, and when they refuse."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import CPU, HIDDEN, PREDICTION, config_file, fit_of, recipe_of, scalars, weights_of
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from hskcache.cache import Cache
from hskcache.errors import CacheError, MismatchError, SpecError
from hskcache.locks import WRITING
from trainer.recipe import Recipe
from trainer.run.checkpoints import read_json
from trainer.run.fit import Fit, fit

SHORT = PREDICTION | {"epochs": 1}

MakeFit = Callable[..., Fit]


@pytest.fixture
def make(cache_dir: Path, tsv_file: Path, narrow: Path) -> MakeFit:
    """A run over the tiny cache with the narrow student, apart from what is given."""

    def job(recipe: Recipe, student: Path = narrow, cache: Path = cache_dir, **changes: Any) -> Fit:
        return fit_of(cache, tsv_file, student, recipe, **changes)

    return job


def test_the_student_is_an_ordinary_checkpoint_beside_its_projection(make: MakeFit, tmp_path: Path) -> None:
    job = make(recipe_of(hidden=HIDDEN, prediction=PREDICTION))
    result = fit(job, tmp_path / "out", CPU)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "config.json",
        "history.jsonl",
        "logs",
        "metrics.json",
        "model.safetensors",
        "projection.safetensors",
        "run.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "training_args.json",
    }
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert set(weights_of(tmp_path / "out")) == set(model.state_dict())
    assert model.config.id2label == {0: "0", 1: "1"}
    assert len(AutoTokenizer.from_pretrained(tmp_path / "out")) == model.config.vocab_size
    assert job.score(model) == result["scores"]
    assert read_json(tmp_path / "out" / "metrics.json") == result
    assert [stage["name"] for stage in result["stages"]] == ["hidden", "prediction"]
    assert [stage["steps"] for stage in result["stages"]] == [12, 12]
    assert all(stage["seconds_per_step"] > 0 for stage in result["stages"])


def test_a_second_run_into_the_folder_of_one_that_trains_is_refused(make: MakeFit, tmp_path: Path) -> None:
    """Also one of other settings, which would take a folder that has not begun for its own."""
    recipe = recipe_of(prediction=SHORT)
    refused: list[str] = []

    def score(_student: Any) -> dict[str, float]:
        for other in (recipe, recipe_of(prediction=PREDICTION)):
            with pytest.raises(CacheError) as error:
                fit(make(other), tmp_path / "out", CPU)
            refused.append(str(error.value))
        return {"accuracy": 0.5}

    result = fit(make(recipe, score=score), tmp_path / "out", CPU)
    assert result["scores"] == {"accuracy": 0.5}
    assert len(refused) == 4
    assert all("out is being written by another process" in words for words in refused)
    assert fit(make(recipe), tmp_path / "out", CPU) == result


def test_a_folder_whose_run_was_killed_at_once_is_taken_up(make: MakeFit, tmp_path: Path) -> None:
    """What is there then is the file that said who writes, and the one that says what."""
    (tmp_path / WRITING).write_text("1 gone\n", encoding="utf-8")
    fit(make(recipe_of(prediction=SHORT)), tmp_path, CPU)
    assert not (tmp_path / WRITING).exists()


def test_training_teaches(make: MakeFit, wide: Path, tmp_path: Path) -> None:
    """Both stages lower their loss, and the student ends up agreeing with the labels it was given."""
    recipe = recipe_of(
        hidden=HIDDEN | {"epochs": 4, "learning_rate": 3e-3},
        labels={"losses": {"label": {}}, "epochs": 8, "learning_rate": 3e-3, "batch_size": 8, "select": "best"},
    )
    result = fit(make(recipe, student=wide), tmp_path, CPU)
    assert result["scores"]["accuracy"] > 0.9
    for stage in ("hidden", "labels"):
        losses = list(scalars(tmp_path / "logs" / stage)["train/loss"].values())
        assert losses[-1] < 0.8 * losses[0]


def test_the_best_epoch_is_kept_and_the_first_of_equals(make: MakeFit, tmp_path: Path) -> None:
    scores = iter([0.1, 0.7, 0.3, 0.7, 0.7])
    seen: list[dict[str, torch.Tensor]] = []

    def score(model: Any) -> dict[str, float]:
        seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return {"accuracy": next(scores)}

    recipe = recipe_of(prediction=PREDICTION | {"epochs": 4})
    fit(make(recipe, score=score), tmp_path, CPU)
    best = weights_of(tmp_path)
    assert all(torch.equal(tensor, seen[1][name]) for name, tensor in best.items())
    assert not all(torch.equal(tensor, seen[3][name]) for name, tensor in best.items())


def test_the_last_epoch_is_kept_where_the_recipe_says_so(make: MakeFit, tmp_path: Path) -> None:
    result = fit(make(recipe_of(prediction=PREDICTION | {"select": "last"})), tmp_path, CPU)
    assert result["stages"][0]["evaluations"] == []


def test_the_seed_decides_everything(make: MakeFit, tmp_path: Path) -> None:
    recipe = recipe_of(hidden=HIDDEN | {"epochs": 1}, prediction=SHORT)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        fit(make(recipe, seed=seed), tmp_path / name, CPU)
    first, again, other = (weights_of(tmp_path / name) for name in "abc")
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_a_finished_run_is_not_run_again(make: MakeFit, tmp_path: Path) -> None:
    recipe = recipe_of(prediction=SHORT)
    result = fit(make(recipe), tmp_path, CPU)
    before = (tmp_path / "model.safetensors").stat().st_mtime_ns

    def fail(_model: Any) -> dict[str, float]:
        raise AssertionError

    assert fit(make(recipe, score=fail), tmp_path, CPU) == result
    assert (tmp_path / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize("finished", [True, False])
def test_another_run_in_the_same_folder_is_refused(
    finished: bool, make: MakeFit, caches: Callable[[str], Cache], tmp_path: Path
) -> None:
    recipe = recipe_of(prediction=SHORT)

    def interrupt(_model: Any) -> dict[str, float]:
        raise KeyboardInterrupt

    if finished:
        fit(make(recipe), tmp_path, CPU)
    else:
        # The evaluation comes before the checkpoint of its epoch, so that one is taken within it.
        with pytest.raises(KeyboardInterrupt):
            fit(make(recipe, score=interrupt), tmp_path, replace(CPU, save_steps=2))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    others = {
        "knowledge": make(recipe, cache=caches("pca").root),
        "recipe": make(recipe_of(prediction=SHORT | {"epochs": 2})),
        "seed": make(recipe, seed=1),
        "student": make(recipe, run={"student": "tinybert6"}),
        "metric": make(recipe, metric="f1_macro"),
    }
    for key, other in others.items():
        with pytest.raises(MismatchError, match=rf"holds a run with {key}\b.* or another --out"):
            fit(other, tmp_path, CPU)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_folder_in_which_nothing_was_saved_yet_may_be_used_for_another_run(make: MakeFit, tmp_path: Path) -> None:
    def interrupt(_model: Any) -> dict[str, float]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(make(recipe_of(first=SHORT), score=interrupt), tmp_path, CPU)
    assert (tmp_path / "logs" / "first").is_dir()
    fit(make(recipe_of(second=SHORT)), tmp_path, CPU)
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["second"]


def test_a_batch_that_cannot_be_cut_is_refused_before_anything_is_written(make: MakeFit, tmp_path: Path) -> None:
    job = make(recipe_of(hidden=HIDDEN, prediction=PREDICTION | {"batch_size": 10}))
    with pytest.raises(
        SpecError, match=r"stage 'prediction' .* batches of 10 rows.* 4 equal parts.*prediction\.batch_size=N"
    ):
        fit(job, tmp_path / "out", replace(CPU, accumulation=4))
    assert not (tmp_path / "out").exists()


def test_a_student_without_token_types_learns_from_rows_that_have_them(make: MakeFit, tmp_path: Path) -> None:
    config = config_file(tmp_path, model_type="distilbert", dim=16, n_layers=2, n_heads=2, hidden_dim=32)
    result = fit(make(recipe_of(hidden=HIDDEN, prediction=SHORT), student=config), tmp_path / "out", CPU)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert model.config.model_type == "distilbert"
    assert 0 <= result["scores"]["accuracy"] <= 1


def test_bfloat16_trains_float32_weights_to_nearby_losses(make: MakeFit, tmp_path: Path) -> None:
    recipe = recipe_of(hidden=HIDDEN, prediction=SHORT)
    losses = []
    for name, machine in (("full", CPU), ("half", replace(CPU, bf16=True))):
        fit(make(recipe), tmp_path / name, machine)
        assert {tensor.dtype for tensor in weights_of(tmp_path / name).values()} == {torch.float32}
        losses.append(list(scalars(tmp_path / name / "logs" / "hidden")["train/loss"].values()))
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert losses[1] != losses[0]


SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda _done: 1.0,
    "linear": lambda done: 1 - done,
    "cosine": lambda done: 0.5 * (1 + np.cos(np.pi * done)),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_learning_rate_follows_the_recipe(schedule: str, make: MakeFit, tmp_path: Path) -> None:
    """Twelve steps, the first three of them warm-up; step n is taken at the rate of n - 1 steps done."""
    stage = PREDICTION | {"schedule": schedule, "warmup": 0.25, "learning_rate": 1e-2, "epochs": 2, "select": "last"}
    fit(make(recipe_of(prediction=stage)), tmp_path, replace(CPU, save_steps=1))
    rates = scalars(tmp_path / "logs" / "prediction")["train/learning_rate"]
    factor = SCHEDULES[schedule]
    expected = {step: 1e-2 * ((step - 1) / 3 if step <= 3 else factor((step - 4) / 9)) for step in range(1, 13)}
    assert rates == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("epochs", "steps"), [(0.5, 3), (1.5, 9)])
def test_a_stage_may_end_within_an_epoch(epochs: float, steps: int, make: MakeFit, tmp_path: Path) -> None:
    result = fit(make(recipe_of(prediction=PREDICTION | {"epochs": epochs})), tmp_path, CPU)
    assert result["stages"][0]["steps"] == steps
    assert result["stages"][0]["evaluations"][-1]["epoch"] == epochs


def test_tensorboard_shows_every_term_and_they_add_up(make: MakeFit, tmp_path: Path) -> None:
    losses = {"hidden": {"weight": 2.0}, "soft": {"weight": 0.5, "temperature": 2.0}, "label": {"weight": 3.0}}
    fit(make(recipe_of(joint=PREDICTION | {"losses": losses})), tmp_path, CPU)
    shown = scalars(tmp_path / "logs" / "joint")
    assert {"eval/accuracy", "eval/f1_macro", "train/grad_norm", "train/learning_rate"} <= shown.keys()
    for step, total in shown["train/loss"].items():
        terms = {name: shown[f"train/loss_{name}"][step] for name in losses}
        assert total == pytest.approx(sum(losses[name]["weight"] * terms[name] for name in losses), rel=1e-5)


def test_a_loss_that_is_not_a_number_is_shown(make: MakeFit, tmp_path: Path) -> None:
    """The Trainer would show the average of the losses before it."""
    recipe = recipe_of(prediction=SHORT | {"learning_rate": 1e30, "max_grad_norm": 0.0, "epochs": 2, "select": "last"})
    fit(make(recipe), tmp_path, CPU)
    assert not np.isfinite(scalars(tmp_path / "logs" / "prediction")["train/loss"][12])


def test_nothing_is_printed_on_stdout(make: MakeFit, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fit(make(recipe_of(hidden=HIDDEN, prediction=PREDICTION)), tmp_path, CPU)
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "prediction loss" in printed.err
