"""Training as a stage of a recipe and fine-tuning share it: the Trainer's arguments, its bar and its logs."""

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainingArguments

from hskcache import console, runtime
from trainer.run import processes
from trainer.run.checkpoints import step_of
from trainer.run.interrupts import Interrupts
from trainer.run.midway import Midway, MidwayTrainer
from trainer.run.progress import StepBar
from trainer.run.selecting import EvaluateOften, Patience


def arguments_on(device: str, folder: Path, **settings: Any) -> TrainingArguments:
    """The Trainer's arguments with checkpoints in a folder, on a device as :func:`trainer.run.processes.pin` has it."""
    arguments = TrainingArguments(
        output_dir=str(folder),
        greater_is_better=True,
        # Two: the older one is deleted before the newer one is whole.
        save_total_limit=2,
        restore_callback_states_from_checkpoint=True,
        report_to="none",
        log_level="error",
        use_cpu=runtime.resolve_device(device) == "cpu",
        disable_tqdm=True,
        **settings,
    )
    processes.pin(arguments, device)
    return arguments


def selection(eval_steps: int | None, patience: int | None, metric: str) -> list[TrainerCallback]:
    """Callbacks that evaluate within epochs and end for want of patience, where that is asked for."""
    often = [] if eval_steps is None else [EvaluateOften(eval_steps)]
    return often if patience is None else [*often, Patience(patience, metric)]


def train(
    trainer: MidwayTrainer,
    checkpoint: Path | None,
    logs: Path,
    name: str,
    what: str = "",
    save_steps: int | None = None,
) -> None:
    """Train from a checkpoint on, or from the start, until the end or a signal.

    ``logs``: folder for TensorBoard. ``name``: before the bar. ``what``, ``save_steps``: as of :class:`Midway`.
    """
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
            trainer.add_callback(StepBar(stack.enter_context(console.progress("steps")), name))
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
