"""Ctrl-C and SIGTERM while a student trains: the step at hand is finished and saved, and then the run ends.

Of several processes, which torchrun or a scheduler tells all, none may leave the others in a step: they agree on the
step after which all of them save. Until a signal comes they ask each other nothing.
"""

import os
import signal
import threading
import time
from types import FrameType
from typing import Any
from uuid import uuid4

import torch
from torch import distributed

from trainer.run import processes

# What a scheduler tells all processes of a job, torchrun tells its own once more.
_SAME_SIGNAL_S = 1.0
# By then whoever has not answered was not told.
_AGREEMENT_S = 20.0
_TOLD = b"\ninterrupted: the step at hand is finished and saved; once more stops at once\n"


class Interrupts:
    """Notes SIGINT and SIGTERM while it is entered, and tells after which step all processes are to stop.

    A second signal does what it always did. Where signals are not ours to handle, in a thread or where somebody has
    turned them off, nothing changes. ``number``: of the signal that came; None: none.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._told_s = 0.0
        self._previous: dict[int, Any] = {}
        self._agreement: Agreement | None = None

    def __enter__(self) -> "Interrupts":
        if processes.count() > 1:
            self._agreement = Agreement()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) not in {signal.SIG_IGN, None}:
                    self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        self._give_back()
        if kind is None and self.number is not None:
            # It came after the last step, and nobody has heard of it yet.
            os.kill(os.getpid(), self.number)

    @property
    def is_noted_alone(self) -> bool:
        """True if a signal came, and there is nobody to agree with."""
        return self._agreement is None and self.number is not None

    def due(self) -> bool:
        """True if all stop after the step that has just ended; to be called once after every step."""
        if self._agreement is None:
            return self.number is not None
        is_due = self._agreement.due(self.number is not None)
        if not is_due and self.number is not None and time.monotonic() - self._told_s > _AGREEMENT_S:
            self._as_ever(self.number)
        return is_due

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.number is None:
            self.number, self._told_s = number, time.monotonic()
            if processes.is_first():
                # Not by way of a file object, which may be in the midst of a line.
                os.write(2, _TOLD)
        elif time.monotonic() - self._told_s > _SAME_SIGNAL_S:
            self._as_ever(number)

    def _as_ever(self, number: int) -> None:
        self._give_back()
        os.kill(os.getpid(), number)

    def _give_back(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}


class Agreement:
    """The step after which all processes stop, found by way of the store through which they found each other.

    A process that was told writes down which step it has just ended. Nobody ends the step after the latest of these
    before all have written, as its gradients need everybody's: whoever ends that step knows all of them, and stops.
    """

    def __init__(self) -> None:
        # torchrun keeps its store over restarts: what was agreed before must not count.
        run = processes.on_first(lambda: uuid4().hex)
        store = distributed.TCPStore(  # type: ignore[attr-defined]  # torch does not list it
            os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False
        )
        self._store = distributed.PrefixStore(run, store)  # type: ignore[attr-defined]
        self._names = [str(rank) for rank in range(processes.count())]
        self._steps = 0
        self._has_written = False

    def due(self, was_told: bool) -> bool:
        """True if all stop after the step that has just ended."""
        self._steps += 1
        if not was_told:
            return False
        if torch.cuda.is_available():
            # The device may be behind; a step has ended when its gradients were exchanged.
            torch.cuda.synchronize()
        if not self._has_written:
            self._store.set(str(processes.rank()), str(self._steps))
            self._has_written = True
        if not self._store.check(self._names):
            return False
        return self._steps > max(int(self._store.get(name)) for name in self._names)
