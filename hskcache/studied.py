"""Results of a study, such as of how much knowledge is enough: the file that ``hsktrain study`` leaves in its folder.

A study trains one student for every point and seed and keeps each score with the run that it is of. Whoever shows,
reports or plans from results reads them here, without the trainer.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from hskcache.errors import DamageError, MismatchError
from hskcache.strict import Strict, first_problem

RESULTS = "results.json"
"""File of a study's folder that holds its results."""
VERSION = 1
"""Version of the form; a reader refuses what is newer."""


class SeedScore(Strict):
    """Score of one run.

    Attributes:
        seed: that the run was given.
        score: the study's metric of the finished student on the evaluation rows.
        cell: digest of all that decides the run, which its folder ``cells/CELL`` is named by.
        at_chance: whether the student knows no more than the most frequent class.
    """

    seed: int
    score: float
    cell: str
    at_chance: bool = False


class PairedDifference(Strict):
    """Difference to the baseline, taken seed by seed.

    Attributes:
        mean: over the seeds that both have.
        interval: half the width of the 95 % interval by Student's t; None of one seed.
        num_seeds: that both have.
    """

    mean: float
    interval: float | None
    num_seeds: Annotated[int, Field(ge=1)]


class StudyPoint(Strict):
    """One choice of everything that a study varies, over its seeds.

    Attributes:
        name: of the point; unique in its study.
        axes: value by axis, such as ``view``, ``recipe``, ``student``, ``field``, ``encoding`` or ``STAGE.KEY``.
        strategy: the line of a plot that the point stands on: points of one strategy differ by how much they keep.
        keep: the view of the cache in words, such as ``1l_5t_0.05h``; ``full`` is all of it.
        encoding: of the hidden states that are learned from; None without any.
        bytes_per_row: encoded bytes of the knowledge that is learned from, of a row on average, before compression; 0
            of labels alone.
        scores: of the seeds that are done, by seed; none yet where a study was cut off before.
        mean: of these scores; None without any.
        interval: half the width of the 95 % interval of the mean; None where it is not known.
        interval_by: what the interval is over: ``seeds`` by Student's t, or of one seed draws of the evaluation
            ``rows``; None without an interval.
        difference: to the baseline; None of the baseline itself, and where no seed is done of both.
    """

    name: str
    axes: dict[str, str]
    strategy: str
    keep: str = "full"
    encoding: str | None = None
    bytes_per_row: Annotated[float, Field(ge=0)]
    scores: list[SeedScore]
    mean: float | None
    interval: float | None
    interval_by: Literal["seeds", "rows"] | None
    difference: PairedDifference | None = None


class StudyResults(Strict):
    """Results of a study as far as it is done.

    Attributes:
        version: of this form.
        name: of the study.
        cache: id of the cache that everything was learned from.
        cache_keep: what it keeps of hidden states, which views see parts of: ``3l_8t_0.25h``, ``full`` or ``none``;
            None where it is not told.
        num_rows: that every student learned from.
        metric: that scores are of.
        num_eval_rows: that every student was scored on.
        teacher: score of the teacher on these rows; None where it is not known.
        majority: score of always giving the most frequent class, or the mean score; None where it is not known.
        labels: the point that learns from gold labels alone; None where the study has none. It is not among ``points``.
        baseline: name of the point, of ``points`` or ``labels``, that differences are taken to; None where none is.
        seeds: that every point is to be run with.
        points: in the order of the study.
    """

    version: int = Field(default=VERSION, ge=1)
    name: str
    cache: str
    cache_keep: str | None = None
    num_rows: int
    metric: str
    num_eval_rows: int
    teacher: float | None = None
    majority: float | None = None
    labels: StudyPoint | None = None
    baseline: str | None = None
    seeds: list[int]
    points: list[StudyPoint]

    @property
    def strategies(self) -> dict[str, list[StudyPoint]]:
        """Points by strategy, each in the order of bytes a row."""
        found: dict[str, list[StudyPoint]] = {}
        for point in self.points:
            found.setdefault(point.strategy, []).append(point)
        return {name: sorted(some, key=lambda point: point.bytes_per_row) for name, some in found.items()}

    @property
    def num_left(self) -> int:
        """Runs that are not done yet."""
        everything = [*self.points, *([self.labels] if self.labels else [])]
        return sum(len(set(self.seeds) - {one.seed for one in point.scores}) for point in everything)


def read_results(folder: str | os.PathLike[str]) -> StudyResults:
    """The results in the folder of a study.

    Raises:
        MismatchError: the folder holds no study, or one of a newer version.
        DamageError: the file is not what a study writes.
    """
    path = Path(folder) / RESULTS
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise MismatchError(
            f"{folder} holds no study: there is no {RESULTS}; give the folder that hsktrain study was given with --out"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DamageError(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from None
    try:
        return StudyResults.model_validate_json(text)
    except ValidationError as error:
        problem = _VersionAlone.of(text)
        if problem is not None and problem > VERSION:
            raise MismatchError(
                f"{path} is of version {problem}, and this program reads up to {VERSION}; upgrade hskcache"
            ) from None
        if problem is None:
            raise MismatchError(f"{path} is not of a study: {first_problem(error)}") from None
        raise DamageError(
            f"{path} is damaged: {first_problem(error)}; the same hsktrain study writes it again from its runs"
        ) from None


class _VersionAlone(Strict):
    """The version of a file, whatever else is in it."""

    model_config = Strict.model_config | {"extra": "ignore"}

    version: int

    @classmethod
    def of(cls, text: str) -> int | None:
        """The version; None where there is none."""
        try:
            return cls.model_validate_json(text).version
        except ValidationError:
            return None


def shown_range(scores: Sequence[float], around: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Lowest and highest score of a picture's axis, which shows every score and of intervals what is near them.

    A single interval that is much wider than the others, such as one of few seeds of which some came to nothing, would
    press all that is to be seen into a line. It runs off the picture instead.

    Args:
        scores: of points and of lines across, at least one.
        around: score and half the width of each interval.
    """
    low, high = min(scores), max(scores)
    beyond = max((high - low) / 4, 2 * median([half for _, half in around if half] or [0.0]))
    low = max(low - beyond, min([low, *(score - half for score, half in around)]))
    high = min(high + beyond, max([high, *(score + half for score, half in around)]))
    room = (high - low) * 0.08 or 0.01
    return low - room, high + room
