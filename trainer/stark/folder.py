"""The folder of a run: whose it is, what is done in it, and the best student's place.

``run.json`` says what decides the result, but neither the levels nor the methods that are compared: of these a folder
may get more. Each step leaves its result whole or not at all, so that what stands there is done.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hskcache.cache import Cache, open_cache
from hskcache.disk import writing_to
from hskcache.errors import DamageError, MismatchError
from hskcache.locks import WRITING
from hskcache.store.survey import Complete, survey
from trainer.chance import is_at_chance
from trainer.run.checkpoints import LOGS, METRICS, RUN, damaged, difference, read_json, read_object, write_json
from trainer.stark.settings import Level, level_of

RESULTS = "results.json"
PLOT = "sparsity.png"
_LEVELS = "levels"
_ORIGIN = "stark.json"
_NOT_STUDENT = (RUN, METRICS, LOGS)
_WEIGHTS = "*.safetensors"
# Of one stage, in weights of the student: three checkpoints, as the Trainer deletes the oldest after it has written the
# newest, each with the two moments of AdamW, and two best students, as one is kept until the other is whole.
_WEIGHTS_OF_A_STAGE = 3 * 3 + 2


class Outcome(NamedTuple):
    """Scores of a level's student.

    ``metric``: the one that picks; ``scores``: every metric on the evaluation rows; ``is_at_chance``: whether they know
    no more than the most frequent class.
    """

    metric: str
    scores: dict[str, float]
    is_at_chance: bool = False


class Folder(NamedTuple):
    """Folder that a run keeps its things in."""

    out: Path

    @property
    def cache(self) -> Path:
        """The dense teacher's logits, and a field for every level above 0."""
        return self.out / "cache.hsk"

    @property
    def best(self) -> Path:
        """The student of the best level."""
        return self.out / "student"

    def student(self, level: Level) -> Path:
        """The student of a level, as ``fit`` leaves it."""
        return self.out / _LEVELS / level.folder

    def open_cache(self) -> Cache | None:
        """The cache, once it is complete."""
        state = survey(self.cache)
        return open_cache(self.cache) if isinstance(state, Complete) and not state.is_being_built else None

    def has_field(self, cache: Cache, level: Level) -> bool:
        """True if the logits of a level's sparse teacher are in the cache."""
        return level.field in cache.manifest.added and level.field not in Complete(self.cache).being_added

    def outcome(self, level: Level) -> Outcome | None:
        """Scores of a level's student; None until it is trained.

        Raises DamageError if it is told that it is trained, but not how well, or the student is missing.
        """
        place = self.student(level)
        if not (place / METRICS).is_file():
            return None
        outcome = _outcome(read_object(place / METRICS))
        if outcome is None:
            raise damaged(place / METRICS, "is damaged: it holds no scores of a student")
        if not _has_weights(place):
            raise DamageError(f"{place} lacks its weights, {_WEIGHTS}; delete it and run the same command again")
        return outcome

    def trained(self) -> dict[Level, Outcome]:
        """Scores of every level that is done, whichever command asked for it."""
        levels = (level_of(path.name) for path in (self.out / _LEVELS).glob("*"))
        outcomes = {level: self.outcome(level) for level in levels if level is not None}
        return {level: outcome for level, outcome in outcomes.items() if outcome is not None}

    def most_bytes(self, levels: Sequence[Level], student_bytes: int) -> int:
        """Most bytes that students of some levels, of so many bytes each, may need beside what is there."""
        trained = self.trained()
        missing = [level for level in levels if level not in trained]
        if not missing:
            return 0 if _has_weights(self.best) else student_bytes
        files = (path for level in missing for path in self.student(level).rglob("*") if path.is_file())
        begun = sum(path.stat().st_size for path in files)
        # One more is the copy of the best.
        return max(0, (len(missing) + 1 + _WEIGHTS_OF_A_STAGE) * student_bytes - begun)

    @property
    def run(self) -> dict[str, Any] | None:
        """Facts that decide the folder's run; None without one. Raises DamageError if they cannot be read."""
        record = self.out / RUN
        return read_object(record) if record.is_file() else None

    @property
    def max_length(self) -> int | None:
        """Tokens of a row at most in the folder's run; None without one. Raises DamageError as :attr:`run`."""
        return (self.run or {}).get("max_length")

    def claim(self, run: Mapping[str, Any]) -> None:
        """Make the folder that of ``run``, or find that it is already.

        ``run``: everything that decides the result, as JSON values. Raises MismatchError if the folder holds something
        else, or a run that differs from this one; DamageError if it cannot be told which run it holds.
        """
        record, stored = self.out / RUN, self.run
        given = json.loads(json.dumps(run))
        own = (record.name, record.with_suffix(".tmp").name, WRITING)
        others = [path for path in self.out.glob("*") if path.name not in own]
        if stored is None and others:
            raise MismatchError(f"{self.out} is not empty and holds no run; give a new or an empty folder with --out")
        if others and (found := difference(stored, given)) is not None:
            raise MismatchError(
                f"{self.out} holds a run with {found}; give the same settings to go on or to add levels, or another "
                "--out"
            )
        if stored != given:
            self.out.mkdir(parents=True, exist_ok=True)
            write_json(record, given)

    def publish(self, level: Level) -> None:
        """Copy a level's student to its place as the best; one that stands there already is left as it is.

        Raises CacheError if it cannot be written; nothing of it stays behind.
        """
        origin = {"method": level.method, "percent": level.percent}
        copy, old = (self.out / f"{self.best.name}{suffix}" for suffix in (".tmp", ".old"))
        for leftover in (copy, old):
            shutil.rmtree(leftover, ignore_errors=True)
        if remade(self.best / _ORIGIN) == origin and _has_weights(self.best):
            return
        with writing_to(self.out, "here"):
            try:
                shutil.copytree(self.student(level), copy, ignore=shutil.ignore_patterns(*_NOT_STUDENT))
                write_json(copy / _ORIGIN, origin)
                if self.best.exists():
                    self.best.rename(old)
                copy.rename(self.best)
            except BaseException:
                shutil.rmtree(copy, ignore_errors=True)
                raise
            shutil.rmtree(old, ignore_errors=True)


def _outcome(found: Mapping[str, Any]) -> Outcome | None:
    metric, scores = found.get("metric"), found.get("scores")
    if not isinstance(metric, str) or not isinstance(scores, dict) or metric not in scores:
        return None
    if not all(isinstance(score, int | float) for score in scores.values()):
        return None
    return Outcome(metric, scores, is_at_chance(found))


def remade(path: Path) -> Any:
    """The value of a file that is made anew where it is missing or damaged; None then."""
    try:
        return read_json(path)
    except (DamageError, FileNotFoundError):
        return None


def _has_weights(folder: Path) -> bool:
    return any(folder.glob(_WEIGHTS))
