"""Several processes, and several passes a step, train on the same losses as one of each."""

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import children
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from tiny import CPU, fit_of, recipe_of, scalars, weights_of

from hskcache.errors import MismatchError, SpecError
from trainer.cli import main
from trainer.run import processes
from trainer.run.checkpoints import read_json
from trainer.run.fit import fit
from trainer.run.learner import Projecting
from trainer.run.request import Machine
from trainer.source.projections import FILE, linear
from trainer.source.source import cached_source

ALL = {"hidden": {}, "soft": {"temperature": 2.0}, "label": {}}


@dataclass(frozen=True)
class Case:
    """A run, apart from its folder and machine."""

    cache: Path
    data: Path
    student: Path
    batch_size: int

    def run(self, out: Path, machine: Machine) -> None:
        common: dict[str, Any] = {"batch_size": self.batch_size, "epochs": 1}
        recipe = recipe_of(
            hidden=common | {"losses": {"hidden": {"missing": "ignore", "shared_projection": False}}},
            joint=common | {"losses": ALL, "select": "best"},
        )
        # The first stage draws its own and the second goes on with what the student brings.
        brought = linear(torch.linspace(-0.2, 0.2, 512).reshape(32, 16), torch.zeros(32))
        job = fit_of(self.cache, self.data, self.student, recipe, projecting=Projecting({"shared": brought}))
        fit(job, out, machine)


@pytest.fixture(scope="module")
def case(cache_dir: Path, tsv_file: Path, narrow: Path) -> Case:
    """Batches of 19 or 20 rows, whose kept positions differ from slice to slice."""
    return Case(cache_dir, tsv_file, narrow, batch_size=20)


@pytest.fixture(scope="module")
def alone(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process, one pass a step."""
    out = tmp_path_factory.mktemp("alone") / "out"
    case.run(out, CPU)
    return out


def assert_close(out: Path, alone: Path) -> None:
    """Equal but for the order in which floats are added."""
    for stage in ("hidden", "joint"):
        ours, theirs = scalars(out / "logs" / stage), scalars(alone / "logs" / stage)
        assert ours.keys() == theirs.keys()
        assert {"train/loss", "train/loss_hidden", "train/grad_norm"} <= ours.keys()
        for name, values in ours.items():
            assert values == pytest.approx(theirs[name], rel=1e-4), name
    theirs_weights = weights_of(alone) | load_file(alone / FILE)
    assert {"shared.weight", "layer_01.weight", "layer_02.weight"} <= theirs_weights.keys()
    for name, tensor in (weights_of(out) | load_file(out / FILE)).items():
        torch.testing.assert_close(tensor, theirs_weights[name], rtol=0, atol=2e-4)


@pytest.mark.parametrize("accumulation", [2, 5, 20])
def test_passes_of_a_step_add_up_to_one(accumulation: int, case: Case, alone: Path, tmp_path: Path) -> None:
    """With 20 passes a batch of 19 rows leaves one without a row."""
    case.run(tmp_path / "out", replace(CPU, accumulation=accumulation))
    assert_close(tmp_path / "out", alone)


@pytest.mark.parametrize("accumulation", [1, 10])
def test_two_processes_train_as_one(accumulation: int, case: Case, alone: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert children.together(case.run, out, replace(CPU, accumulation=accumulation)) == [0, 0]
    assert_close(out, alone)
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in alone.iterdir())
    for stage in ("hidden", "joint"):
        assert len(list((out / "logs" / stage).iterdir())) == 1, "only the first process writes"


def test_two_processes_that_were_killed_go_on(case: Case, tmp_path: Path) -> None:
    """Random generators and all: killed in the second stage, by the second process, and compared to the bit."""
    machine = replace(CPU, save_steps=2)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert children.together(case.run, whole, machine) == [0, 0]
    assert 7 in children.together(run_and_leave, case, cut, machine)
    assert (cut / "stages" / "1-joint" / "checkpoints" / "checkpoint-2" / "rng_state_1.pth").is_file()
    assert children.together(case.run, cut, machine) == [0, 0]
    theirs = weights_of(whole)
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in weights_of(cut).items())
    assert (cut / FILE).read_bytes() == (whole / FILE).read_bytes()


def run_and_leave(case: Case, out: Path, machine: Machine) -> None:
    """Run until the second stage has a checkpoint, then leave without a word."""
    import threading
    import time

    def watch() -> None:
        while not (out / "stages" / "1-joint" / "checkpoints" / "checkpoint-2" / "loader.json").is_file():
            time.sleep(0.001)
        os._exit(7)

    threading.Thread(target=watch, daemon=True).start()
    case.run(out, machine)


def test_a_folder_that_one_process_refuses_stops_them_all(case: Case, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious", encoding="utf-8")
    assert children.together(refused, case, tmp_path) == [3, 3]
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def refused(case: Case, out: Path) -> None:
    try:
        case.run(out, CPU)
    except MismatchError as error:
        sys.exit(3 if "holds no run" in str(error) else 4)


def test_processes_with_different_copies_of_a_cache_stop_before_anything_is_written(case: Case, tmp_path: Path) -> None:
    assert children.together(with_own_copy, case, tmp_path / "out") == [3, 3]
    assert not (tmp_path / "out").exists()


def with_own_copy(case: Case, out: Path) -> None:
    """The copy of the second process is of the first rows alone."""
    recipe = recipe_of(joint={"batch_size": 20, "epochs": 1, "losses": ALL})
    job = fit_of(case.cache, case.data, case.student, recipe)
    if os.environ["RANK"] == "1":
        job = replace(job, source=cached_source(case.cache, num_rows=8))
    try:
        fit(job, out, CPU)
    except MismatchError as error:
        sys.exit(3 if "knowledge is '" in str(error) and "for process 1; give all" in str(error) else 4)


def test_two_processes_that_begin_together_do_not_fight_over_the_folder(case: Case, tmp_path: Path) -> None:
    for attempt in range(3):
        out = tmp_path / str(attempt)
        assert children.together(claim_only, case, out) == [0, 0]
        assert read_json(out / "run.json")["seed"] == 0


def claim_only(_case: Case, out: Path) -> None:
    from trainer.run import processes
    from trainer.run.checkpoints import claim

    processes.connect("cpu")
    assert processes.on_first(lambda: claim(out, {"seed": 0})) is None


def test_two_processes_fine_tune_into_one_folder(
    tiny_tokenizer_dir: Path, tsv_file: Path, wide: Path, tmp_path: Path
) -> None:
    """Twice the rows a step; both agree on the best epoch and when to stop, and the first writes."""
    args = ["finetune", "--model", wide, "--tokenizer", tiny_tokenizer_dir, "--task", "sst2", "--epochs", 9]
    args += ["--data", tsv_file, "--eval-data", tsv_file, "--patience", 2, "--lr", 1e-12, "--device", "cpu"]
    out = tmp_path / "out"
    assert children.together(hsktrain, [*map(str, [*args, "--batch-size", 8, "--out", out])]) == [0, 0]
    assert [epoch["step"] for epoch in read_json(out / "metrics.json")["epochs"]] == [6, 12, 18]
    assert {path.name for path in out.iterdir()} >= {"model.safetensors", "tokenizer.json", "logs"}
    assert len(list((out / "logs").iterdir())) == 1


def hsktrain(args: list[str]) -> None:
    main(args, standalone_mode=False)


@pytest.mark.parametrize(
    ("told", "missing"),
    [
        ({}, "no RANK and no MASTER_ADDR is set"),
        ({"RANK": "0", "LOCAL_RANK": "0"}, "no MASTER_ADDR is set"),
        ({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}, "no RANK is set"),
    ],
)
def test_several_processes_that_cannot_find_each_other_are_refused(
    told: dict[str, str], missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the one ends in a traceback, and the other waits for itself."""
    for name, value in (told | {"WORLD_SIZE": "2"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SpecError, match=rf"WORLD_SIZE=2 .* 2 processes .* {missing}; start them with torchrun or "):
        processes.connect("cpu")


@pytest.mark.parametrize("command", ["finetune", "fit"])
def test_a_world_size_left_over_in_the_environment_is_one_line(
    command: str,
    cache_dir: Path,
    narrow: Path,
    tiny_teacher_dir: Path,
    tsv_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = {
        "finetune": ["--model", tiny_teacher_dir, "--data", tsv_file, "--task", "sst2"],
        "fit": ["--cache", cache_dir, "--student", narrow, "--recipe", "mud"],
    }
    rest = ["--eval-data", tsv_file, "--device", "cpu", "--out", tmp_path / "out"]
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = CliRunner().invoke(main, [command, *map(str, start[command] + rest)])
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1] == (
        "error: rank 0: WORLD_SIZE=2 says that 2 processes train together, and nothing says how they find each other: "
        "no RANK and no MASTER_ADDR is set; start them with torchrun or accelerate launch, or unset WORLD_SIZE to "
        "train in one"
    )
    assert not (tmp_path / "out").exists()
