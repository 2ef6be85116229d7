"""Training as a stage of a recipe and fine-tuning share it: the Trainer's arguments, its bar and its logs."""

import importlib
import json
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainingArguments

from hskcache import console, runtime
from hskcache.errors import SpecError
from hskcache.metrics import is_better
from trainer.run import processes
from trainer.run.checkpoints import ARGUMENTS, HISTORY, LOGS, step_of, write_json
from trainer.run.history import History
from trainer.run.interrupts import Interrupts
from trainer.run.midway import Midway, MidwayTrainer
from trainer.run.progress import StepBar
from trainer.run.selecting import EvaluateOften, Patience


@dataclass(frozen=True)
class Course:
    """Place of one training in the folder of its run.

    Attributes:
        out: the folder.
        stage: of the recipe; None of fine-tuning, which has none.
        later_steps: as many steps of this stage as all later ones take.
    """

    out: Path
    stage: str | None = None
    later_steps: float = 0.0

    @property
    def logs(self) -> Path:
        """Folder for TensorBoard."""
        return self.out / LOGS / (self.stage or "")


def check_report(report_to: str) -> None:
    """Raise SpecError unless the package that training is reported by is installed."""
    if report_to != "none" and find_spec(report_to) is None:
        raise SpecError(
            f"--report-to {report_to}: {report_to} is not installed; pip install {report_to}, or leave it out: "
            "TensorBoard's logs are written anyway"
        )


def arguments_on(device: str, folder: Path, **settings: Any) -> TrainingArguments:
    """The Trainer's arguments with checkpoints in a folder, on a device as :func:`trainer.run.processes.pin` has it."""
    arguments = TrainingArguments(
        output_dir=str(folder),
        greater_is_better=is_better(settings.get("metric_for_best_model") or "", 1.0, 0.0),
        # Two: the older one is deleted before the newer one is whole.
        save_total_limit=2,
        restore_callback_states_from_checkpoint=True,
        log_level="error",
        use_cpu=runtime.resolve_device(device) == "cpu",
        disable_tqdm=True,
        **settings,
    )
    processes.pin(arguments, device)
    return arguments


def write_arguments(out: Path, stages: Mapping[str, TrainingArguments]) -> None:
    """Write the Trainer's arguments by stage as JSON; without paths of this machine, and no token is in it."""
    plain = {name: arguments.to_dict() for name, arguments in stages.items()}
    for one in plain.values():
        one.pop("output_dir", None)
        one.pop("logging_dir", None)
    write_json(out / ARGUMENTS, json.loads(json.dumps(plain, default=str)))


def selection(eval_steps: int | None, patience: int | None, metric: str) -> list[TrainerCallback]:
    """Callbacks that evaluate within epochs and end for want of patience, where that is asked for."""
    often = [] if eval_steps is None else [EvaluateOften(eval_steps)]
    return often if patience is None else [*often, Patience(patience, metric)]


def train(trainer: MidwayTrainer, checkpoint: Path | None, course: Course, save_steps: int | None = None) -> None:
    """Train from a checkpoint on, or from the start, until the end or a signal.

    ``save_steps``: as of :class:`Midway`.
    """
    logs, name = course.logs, course.stage or "fine-tune"
    what = "" if course.stage is None else f"stage {course.stage}"
    with ExitStack() as stack:
        trainer.add_callback(Midway(trainer, stack.enter_context(Interrupts()), what, save_steps))
        if processes.is_first():
            from torch.utils.tensorboard import SummaryWriter
            from transformers.integrations import TensorBoardCallback

            if checkpoint is None:
                shutil.rmtree(logs, ignore_errors=True)
            # Steps that were logged after the checkpoint will be logged again.
            purge_step = step_of(checkpoint) + 1 if checkpoint else None
            writer = stack.enter_context(SummaryWriter(str(logs), purge_step=purge_step))
            trainer.add_callback(TensorBoardCallback(writer))
            trainer.add_callback(History(course.out / HISTORY, name))
            bar = stack.enter_context(console.progress("steps", tells_left=True))
            trainer.add_callback(StepBar(bar, name, course.later_steps))
            if "wandb" in trainer.args.report_to:
                wandb = importlib.import_module("wandb")
                # Else the next stage would go on in the run of this one, from step 0.
                stack.callback(wandb.finish)
        stack.enter_context(_told_by(trainer.args.report_to))
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


@contextmanager
def _told_by(packages: Collection[str]) -> Iterator[None]:
    """Raise errors of packages that training is reported by as SpecError: no key, no server, no such store."""
    try:
        yield
    except Exception as error:
        package = type(error).__module__.partition(".")[0]
        if package not in packages:
            raise
        reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
        raise SpecError(
            f"--report-to {package}: {reason}; mend that, or leave it out: the same command goes on where it stopped"
        ) from error
