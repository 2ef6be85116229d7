"""Cells of a study: the run of a point and a seed, in a folder that is named by the digest of all that decides it.

Every cell has a lock file while a process works on it, so that several processes, or machines with one folder, share a
study: who finds a cell taken goes on to the next one and comes back. Whatever study asks for a cell that is finished,
it is not run again.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hskcache.cache import Cache
from hskcache.errors import DamageError
from hskcache.locks import locked
from hskcache.store.files import canonical_json, file_sha256, sha256_hex
from hskcache.text.layout import Layout
from trainer.loading.choice import identity_of, parse_choice
from trainer.run.checkpoints import METRICS, read_object
from trainer.run.request import FitRequest, FromCache, Machine
from trainer.student.origin import STUDENTS, is_preset
from trainer.study.points import Point

CELLS = "cells"
_LOCK = ".lock"
_DIGITS = 24
# Files of a student's folder that decide what it begins as; the others tell where it comes from.
_DECIDING = ("*.json", "*.safetensors", "*.bin", "*.txt")
_TELLING = frozenset({"metrics.json", "run.json", "asked.json", "training_args.json", "results.json"})


@dataclass(frozen=True)
class StudyScoring:
    """Rows that score every cell, and by what.

    Attributes:
        data: file of the rows.
        layout: which columns of them are read.
        metric: that picks the best evaluation and is compared.
        fingerprint: of the rows as they are read.
    """

    data: str
    layout: Layout
    metric: str
    fingerprint: str


@dataclass(frozen=True)
class StudyCell:
    """A point and a seed.

    Attributes:
        request: of its run.
        folder: of its run, named by the digest.
    """

    point: Point
    seed: int
    request: FitRequest
    folder: Path

    @property
    def digest(self) -> str:
        """Digest of all that decides the run."""
        return self.folder.name

    @property
    def is_done(self) -> bool:
        """True once its student is scored."""
        return (self.folder / METRICS).is_file()

    def result(self) -> dict[str, Any] | None:
        """The content of its metrics.json; None until it is done. Raises DamageError if it cannot be read."""
        if not self.is_done:
            return None
        found = read_object(self.folder / METRICS)
        if not isinstance(found.get("scores"), dict):
            raise DamageError(f"{self.folder / METRICS} holds no scores; delete {self.folder} and run the study again")
        return found

    @contextmanager
    def taken(self, wait: bool = False) -> Iterator[bool]:
        """Hold the cell; False if another process does, unless it was waited for."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(self.folder.with_name(f"{self.digest}{_LOCK}"), wait=wait, remove=True) as held:
            yield held


@dataclass(frozen=True)
class Making:
    """Makes the cells of a study.

    Attributes:
        cache: that all learn from.
        scored: by what.
        machine: how to compute.
        folder: that holds the cells, of one study or of several.
    """

    cache: Cache
    scored: StudyScoring
    machine: Machine
    folder: Path

    def cells(self, point: Point, seeds: Sequence[int]) -> list[StudyCell]:
        """The cells of a point, one a seed. Raises CacheError if the cache cannot serve it."""
        decisive = self._decisive(point)
        source = FromCache(self.cache, point.fields, point.num_rows, view=point.view)
        request = FitRequest(
            source=source,
            student=point.student,
            recipe=point.recipe,
            eval_data=(self.scored.data,),
            layout=self.scored.layout,
            metric=self.scored.metric,
            layer_map=point.layer_map,
        )
        digests = {seed: sha256_hex(canonical_json({**decisive, "seed": seed}))[:_DIGITS] for seed in seeds}
        return [
            StudyCell(point, seed, replace(request, seed=seed), self.folder / digest)
            for seed, digest in digests.items()
        ]

    def _decisive(self, point: Point) -> dict[str, Any]:
        """Everything but the seed that decides a run of the point, as JSON values."""
        seen = self.cache.view(point.view)
        return {
            "knowledge": identity_of(seen, parse_choice(seen, point.fields), point.num_rows),
            "view": point.view,
            "student": student_identity(point.student),
            "recipe": point.recipe.model_dump(mode="json"),
            "layer_map": point.layer_map,
            "eval": self.scored.fingerprint,
            "metric": self.scored.metric,
            # Of the ways to compute the one that changes what comes out by more than last digits.
            "bf16": self.machine.bf16,
        }


def student_identity(source: str) -> Any:
    """Identity of where a student begins, without loading it: a shape, the content of its files, or a hub id."""
    path = Path(source)
    if is_preset(source):
        return STUDENTS[source]
    if path.is_file():
        return file_sha256(path)
    if not path.is_dir():
        return source
    files = sorted({file for pattern in _DECIDING for file in path.glob(pattern)} - {path / name for name in _TELLING})
    return {file.name: file_sha256(file) for file in files}


def run_all(cells: Sequence[StudyCell], run: Callable[[StudyCell], None], tell: Callable[[StudyCell], None]) -> None:
    """Run the cells that nobody has run, in order; those that another process works on are come back to.

    Args:
        cells: of the study, seeds outermost, so that what is cut off can be compared.
        run: carries out a cell that is not done.
        tell: called after every cell that was run here or found done by another.
    """
    left = [cell for cell in cells if not cell.is_done]
    while left:
        before = len(left)
        for cell in list(left):
            if _finished(cell, run, wait=False):
                left.remove(cell)
                tell(cell)
        if len(left) == before:
            # All that is left is taken: wait for the first, which is done then, or its process was ended.
            _finished(left[0], run, wait=True)


def _finished(cell: StudyCell, run: Callable[[StudyCell], None], wait: bool) -> bool:
    """Run a cell unless it is done or another process holds it; True if it is done now."""
    if cell.is_done:
        return True
    with cell.taken(wait) as held:
        if held and not cell.is_done:
            run(cell)
        return cell.is_done
