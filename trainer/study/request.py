"""Request for a study: by a command line or in Python."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hskcache.text.layout import Layout
from trainer.study.plan import StudyPlan

if TYPE_CHECKING:
    # Commands build requests, and their help works without torch.
    from hskcache.cache import Cache


@dataclass(frozen=True)
class StudyRequest:
    """A study of one cache, apart from its folder and from how it is computed.

    Attributes:
        plan: points and seeds.
        cache: that everything is learned from: its path or URL, or the open cache.
        eval_data: labelled rows that score every student.
        student: where points begin that no axis says it of; None: the plan's.
        changes: of the recipes' stages, as ``--set`` takes them, beside those of the plan.
        layout: which columns of the rows are read.
        metric: that is compared; None: the task's first.
        num_rows: the first so many rows of the cache alone; None: all.
        eval_rows: the first so many rows of the evaluation data alone; None: all.
        skips_missing: whether points that the cache cannot serve are left out; else they are an error.
        drops_students: whether the weights of a student are deleted once it is scored.
        cells: folder of the runs, where other studies find them, too; None: ``cells`` in the folder of the study.
    """

    plan: StudyPlan
    cache: "str | Path | Cache"
    eval_data: str
    student: str | None = None
    changes: tuple[str, ...] = ()
    layout: Layout = field(default_factory=Layout)
    metric: str | None = None
    num_rows: int | None = None
    eval_rows: int | None = None
    skips_missing: bool = False
    drops_students: bool = False
    cells: Path | None = None
