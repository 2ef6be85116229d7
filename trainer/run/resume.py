"""State by which a stage goes on, after a kill at any moment, as if it had never stopped."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import transformers
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hskcache.model.save import make_readable
from trainer.batch import Batch
from trainer.loading.ordered import Ordered
from trainer.run import processes
from trainer.run.checkpoints import LOADER, checkpoint_of, last_checkpoint, write_json


def newest(folder: Path) -> Path | None:
    """The newest checkpoint of a stage that is whole, the order of its batches included."""
    return last_checkpoint(folder, also=(LOADER,))


def stopped(checkpoint: Path) -> TrainerState | None:
    """The state of a checkpoint with which its stage was over, by its last step or for want of patience; else None.

    The Trainer does not see this: it would take another step.
    """
    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    return state if state.stateful_callbacks["TrainerControl"]["args"]["should_training_stop"] else None


@contextmanager
def seeking(epoch: int) -> Iterator[None]:
    """Let a resumed epoch begin in the middle without reading what lies before.

    The Trainer skips batches with accelerate's ``skip_first_batches``, which takes a DataLoader apart; our loader can
    seek. It is the one place where the Trainer offers no method to override.
    """
    module = transformers.trainer
    original = module.skip_first_batches

    def seek(loader: Ordered[Any, Batch], num_batches: int) -> Ordered[Any, Batch]:
        loader.seek(epoch, num_batches)
        return loader

    module.skip_first_batches = seek
    try:
        yield
    finally:
        module.skip_first_batches = original


class LogFirst(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """Log whatever is saved, so that no loss waits for a log that a kill would take away.

    It comes after the Trainer's own callbacks, which decide when to save.
    """

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Log before saving."""
        control.should_log = control.should_log or control.should_save

    on_epoch_end = on_step_end

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Let others who may read the folder read the weights that the Trainer wrote."""
        if state.is_world_process_zero:
            make_readable(Path(args.output_dir) / f"checkpoint-{state.global_step}")


class PlaceCallback(LogFirst):
    """Put the order, and the place in it, into every checkpoint, whose last file this is; save every epoch."""

    def __init__(self, loader: Ordered[Any, Batch]) -> None:
        self.loader = loader

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Leave the last step of an epoch to the epoch, which evaluates before it saves."""
        if control.should_training_stop or float(state.epoch).is_integer():
            control.should_save = False
        super().on_step_end(args, state, control)

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Save, whatever else is saved."""
        control.should_save = True
        super().on_epoch_end(args, state, control)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Called once the Trainer has written its files."""
        super().on_save(args, state, control)
        # Each process writes the state of its own random generators.
        processes.wait()
        if state.is_world_process_zero:
            folder = checkpoint_of(args.output_dir, state.global_step)
            write_json(folder / LOADER, self.loader.state_dict())
