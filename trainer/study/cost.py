"""Cost of a study before it begins: minutes by a few timed steps, and bytes on disk."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil
from pathlib import Path
from time import perf_counter
from typing import Any

from transformers import PreTrainedModel

from hskcache.cache import Cache
from hskcache.counted import counted
from hskcache.disk import spool_folder
from hskcache.units import human_bytes, human_time
from trainer.recipe import Recipe, Stage
from trainer.run import processes
from trainer.run.fit import Fit, fit
from trainer.run.prepare import prepare_fit
from trainer.run.request import Machine
from trainer.study.cells import StudyCell

STEPS = 5
"""Optimizer steps of each stage that are timed; the first, which warms up, is not."""

# Weights of the student that a run holds beside the finished one: three checkpoints with the two moments of AdamW, as
# the oldest goes after the newest is whole, and two best students.
_WEIGHTS_OF_A_RUN = 3 * 3 + 2


@dataclass(frozen=True)
class PaceOfCells:
    """Pace of the runs of one student and recipe.

    Attributes:
        step_s: seconds of a step, by stage.
        evaluation_s: seconds of scoring the student once.
        student_bytes: of its weights.
    """

    step_s: dict[str, float]
    evaluation_s: float
    student_bytes: int

    def cell_s(self, recipe: Recipe, num_rows: int) -> float:
        """Seconds of a run over so many rows, one evaluation an epoch where the best is kept, and one at the end."""
        total = self.evaluation_s
        for stage in recipe.stages:
            total += _steps(stage, num_rows) * self.step_s[stage.name]
            total += ceil(stage.epochs) * self.evaluation_s if stage.select == "best" else 0.0
        return total


@dataclass(frozen=True)
class Cost:
    """Cost of the cells that are left.

    Attributes:
        num_cells: that are left, of ``num_all``.
        seconds: of all of them, one after the other.
        kept_bytes: of their students.
        most_bytes: of these and of the run in progress.
    """

    num_cells: int
    num_all: int
    seconds: float
    kept_bytes: int
    most_bytes: int

    def told(self) -> str:
        """The same in words."""
        if not self.num_cells:
            return f"all {counted(self.num_all, 'run')} are done"
        return (
            f"{self.num_cells:,} of {counted(self.num_all, 'run')} to do: about {human_time(self.seconds)} in one "
            f"process, {human_bytes(self.most_bytes)} of disk"
        )

    def to_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        return asdict(self)


def cost_of(cells: Sequence[StudyCell], cache: Cache, machine: Machine, keeps_students: bool = True) -> Cost:
    """The cost of the cells that are not done, by a few steps of each recipe and student, in a folder that goes again.

    Raises:
        CacheError: a student cannot be trained so.
    """
    left = [cell for cell in cells if not cell.is_done]
    paces: dict[tuple[str, str], PaceOfCells] = {}
    seconds, kept_bytes, most = 0.0, 0, 0
    for cell in left:
        point = cell.point
        # What differs in how much is kept, or in a learning rate, takes as long.
        key = (point.student, repr([(stage.losses, stage.batch_size) for stage in point.recipe.stages]))
        if key not in paces:
            paces[key] = _pace(cell, machine)
        pace = paces[key]
        seconds += pace.cell_s(point.recipe, point.num_rows or cache.view(point.view).num_rows)
        kept_bytes += pace.student_bytes if keeps_students else 0
        most = max(most, pace.student_bytes)
    return Cost(len(left), len(cells), seconds, kept_bytes, kept_bytes + _WEIGHTS_OF_A_RUN * most)


def _pace(cell: StudyCell, machine: Machine) -> PaceOfCells:
    job = prepare_fit(cell.request, machine, tells=False)
    num_rows = cell.point.num_rows or job.source.knowledge.request.num_rows
    stages = tuple(_few_steps(stage, num_rows) for stage in job.recipe.stages)
    evaluated_s: list[float] = []

    def score(student: PreTrainedModel) -> dict[str, float]:
        start = perf_counter()
        scores = job.score(student)
        evaluated_s.append(perf_counter() - start)
        return scores

    parent = spool_folder(cell.folder)
    with tempfile.TemporaryDirectory(dir=parent, prefix="timed-") as folder:
        timed: Fit = replace(
            job,
            recipe=job.recipe.model_copy(update={"stages": stages}),
            score=score,
            tells=False,
            origin=None,
            account=None,
        )
        result = fit(timed, Path(folder) / "run", machine)
        processes.disconnect()
    step_s = {stage["name"]: stage["seconds_per_step"] or 0.0 for stage in result["stages"]}
    num_bytes = sum(weight.numel() * weight.element_size() for weight in job.student.parameters())
    return PaceOfCells(step_s, sum(evaluated_s) / max(1, len(evaluated_s)), num_bytes)


def _few_steps(stage: Stage, num_rows: int) -> Stage:
    epochs = min(stage.epochs, STEPS * stage.batch_size / num_rows)
    return stage.model_copy(
        update={"epochs": epochs, "select": "last", "patience": None, "eval_steps": None, "epochs_by_task": {}}
    )


def _steps(stage: Stage, num_rows: int) -> int:
    return ceil(ceil(num_rows / stage.batch_size) * stage.epochs)
