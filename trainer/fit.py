"""Train a student through the stages of a recipe, from a cache or from a teacher in the loop."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from hskcache import console, runtime
from hskcache.errors import SpecError
from trainer.checkpoints import claim, finish, last_checkpoint, step_of, write_json
from trainer.distill import DistillTrainer, Machine, Score, early_stopping, training_arguments
from trainer.gate import Knowledge
from trainer.loading.ordered import Ordered
from trainer.objective import Objective
from trainer.progress import StepBar
from trainer.recipe import Recipe, Stage

MakeLoader = Callable[[Stage, "Slice"], Ordered[Any]]


@dataclass(frozen=True)
class Slice:
    """The part of a global batch that one forward pass of one process sees."""

    batch_size: int
    rank: int
    world_size: int
    accumulation: int
    device: str


@dataclass(frozen=True)
class Fit:
    """Everything that decides a run.

    Attributes:
        knowledge: what there is to learn from.
        loader: makes the loader of a stage.
        recipe: the stages.
        student: at its start.
        tokenizer: saved with the student.
        score: the task's metrics of a student on the evaluation data.
        metric: the one that picks the best epoch.
        seed: of the order, the projections and dropout.
        run: what else identifies the run, as plain values, such as the cache id and the student's origin.
    """

    knowledge: Knowledge
    loader: MakeLoader
    recipe: Recipe
    student: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    score: Score
    metric: str
    seed: int = 0
    run: dict[str, Any] = field(default_factory=dict)


def fit(job: Fit, out: Path, machine: Machine) -> dict[str, Any]:
    """Run every stage that is not done yet and save the student in ``out`` as an ordinary checkpoint.

    A run that was cut off goes on from its last checkpoint with the same losses; a finished one is not run again.

    Returns:
        What metrics.json holds: the scores of the student, and of every stage its steps and seconds.

    Raises:
        MismatchError: ``out`` holds another run.
        SpecError: the batch size cannot be divided as asked.
    """
    out = out.resolve()
    run = job.run | {"seed": job.seed, "recipe": job.recipe.model_dump(mode="json")}
    with runtime.quiet():
        finished = claim(out, run)
        if finished is not None:
            console.say(f"{out} is finished already")
            return finished
        student, stages = job.student, []
        for number, stage in enumerate(job.recipe.stages):
            folder = out / "stages" / f"{number}-{stage.name}"
            record = folder / "done.json"
            if record.is_file():
                student = type(student).from_pretrained(folder / "student")
            else:
                _run_stage(job, stage, student, folder, machine)
            stages.append(json.loads(record.read_text(encoding="utf-8")))
        student.save_pretrained(out)
        job.tokenizer.save_pretrained(out)
        result = {"metric": job.metric, "scores": job.score(student), "stages": stages}
        shutil.rmtree(out / "stages")
        finish(out, result)
    return result


def _run_stage(job: Fit, stage: Stage, student: PreTrainedModel, folder: Path, machine: Machine) -> None:
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback

    trainer = _trainer(job, stage, student, folder, machine)
    checkpoint = last_checkpoint(folder)
    if checkpoint is not None:
        console.say(f"{stage.name}: going on from step {step_of(checkpoint)}")
    purge_step = 1 + (step_of(checkpoint) if checkpoint else 0)
    logs = folder.parent.parent / "logs" / stage.name
    with SummaryWriter(str(logs), purge_step=purge_step) as writer, console.progress("steps") as bar:
        pace = Pace()
        for callback in (TensorBoardCallback(writer), StepBar(bar, stage.name), Where(trainer.loader), pace):
            trainer.add_callback(callback)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if trainer.is_world_process_zero():
        shutil.rmtree(folder / "student", ignore_errors=True)
        student.save_pretrained(folder / "student")
        scores = [entry for entry in trainer.state.log_history if f"eval_{job.metric}" in entry]
        write_json(
            folder / "done.json",
            {
                "name": stage.name,
                "steps": trainer.state.global_step,
                "seconds_per_step": pace.median_s,
                "evaluations": [_evaluation(entry) for entry in scores],
            },
        )
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    trainer.accelerator.wait_for_everyone()


def _trainer(job: Fit, stage: Stage, student: PreTrainedModel, folder: Path, machine: Machine) -> DistillTrainer:
    import os

    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    slices = world_size * machine.accumulation
    if stage.batch_size % slices:
        raise SpecError(
            f"stage {stage.name!r} has batches of {stage.batch_size} rows, which {world_size} processes x "
            f"{machine.accumulation} passes do not divide; use --set {stage.name}.batch_size=N with N a multiple of "
            f"{slices}"
        )
    arguments = training_arguments(stage, machine, folder / "checkpoints", job.metric, job.seed, world_size)
    loader = job.loader(
        stage,
        Slice(
            stage.batch_size // slices,
            arguments.process_index,
            world_size,
            machine.accumulation,
            str(arguments.device),
        ),
    )
    hidden = job.knowledge.hidden
    width = hidden.width if hidden is not None and stage.losses.hidden is not None else None
    matches = job.knowledge.matches if stage.losses.hidden is not None else ()
    objective = Objective(student, stage.losses, matches, width, job.seed)
    trainer = DistillTrainer(objective, loader, job.score, args=arguments, callbacks=early_stopping(stage))
    trainer.remove_callback(PrinterCallback)  # it prints to stdout
    return trainer


def _evaluation(entry: dict[str, Any]) -> dict[str, Any]:
    return {key.removeprefix("eval_"): value for key, value in entry.items()}


class Where(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """Put the loader's place and identity into every checkpoint."""

    def __init__(self, loader: Ordered[Any]) -> None:
        self.loader = loader

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Written beside the checkpoint's other files."""
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            write_json(folder / "loader.json", self.loader.state_dict())


class Pace(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """Seconds of an optimiser step, waiting for data included, evaluation and saving left out."""

    def __init__(self) -> None:
        self.durations_s: list[float] = []
        self.last: float | None = None

    @property
    def median_s(self) -> float | None:
        """The median step; None when no step ran."""
        ordered = sorted(self.durations_s)
        return ordered[len(ordered) // 2] if ordered else None

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """One step is over."""
        now = perf_counter()
        if self.last is not None:
            self.durations_s.append(now - self.last)
        self.last = now

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """What comes next includes the evaluation; do not count it."""
        self.last = None

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Likewise for saving."""
        self.last = None
