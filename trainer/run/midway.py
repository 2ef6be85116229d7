"""Checkpoints within an epoch that leave no trace: with one the same command goes on to the same losses and logs."""

from collections.abc import Iterator, Mapping, Sequence, Sized
from typing import Any, cast

import torch
from torch.utils.data import Sampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hskcache.errors import Interrupted
from trainer.run import processes
from trainer.run.checkpoints import MIDWAY, checkpoint_of, read_object, write_json
from trainer.run.interrupts import Interrupts
from trainer.run.passes import PassTrainer


class Order(Sampler[int]):
    """The order of another sampler, which draws it from torch's generator when an epoch begins.

    A checkpoint within the epoch keeps what it was drawn from, in hexadecimal digits. Several processes draw the first
    one's: they share out the batches of one order.
    """

    def __init__(self, sampler: Sampler[int]) -> None:
        self.sampler = sampler
        self.drawn_from: str | None = None
        self._again: str | None = None

    def __len__(self) -> int:
        return len(cast(Sized, self.sampler))

    def __iter__(self) -> Iterator[int]:
        self.drawn_from = self._again or processes.on_first(lambda: torch.get_rng_state().numpy().tobytes().hex())
        torch.set_rng_state(torch.frombuffer(bytearray.fromhex(self.drawn_from), dtype=torch.uint8))
        self._again = None
        return iter(self.sampler)

    def draw_again(self, drawn_from: str | None) -> None:
        """Draw the next order from what another was drawn from; None: from what there is."""
        self._again = drawn_from


class MidwayTrainer(PassTrainer):
    """A Trainer that can tell what it has summed up since its last log, and take it up again.

    ``order``: of the rows, where it is drawn at the start of every epoch.
    """

    order: Order | None = None

    def sums(self) -> dict[str, Any]:
        """Sums since the last log: of the loss, over the forward passes of this process."""
        return {"loss": float(self._tr_loss), "since": self._globalstep_last_logged}

    def take_up(self, sums: Sequence[Mapping[str, Any]]) -> None:
        """Go on from the sums of the processes of a run that was stopped."""
        same = len(sums) == processes.count()
        # The mean of all is logged.
        self._tr_loss += sums[processes.rank()]["loss"] if same else sum(one["loss"] for one in sums) / len(sums)
        self._globalstep_last_logged = sums[0]["since"]


class Midway(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """Save within an epoch: when a signal asks to stop, which ends the training, and every so many steps.

    To be added after all callbacks that decide when to save or to log, or that act on it. What the Trainer does not
    save is written before its own files, the last of which makes a checkpoint whole. ``interrupts``: end it. ``what``:
    it is in words, such as "stage hidden"; may be empty. ``save_steps``: steps between checkpoints; None: none but the
    last.
    """

    def __init__(self, trainer: MidwayTrainer, interrupts: Interrupts, what: str, save_steps: int | None) -> None:
        self.trainer = trainer
        self.interrupts = interrupts
        self.what = what
        self.save_steps = save_steps
        self.is_due = False

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Take up what the checkpoint holds that the run goes on from."""
        path = checkpoint_of(args.output_dir, state.global_step) / MIDWAY
        if path.is_file():
            saved = read_object(path)
            if saved["sums"] is not None:
                self.trainer.take_up(saved["sums"])
            if self.trainer.order is not None:
                self.trainer.order.draw_again(saved["order"])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Save where it is time to, but leave the last step of an epoch to its end, which evaluates before."""
        self.is_due = self.interrupts.due()
        is_regular = self.save_steps is not None and state.global_step % self.save_steps == 0
        is_last = control.should_training_stop or float(state.epoch).is_integer()
        if is_last or not (self.is_due or is_regular or control.should_save):
            return
        control.should_save = True
        # What is logged now need not be summed up later.
        sums = None if control.should_log else processes.gathered(self.trainer.sums())
        order = None if self.trainer.order is None else self.trainer.order.drawn_from
        if processes.is_first() and (sums is not None or order is not None):
            folder = checkpoint_of(args.output_dir, state.global_step)
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / MIDWAY, {"sums": sums, "order": order})

    def on_save(self, _args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """End the training with a whole checkpoint. Raises Interrupted saying at which step."""
        number = self.interrupts.number
        if number is not None and (self.is_due or self.interrupts.is_noted_alone):
            where = f"step {state.global_step} of {state.max_steps}{f' of {self.what}' if self.what else ''}"
            raise Interrupted(f"interrupted at {where}; the same command goes on from there", number)
