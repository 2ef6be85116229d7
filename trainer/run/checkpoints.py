"""The folder of a training run: whose it is, where it stopped, and whether it is done.

``run.json`` is written first and says what is being trained, ``checkpoints/`` holds the way there (of a recipe's
stages, ``stages/*/checkpoints/``) and ``metrics.json`` is written last, so the same command can tell a new folder, a
cut-off run and a finished one apart.
"""

import json
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from hskcache.difference import first_difference
from hskcache.disk import require_writable
from hskcache.errors import DamageError, MismatchError
from hskcache.locks import WRITING

RUN = "run.json"
METRICS = "metrics.json"
LOGS = "logs"
HISTORY = "history.jsonl"
ARGUMENTS = "training_args.json"
CHECKPOINTS = "checkpoints"
STAGES = "stages"
DONE = "done.json"
LOADER = "loader.json"
MIDWAY = "midway.json"
# What the Trainer writes, its state last.
_COMPLETE = ("optimizer.pt", "scheduler.pt", "trainer_state.json")
_MOST_SHOWN = 80
_NOWHERE = "the start"


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` so that the file is either whole or absent."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    temporary.replace(path)


def read_json(path: Path) -> Any:
    """The value of a file written by :func:`write_json` or by the Trainer. Raises DamageError if it is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"is damaged: {error}") from None


def read_object(path: Path) -> dict[str, Any]:
    """The object in a file written by :func:`write_json`. Raises DamageError if it is no JSON, or no object."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise damaged(path, f"is damaged: it holds {_short(value)} in place of an object")
    return value


def damaged(path: Path, what: str) -> DamageError:
    """The error of a file that a run cannot do without: what is wrong with it, and what to do."""
    return DamageError(f"{path} {what}; restore it, or delete its folder and run the same command again")


def difference(stored: Any, given: Any) -> str | None:
    """First difference of two runs, such as ``recipe.stages.0.epochs 2.0 and this one has 3.0``, or None."""
    if (found := first_difference(stored, given)) is None:
        return None
    path, ours, theirs = found
    return f"{path} {_short(ours)} and this one has {_short(theirs)}"


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= _MOST_SHOWN else f"{shown[: _MOST_SHOWN - 3]}..."


def claim(out: Path, run: Mapping[str, Any]) -> dict[str, Any] | None:
    """Make ``out`` the folder of ``run``, or find that it is already.

    ``out``: the run's folder; created where it is missing. ``run``: everything that decides the result, as JSON values.
    Returns the metrics of the finished run, or None when there is still something to train. Raises MismatchError if the
    folder holds something else, or a run that differs from this one; DamageError if its records cannot be read.
    """
    record, metrics = out / RUN, out / METRICS
    given = json.loads(json.dumps(run))
    if record.is_file():
        if (found := difference(read_object(record), given)) is not None:
            stages = sorted((out / STAGES).glob("*"))
            has_stage = any((stage / DONE).is_file() for stage in stages)
            if metrics.is_file() or has_stage or any(map(last_checkpoint, [out, *stages])):
                raise MismatchError(
                    f"{out} holds a run with {found}; give the same settings to go on, or another --out"
                )
            _drop_way(out)
            shutil.rmtree(out / LOGS, ignore_errors=True)
            (out / HISTORY).unlink(missing_ok=True)
    else:
        require_room(out)
    out.mkdir(parents=True, exist_ok=True)
    write_json(record, given)
    if not metrics.is_file():
        return None
    finished = read_object(metrics)
    _drop_way(out)
    return finished


def require_room(out: Path) -> None:
    """Refuse a place where no run can begin or go on.

    Raises MismatchError if the folder holds something that is no run, CacheError if nothing can be written there.
    """
    record = out / RUN
    if record.is_file():
        return
    require_writable(out)
    if out.exists() and any(path.name not in {record.with_suffix(".tmp").name, WRITING} for path in out.iterdir()):
        raise MismatchError(f"{out} is not empty and holds no run; give a new or an empty folder with --out")


def begun(out: Path) -> dict[str, Any]:
    """Facts that decide the run in ``out``; empty where nothing has begun. Raises DamageError if unreadable."""
    record = out / RUN
    return read_object(record) if record.is_file() and reached(out) != _NOWHERE else {}


def reached(out: Path) -> str:
    """Point that the run in ``out`` goes on from, in words; nothing is touched."""
    if (out / METRICS).is_file():
        return "its end: it is done"
    stages = sorted((out / STAGES).glob("*"), reverse=True)
    for folder in (*stages, out):
        done = [step_of(one) for one in _checkpoints(folder) if _is_whole(one, ())]
        name = folder.name.partition("-")[2]
        if (folder / DONE).is_file():
            return f"the end of stage {name}"
        if done:
            return f"its last checkpoint, step {done[0]}{f' of stage {name}' if folder != out else ''}"
    return _NOWHERE


def last_checkpoint(folder: Path, also: Collection[str] = ()) -> Path | None:
    """The newest whole checkpoint in ``folder/checkpoints``; one that a crash cut off is removed.

    ``folder``: of a run or a stage; ``also``: files that a whole checkpoint has beside those of the Trainer.
    """
    for checkpoint in _checkpoints(folder):
        if _is_whole(checkpoint, also):
            return checkpoint
        shutil.rmtree(checkpoint)
    return None


def _checkpoints(folder: Path) -> list[Path]:
    """Checkpoints of a run or a stage, the newest first."""
    return sorted((folder / CHECKPOINTS).glob("checkpoint-*"), key=step_of, reverse=True)


def checkpoint_of(folder: Path | str, step: int) -> Path:
    """Folder that the Trainer saves what it has after so many optimizer steps in."""
    return Path(folder) / f"checkpoint-{step}"


def step_of(checkpoint: Path) -> int:
    """Optimizer steps done at a checkpoint."""
    return int(checkpoint.name.rpartition("-")[2])


def _is_whole(checkpoint: Path, also: Collection[str]) -> bool:
    names = (*_COMPLETE, *also)
    if not all((checkpoint / name).is_file() for name in names) or not any(checkpoint.glob("*.safetensors")):
        return False
    try:
        # The Trainer writes its state last, but not in one piece.
        read_json(checkpoint / "trainer_state.json")
    except DamageError:
        return False
    return True


def finish(out: Path, metrics: Mapping[str, Any]) -> None:
    """Record the result, and only then drop the way there, which nothing needs any more."""
    write_json(out / METRICS, metrics)
    _drop_way(out)


def _drop_way(out: Path) -> None:
    for name in (CHECKPOINTS, STAGES):
        shutil.rmtree(out / name, ignore_errors=True)
