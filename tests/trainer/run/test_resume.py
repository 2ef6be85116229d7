"""A run that is killed, at any moment, goes on as if it had never stopped."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import children
import pytest
import torch
from tiny import CPU, HIDDEN, PREDICTION, config_file, fit_of, recipe_of, scalars, wait_for_the_next_second, weights_of

from hskcache.cache import Cache
from trainer.batch import Batch
from trainer.loading import KnowledgeLoader
from trainer.recipe import Losses
from trainer.run.checkpoints import HISTORY, read_json
from trainer.run.fit import Fit, fit
from trainer.run.history import read_history
from trainer.run.request import Machine
from trainer.source.projections import FILE
from trainer.source.source import Slice, fields_of

# Six steps an epoch; patience ends the second stage before its last epoch.
RECIPE = recipe_of(
    hidden=HIDDEN | {"epochs": 2}, prediction=PREDICTION | {"epochs": 5, "patience": 2, "learning_rate": 1e-8}
)


@dataclass(frozen=True)
class Death:
    """When a run kills itself: at a batch of a stage, at the n-th evaluation, or when the n-th student is saved."""

    stage: str = ""
    batch: int = -1
    score: int = -1
    save: int = -1


@dataclass(frozen=True)
class Case:
    """A run, apart from its folder."""

    cache: Path
    data: Path
    student: Path
    recipe: Any = RECIPE
    machine: Machine = CPU

    def job(self) -> Fit:
        return fit_of(self.cache, self.data, self.student, self.recipe)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class Mortal(KnowledgeLoader):
    """Dies instead of handing out a batch."""

    lives: int = 0

    def __iter__(self) -> Iterator[Batch]:
        for batch in super().__iter__():
            if self.lives == 0:
                die()
            self.lives -= 1
            yield batch


def doomed(job: Fit, death: Death) -> Fit:
    """The same run, but for its end."""
    calls = {"score": 0, "save": 0}
    source, save = job.source, job.student.save_pretrained

    def loader(losses: Losses, part: Slice, seed: int) -> Any:
        ours = source.loader(losses, part, seed)
        if ("hidden" if losses.hidden is not None else "prediction") != death.stage:
            return ours
        settings = {name: getattr(ours, name) for name in ("batch_size", "seed", "device", "accumulation", "residency")}
        return Mortal(ours.cache, fields=fields_of(losses), lives=death.batch, **settings)

    def count(what: str, fatal: int) -> None:
        calls[what] += 1
        if calls[what] == fatal:
            die()

    def score(model: Any) -> dict[str, float]:
        values = job.score(model)
        count("score", death.score)
        return values

    def save_pretrained(folder: Path) -> None:
        count("save", death.save)
        save(folder)

    job.student.save_pretrained = save_pretrained
    return replace(job, source=replace(source, loader=loader), score=score)


def run_until(death: Death, case: Case, out: Path) -> None:
    fit(doomed(case.job(), death), out, case.machine)


def outcome(out: Path) -> dict[str, Any]:
    """Everything a run leaves that does not depend on the clock."""
    result = read_json(out / "metrics.json")
    for stage in result["stages"]:
        del stage["seconds_per_step"]
    history = [
        {name: value for name, value in line.items() if name != "seconds"} for line in read_history(out / HISTORY)
    ]
    logs = {folder.name: scalars(folder) for folder in sorted((out / "logs").iterdir())}
    return {"result": result, "logs": logs, "history": history}


def assert_same(out: Path, expected: Path) -> None:
    assert outcome(out) == outcome(expected)
    ours, theirs = weights_of(out), weights_of(expected)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    assert (out / FILE).read_bytes() == (expected / FILE).read_bytes()


@pytest.fixture(scope="module")
def case(cache_dir: Path, tsv_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A narrow student with dropout, so that the random generators matter."""
    folder = tmp_path_factory.mktemp("dropout")
    return Case(cache_dir, tsv_file, config_file(folder, width=16, hidden_dropout_prob=0.2))


@pytest.fixture(scope="module")
def whole(case: Case, tmp_path_factory: pytest.TempPathFactory) -> dict[Machine, Path]:
    """Runs that were never stopped."""
    machines = (CPU, replace(CPU, save_steps=2), replace(CPU, save_steps=2, accumulation=2))
    found = {}
    for machine in machines:
        found[machine] = tmp_path_factory.mktemp("whole") / "out"
        fit(case.job(), found[machine], machine)
    return found


DEATHS = {
    "before the first checkpoint": (CPU, Death("hidden", batch=3)),
    "in the second epoch of the first stage": (CPU, Death("hidden", batch=9)),
    "within an epoch of the first stage": (replace(CPU, save_steps=2), Death("hidden", batch=11)),
    "between the stages": (CPU, Death("prediction", batch=0)),
    "in the second stage": (CPU, Death("prediction", batch=14)),
    "within an epoch of the second stage": (replace(CPU, save_steps=2), Death("prediction", batch=11)),
    "within an epoch with two passes a step": (
        replace(CPU, save_steps=2, accumulation=2),
        Death("prediction", batch=21),
    ),
    "after an evaluation, before its checkpoint": (CPU, Death(score=2)),
    "after an evaluation of a step that would be saved": (replace(CPU, save_steps=2), Death(score=2)),
    "when the first stage is trained but not recorded": (CPU, Death(save=1)),
    "when patience has ended the second stage": (CPU, Death(save=2)),
    "when all stages are done": (CPU, Death(score=4)),
}


@pytest.mark.parametrize("name", DEATHS)
def test_a_killed_run_goes_on_to_the_same_losses_scores_and_weights(
    name: str, case: Case, whole: dict[Machine, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    machine, death = DEATHS[name]
    mortal, out = replace(case, machine=machine), tmp_path / "out"
    assert children.run(run_until, death, mortal, out) == -signal.SIGKILL
    assert not (out / "metrics.json").exists()
    wait_for_the_next_second(out)
    fit(mortal.job(), out, machine)
    assert_same(out, whole[machine])
    if "within an epoch" in name:
        assert "going on from step 10" in capfd.readouterr().err


def test_patience_and_epochs_are_what_the_whole_run_shows(whole: dict[Machine, Path]) -> None:
    """Or the deaths above would show nothing."""
    hidden, prediction = read_json(whole[CPU] / "metrics.json")["stages"]
    assert hidden["steps"] == 12
    assert prediction["steps"] == 18, "patience ended it after three of five epochs"
    assert [entry["epoch"] for entry in prediction["evaluations"]] == [1, 2, 3]
    logs = scalars(whole[replace(CPU, save_steps=2)] / "logs" / "hidden")
    assert logs["train/epoch"] == pytest.approx({step: step / 6 for step in range(2, 13, 2)})


def test_checkpoints_that_save_more_often_change_nothing_else(whole: dict[Machine, Path]) -> None:
    often, seldom = (weights_of(whole[machine]) for machine in (replace(CPU, save_steps=2), CPU))
    assert all(torch.equal(tensor, seldom[name]) for name, tensor in often.items())


@pytest.mark.parametrize(
    "death",
    [Death(score=1), Death(score=4), Death("prediction", batch=11), Death("prediction", batch=14), Death(save=2)],
    ids=repr,
)
def test_a_killed_run_that_evaluates_within_epochs_goes_on_to_the_same_choice(
    death: Death, case: Case, tmp_path: Path
) -> None:
    often = {"epochs": 5, "eval_steps": 4, "patience": 2, "learning_rate": 1e-4}
    recipe = recipe_of(hidden=HIDDEN | {"epochs": 1}, prediction=PREDICTION | often)
    case = replace(case, recipe=recipe, machine=replace(CPU, save_steps=5))
    assert children.run(run_until, death, case, tmp_path / "cut") == -signal.SIGKILL
    wait_for_the_next_second(tmp_path / "cut")
    for name in ("cut", "whole"):
        fit(case.job(), tmp_path / name, case.machine)
    assert_same(tmp_path / "cut", tmp_path / "whole")
    assert len(read_json(tmp_path / "whole" / "metrics.json")["stages"][1]["evaluations"]) > 4


@pytest.fixture
def cut(case: Case, tmp_path: Path) -> Path:
    """The folder of a run that was killed in its first stage, after a checkpoint."""
    assert children.run(run_until, Death("hidden", batch=9), case, tmp_path / "cut") == -signal.SIGKILL
    wait_for_the_next_second(tmp_path / "cut")
    return tmp_path / "cut"


@pytest.mark.parametrize("missing", ["loader.json", "optimizer.pt"])
def test_a_checkpoint_that_a_kill_left_unfinished_is_passed_over(
    missing: str, cut: Path, case: Case, whole: dict[Machine, Path]
) -> None:
    checkpoints = cut / "stages" / "0-hidden" / "checkpoints"
    shutil.copytree(checkpoints / "checkpoint-6", checkpoints / "checkpoint-7")
    (checkpoints / "checkpoint-7" / missing).unlink()
    fit(case.job(), cut, CPU)
    assert_same(cut, whole[CPU])


def test_another_order_in_the_checkpoint_is_refused(cut: Path, case: Case) -> None:
    """An order that a later version would draw differently must not be taken for this one."""
    path = cut / "stages" / "0-hidden" / "checkpoints" / "checkpoint-6" / "loader.json"
    path.write_text(json.dumps(read_json(path) | {"window_shards": 3}), encoding="utf-8")
    with pytest.raises(Exception, match="window_shards 3, this run 4"):
        fit(case.job(), cut, CPU)


def test_a_run_goes_on_in_a_folder_that_was_moved(cut: Path, case: Case, whole: dict[Machine, Path]) -> None:
    moved = cut.with_name("moved")
    cut.rename(moved)
    fit(case.job(), moved, CPU)
    assert_same(moved, whole[CPU])


def test_a_run_may_go_on_with_other_passes_a_step(cut: Path, case: Case) -> None:
    """The losses then agree to rounding, not to the bit: dropout draws other masks."""
    fit(case.job(), cut, replace(CPU, accumulation=2))
    assert [stage["steps"] for stage in read_json(cut / "metrics.json")["stages"]] == [12, 18]


# Three steps an epoch over the cache written by hand.
TINYBERT = recipe_of(
    hidden=HIDDEN | {"losses": {"embedding": {}, "hidden": {"embedding": False}, "attention": {}}, "batch_size": 8},
    prediction=PREDICTION | {"losses": {"soft": {}}, "epochs": 1, "batch_size": 8},
)


@pytest.mark.parametrize("death", [Death("hidden", batch=5), Death("prediction", batch=1)])
def test_a_killed_run_with_attention_goes_on_alike(
    death: Death, written: Callable[..., Cache], tsv_file: Path, tmp_path: Path
) -> None:
    """Its student attends through another function in the first stage than in the second."""
    config = config_file(tmp_path, width=16, num_attention_heads=4, hidden_dropout_prob=0.2)
    machine = replace(CPU, save_steps=2)
    case = Case(written().root, tsv_file, config, TINYBERT, machine)
    assert children.run(run_until, death, case, tmp_path / "cut") == -signal.SIGKILL
    wait_for_the_next_second(tmp_path / "cut")
    for name in ("cut", "whole"):
        fit(case.job(), tmp_path / name, machine)
    assert_same(tmp_path / "cut", tmp_path / "whole")
    assert {"train/loss_embedding", "train/loss_attention"} <= outcome(tmp_path / "cut")["logs"]["hidden"].keys()
