"""The folder of a training run: whose it is, where it stopped, and whether it is done.

``run.json`` is written first and says what is being trained, ``checkpoints/`` holds the way there and
``metrics.json`` is written last, so the same command can tell a new folder, a cut-off run and a finished one apart.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hskcache.errors import MismatchError

RUN = "run.json"
METRICS = "metrics.json"
CHECKPOINTS = "checkpoints"
_COMPLETE = ("config.json", "optimizer.pt", "scheduler.pt", "trainer_state.json")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` so that the file is either whole or absent."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    temporary.replace(path)


def claim(out: Path, run: Mapping[str, Any]) -> dict[str, Any] | None:
    """Make ``out`` the folder of ``run``, or find that it is already.

    Args:
        out: the run's folder; created where it is missing.
        run: everything that decides the result, as JSON values.

    Returns:
        The metrics of the finished run, or None when there is still something to train.

    Raises:
        MismatchError: the folder holds something else, or a run that differs from this one.
    """
    record = out / RUN
    if not record.is_file() and out.exists() and any(out.iterdir()):
        raise MismatchError(f"{out} is not empty and holds no run; give a new or an empty folder with --out")
    metrics = out / METRICS
    if metrics.is_file() or last_checkpoint(out) is not None:
        _check_same(out, json.loads(record.read_text(encoding="utf-8")), json.loads(json.dumps(run)))
    out.mkdir(parents=True, exist_ok=True)
    write_json(record, run)
    finished: dict[str, Any] | None = json.loads(metrics.read_text(encoding="utf-8")) if metrics.is_file() else None
    return finished


def _check_same(out: Path, stored: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    for key in sorted(given.keys() | stored.keys()):
        if given.get(key) != stored.get(key):
            raise MismatchError(
                f"{out} holds a run with {key} {stored.get(key)!r} and this one has {given.get(key)!r}; "
                "give the same settings to go on, or another --out"
            )


def last_checkpoint(out: Path) -> Path | None:
    """The newest whole checkpoint of the run in ``out``; one that a crash cut off is removed."""
    found = sorted((out / CHECKPOINTS).glob("checkpoint-*"), key=step_of, reverse=True)
    for folder in found:
        if _is_whole(folder):
            return folder
        shutil.rmtree(folder)
    return None


def step_of(checkpoint: Path) -> int:
    """Optimizer steps done at a checkpoint."""
    return int(checkpoint.name.rpartition("-")[2])


def _is_whole(folder: Path) -> bool:
    if not all((folder / name).is_file() for name in _COMPLETE) or not any(folder.glob("*.safetensors")):
        return False
    try:
        # The Trainer writes its state last, but not in one piece.
        json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
    except ValueError:
        return False
    return True


def finish(out: Path, metrics: Mapping[str, Any]) -> None:
    """Record the result and drop the checkpoints, which nothing needs any more."""
    write_json(out / METRICS, metrics)
    shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
