"""The folder of a run: whose it is, what is done in it, and the best student's place.

``run.json`` says what decides the result, but neither the levels nor the methods that are compared: of these a folder
may get more. Each step leaves its result whole or not at all, so that what stands there is done.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hskcache.cache import Cache, open_cache
from hskcache.errors import MismatchError
from hskcache.store.additions import ADDING
from hskcache.store.ledger import BUILDING, MANIFEST
from trainer.checkpoints import LOGS, METRICS, RUN, read_json, write_json
from trainer.stark.settings import Level, level_of

RESULTS = "results.json"
PLOT = "sparsity.png"
_LEVELS = "levels"
_ORIGIN = "stark.json"
_NOT_STUDENT = (RUN, METRICS, LOGS)


class Folder(NamedTuple):
    """Where a run keeps its things."""

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
        done = (self.cache / MANIFEST).is_file() and not (self.cache / BUILDING).exists()
        return open_cache(self.cache) if done else None

    def has_field(self, cache: Cache, level: Level) -> bool:
        """Whether the logits of a level's sparse teacher are in the cache."""
        return level.field in cache.manifest.added and not (self.cache / level.field / ADDING).exists()

    def metrics(self, level: Level) -> dict[str, float] | None:
        """Of a level's student; None until it is trained."""
        path = self.student(level) / METRICS
        return read_json(path)["scores"] if path.is_file() else None

    def trained(self) -> dict[Level, dict[str, float]]:
        """The metrics of every level that is done, whichever command asked for it."""
        found = {}
        for path in (self.out / _LEVELS).glob("*"):
            level = level_of(path.name)
            if level is not None and (metrics := self.metrics(level)) is not None:
                found[level] = metrics
        return found

    def claim(self, run: Mapping[str, Any]) -> None:
        """Make the folder that of ``run``, or find that it is already.

        Args:
            run: everything that decides the result, as JSON values.

        Raises:
            MismatchError: the folder holds something else, or a run that differs from this one.
        """
        record = self.out / RUN
        given = json.loads(json.dumps(run))
        others = [path for path in self.out.glob("*") if path not in (record, record.with_suffix(".tmp"))]
        if not record.is_file():
            if others:
                raise MismatchError(
                    f"{self.out} is not empty and holds no run; give a new or an empty folder with --out"
                )
        elif others and (found := _difference("", read_json(record), given)) is not None:
            key, stored, ours = found
            raise MismatchError(
                f"{self.out} holds a run with {key} {stored!r} and this one has {ours!r}; give the same settings to go "
                "on or to add levels, or another --out"
            )
        if not record.is_file() or read_json(record) != given:
            self.out.mkdir(parents=True, exist_ok=True)
            write_json(record, given)

    def publish(self, level: Level) -> None:
        """Copy a level's student to its place as the best; one that stands there already is left as it is."""
        origin = {"method": level.method, "percent": level.percent}
        copy, old = (self.out / f"{self.best.name}{suffix}" for suffix in (".tmp", ".old"))
        for leftover in (copy, old):
            shutil.rmtree(leftover, ignore_errors=True)
        record = self.best / _ORIGIN
        if record.is_file() and read_json(record) == origin:
            return
        shutil.copytree(self.student(level), copy, ignore=shutil.ignore_patterns(*_NOT_STUDENT))
        write_json(copy / _ORIGIN, origin)
        if self.best.exists():
            self.best.rename(old)
        copy.rename(self.best)
        shutil.rmtree(old, ignore_errors=True)


def _difference(path: str, stored: Any, given: Any) -> tuple[str, Any, Any] | None:
    """Where two JSON values first differ: the key's path, the value here, the value there."""
    if isinstance(stored, dict) and isinstance(given, dict):
        pairs = [(key, stored.get(key), given.get(key)) for key in {**stored, **given}]
    elif isinstance(stored, list) and isinstance(given, list) and len(stored) == len(given):
        pairs = [(str(place), *both) for place, both in enumerate(zip(stored, given, strict=True))]
    else:
        return None if stored == given else (path, stored, given)
    found = (_difference(f"{path}.{key}" if path else key, *both) for key, *both in pairs)
    return next((one for one in found if one is not None), None)
