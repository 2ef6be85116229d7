"""The history of a run goes on from where the run does, whatever a kill has left of it."""

import json
from pathlib import Path

from tiny import CPU, HIDDEN, PREDICTION, fit_of, recipe_of
from transformers import TrainerControl, TrainerState, TrainingArguments

from trainer.run.checkpoints import HISTORY
from trainer.run.fit import fit
from trainer.run.history import History, read_history


def test_a_line_tells_of_every_log_and_evaluation_of_every_stage(
    cache_dir: Path, tsv_file: Path, narrow: Path, tmp_path: Path
) -> None:
    recipe = recipe_of(hidden=HIDDEN, prediction=PREDICTION | {"eval_steps": 4})
    result = fit(fit_of(cache_dir, tsv_file, narrow, recipe), tmp_path, CPU)
    lines = [json.loads(line) for line in (tmp_path / HISTORY).read_text().splitlines()]
    assert [line["stage"] for line in lines] == sorted(line["stage"] for line in lines)
    evaluated = [(line["step"], line["eval_accuracy"]) for line in lines if "eval_accuracy" in line]
    told = result["stages"][1]["evaluations"]
    assert evaluated == [(entry["step"], entry["accuracy"]) for entry in told]
    assert [step for step, _ in evaluated] == [4, 6, 8, 12]
    losses = [line for line in lines if "loss" in line]
    assert {line["step"] for line in losses if line["stage"] == "hidden"} == {6, 12}
    assert all(line["learning_rate"] >= 0 and "loss_hidden" in line for line in losses if line["stage"] == "hidden")
    for stage in ("hidden", "prediction"):
        seconds = [line["seconds"] for line in lines if line["stage"] == stage]
        assert seconds == sorted(seconds)


def test_lines_after_the_step_that_a_stage_goes_on_from_are_dropped(tmp_path: Path) -> None:
    """So is a last line that is torn, and no line of another stage; seconds go on."""
    path, arguments = tmp_path / HISTORY, TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    kept = [
        {"stage": "first", "step": 9, "epoch": 1.0, "seconds": 8.0, "loss": 2.0},
        {"stage": "second", "step": 4, "epoch": 0.4, "seconds": 5.0, "loss": 1.0},
    ]
    later = {"stage": "second", "step": 6, "epoch": 0.6, "seconds": 7.0, "loss": 0.5}
    path.write_text("".join(f"{json.dumps(line)}\n" for line in [*kept, later]) + '{"stage": "sec')
    history, state = History(path, "second"), TrainerState(global_step=4, epoch=0.4)
    history.on_train_begin(arguments, state, TrainerControl())
    assert read_history(path) == kept
    state.global_step, state.epoch = 5, 0.5
    history.on_log(arguments, state, TrainerControl(), logs={"loss": float("nan"), "epoch": 0.5})
    history.on_log(arguments, state, TrainerControl(), logs={"train_runtime": 1.0})
    *others, last = read_history(path)
    assert others == kept
    assert last["seconds"] >= 5
    assert {name: value for name, value in last.items() if name != "seconds"} == {
        "stage": "second", "step": 5, "epoch": 0.5, "loss": None,
    }  # fmt: skip
    history.on_train_begin(arguments, TrainerState(global_step=0), TrainerControl())
    assert read_history(path) == kept[:1], "a stage that begins anew has no lines yet"
