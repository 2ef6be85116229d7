"""A run from what it is asked for with to its end: the doors of the command line and of Python."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from hskcache import console, runtime
from hskcache.disk import writing_to
from trainer.run.checkpoints import reached, require_room
from trainer.run.fit import fit as run_fit
from trainer.run.prepare import prepare_fit
from trainer.run.request import FitRequest, Machine


def fit(request: FitRequest, out: Path | str, machine: Machine | None = None) -> dict[str, Any]:
    """Train a student and save it in ``out``; the same request goes on where a cut-off run stopped.

    Args:
        request: the run.
        out: folder of the student.
        machine: how to compute; None: as :class:`Machine` has it by default.

    Returns:
        What metrics.json holds, see :func:`trainer.run.fit.fit`.

    Raises:
        CacheError: something is missing, damaged or does not fit, which is told before anything is written.
        Interrupted: by SIGINT or SIGTERM, after which the same request goes on.
    """
    out, machine = Path(out), machine or Machine()
    machine = replace(machine, device=runtime.resolve_device(machine.device))
    require_room(out)
    with console.going_on_from(lambda: reached(out)):
        job = prepare_fit(request, machine)
        with writing_to(out, "here"):
            return run_fit(job, out, machine)
