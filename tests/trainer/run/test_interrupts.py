"""Ctrl-C and SIGTERM in real processes: the step at hand is saved, and the run goes on as if it had never stopped."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import children
import pytest
import torch
from tiny import config_file, scalars, wait_for_the_next_second, weights_of

from trainer.run.checkpoints import read_json

STOPPED = {signal.SIGINT: 130, signal.SIGTERM: 143}
# Six steps an epoch; the logs of 25 steps would begin in the second stage's fourth.
RECIPE = {
    "name": "tiny",
    "stages": [
        {"name": "hidden", "losses": {"hidden": {}}, "epochs": 2, "batch_size": 16, "schedule": "constant"},
        {"name": "prediction", "losses": {"soft": {}, "label": {}}, "epochs": 3, "batch_size": 16, "select": "best"},
    ],
}


@pytest.fixture(scope="module")
def fit_args(cache_dir: Path, tsv_file: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A run of two stages with dropout, so that the random generators matter."""
    folder = tmp_path_factory.mktemp("fit")
    (folder / "recipe.json").write_text(json.dumps(RECIPE), encoding="utf-8")
    student = config_file(folder, width=16, hidden_dropout_prob=0.2)
    args = ["fit", "--cache", cache_dir, "--student", student, "--recipe", folder / "recipe.json"]
    return [*map(str, args), "--eval-data", str(tsv_file), "--device", "cpu"]


@pytest.fixture(scope="module")
def finetune_args(tiny_tokenizer_dir: Path, tsv_file: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Twelve steps an epoch, with dropout."""
    model = config_file(tmp_path_factory.mktemp("finetune"), hidden_dropout_prob=0.2)
    args = ["finetune", "--model", model, "--tokenizer", tiny_tokenizer_dir, "--data", tsv_file]
    args += ["--eval-data", tsv_file, "--task", "sst2", "--epochs", 3, "--lr", 1e-3, "--batch-size", 8]
    return [*map(str, args), "--max-length", "32", "--device", "cpu"]


@pytest.fixture(scope="module")
def whole(fit_args: list[str], finetune_args: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs that were never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    for args in (fit_args, finetune_args):
        assert children.run(hsktrain, [*args, "--out", str(folder / args[0])]) == 0
    return {args[0]: folder / args[0] for args in (fit_args, finetune_args)}


def hsktrain(args: list[str], step: int = -1, number: int = 0, times: int = 1) -> None:
    """The command; in optimizer step ``step`` of all stages, from 1, the signal comes so many times."""
    from trainer.cli import main
    from trainer.run.passes import PassTrainer

    # Processes of their own inherit no file that a test captures.
    os.dup2(os.open(said_by(args), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    # Whoever starts the tests in the background may have turned the signal off.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    original, steps = PassTrainer.training_step, 0

    def training_step(*args: Any, **kwargs: Any) -> Any:
        nonlocal steps
        steps += 1
        for one in range(times if steps == step else 0):
            if one:
                time.sleep(1.1)
            os.kill(os.getpid(), number)
        return original(*args, **kwargs)

    PassTrainer.training_step = training_step
    main(args)


def said_by(args: list[str]) -> Path:
    """The words of a process that ran into ``--out``, its last argument."""
    return Path(f"{args[-1]}-said-{os.environ.get('RANK', '0')}")


def outcome(out: Path) -> dict[str, Any]:
    """Everything a run leaves that does not depend on the clock."""
    result = read_json(out / "metrics.json")
    for stage in result.get("stages", ()):
        del stage["seconds_per_step"]
    folders = [path for path in (out / "logs").iterdir() if path.is_dir()] or [out / "logs"]
    return {"result": result, "logs": {folder.name: scalars(folder) for folder in sorted(folders)}}


def assert_same(out: Path, expected: Path) -> None:
    assert outcome(out) == outcome(expected)
    ours, theirs = weights_of(out), weights_of(expected)
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


CASES: dict[str, tuple[str, int, signal.Signals, str]] = {
    "fit in its first stage": ("fit", 8, signal.SIGINT, "step 8 of 12 of stage hidden"),
    "fit at the end of an epoch": ("fit", 6, signal.SIGTERM, "step 6 of 12 of stage hidden"),
    "fit at the end of a stage": ("fit", 12, signal.SIGINT, "step 12 of 12 of stage hidden"),
    "fit in its second stage": ("fit", 22, signal.SIGTERM, "step 10 of 18 of stage prediction"),
    "finetune": ("finetune", 19, signal.SIGINT, "step 19 of 36"),
    "finetune in its first epoch": ("finetune", 1, signal.SIGTERM, "step 1 of 36"),
    "finetune at its end": ("finetune", 36, signal.SIGTERM, "step 36 of 36"),
}


@pytest.mark.parametrize("name", CASES)
def test_an_interrupted_run_goes_on_to_the_same_losses_and_weights(
    name: str,
    fit_args: list[str],
    finetune_args: list[str],
    whole: dict[str, Path],
    tmp_path: Path,
) -> None:
    command, step, number, where = CASES[name]
    args = [*(fit_args if command == "fit" else finetune_args), "--out", str(tmp_path / "out")]
    assert children.run(hsktrain, args, step, number) == STOPPED[number]
    said = said_by(args).read_text(encoding="utf-8").splitlines()
    assert said[-1] == f"error: interrupted at {where}; the same command goes on from there"
    assert "interrupted: the step at hand is finished and saved; once more stops at once" in said
    wait_for_the_next_second(tmp_path / "out")
    assert children.run(hsktrain, args) == 0
    if "end" not in name:
        assert f"going on from step {where.split()[1]}" in said_by(args).read_text(encoding="utf-8")
    assert_same(tmp_path / "out", whole[command])


def test_a_run_may_be_interrupted_twice(finetune_args: list[str], whole: dict[str, Path], tmp_path: Path) -> None:
    args = [*finetune_args, "--out", str(tmp_path / "out")]
    for step in (15, 3):
        assert children.run(hsktrain, args, step, signal.SIGINT) == 130
        wait_for_the_next_second(tmp_path / "out")
    assert children.run(hsktrain, args) == 0
    assert_same(tmp_path / "out", whole["finetune"])


def test_checkpoints_within_an_epoch_survive_a_kill_and_change_nothing(
    finetune_args: list[str], whole: dict[str, Path], tmp_path: Path
) -> None:
    """``--save-steps`` may change between one start and the next: it belongs to no run."""
    args = [*finetune_args, "--out", str(tmp_path / "out")]
    assert children.run(hsktrain, ["finetune", "--save-steps=5", *args[1:]], 19, signal.SIGKILL) == -signal.SIGKILL
    wait_for_the_next_second(tmp_path / "out")
    assert children.run(hsktrain, args) == 0
    assert "going on from step 15" in said_by(args).read_text(encoding="utf-8")
    assert_same(tmp_path / "out", whole["finetune"])


def test_a_second_ctrl_c_stops_at_once_and_says_what_is_kept(finetune_args: list[str], tmp_path: Path) -> None:
    for step, place in ((8, "the start"), (17, "its last checkpoint, step 12")):
        args = [*finetune_args, "--out", str(tmp_path / str(step))]
        assert children.run(hsktrain, args, step, signal.SIGINT, 2) == 130
        said = said_by(args).read_text(encoding="utf-8").splitlines()
        assert said[-1] == f"error: interrupted; the same command goes on from {place}"


@pytest.mark.parametrize("command", ["fit", "finetune"])
def test_two_processes_stop_after_the_same_step(
    command: str, fit_args: list[str], finetune_args: list[str], tmp_path: Path
) -> None:
    """Though they hear of it in different ones; what they save together they go on from together."""
    base = fit_args if command == "fit" else finetune_args
    stopped, undisturbed = ([*base, "--out", str(tmp_path / name)] for name in ("stopped", "undisturbed"))
    assert children.together(told_apart, stopped) == [143, 143]
    first, second = ((tmp_path / f"stopped-said-{rank}").read_text(encoding="utf-8") for rank in range(2))
    assert "error: rank 0: interrupted at step " in first
    assert "error" not in second
    wait_for_the_next_second(tmp_path / "stopped")
    assert children.together(hsktrain, stopped) == [0, 0]
    assert children.together(hsktrain, undisturbed) == [0, 0]
    assert_same(tmp_path / "stopped", tmp_path / "undisturbed")


def told_apart(args: list[str]) -> None:
    hsktrain(args, 2 + int(os.environ["RANK"]), signal.SIGTERM)


def test_processes_share_the_order_that_the_first_draws(tmp_path: Path) -> None:
    assert children.together(draw_order, tmp_path) == [0, 0]
    first, second = ((tmp_path / str(rank)).read_text(encoding="utf-8") for rank in range(2))
    assert first == second


def draw_order(folder: Path) -> None:
    from torch.utils.data import RandomSampler

    from trainer.run import processes
    from trainer.run.midway import Order

    processes.connect("cpu")
    torch.manual_seed(processes.rank())
    order = Order(RandomSampler(range(99)))
    (folder / str(processes.rank())).write_text(str(list(order)), encoding="utf-8")


def test_signals_are_left_alone_where_they_are_not_ours() -> None:
    """In a thread Python allows no handler; what is ignored, as under nohup, stays so."""
    from trainer.run.interrupts import Interrupts

    seen: list[Any] = []

    def enter() -> None:
        with Interrupts():
            seen.append(signal.getsignal(signal.SIGTERM))

    before: Callable[..., Any] | int | None = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        enter()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        with Interrupts():
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [signal.SIG_IGN, signal.SIG_DFL]
