"""The course of a run as JSON lines: one for every log and every evaluation, for whoever plots or compares runs."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

from transformers import TrainerCallback, TrainerState, TrainingArguments


class History(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """Append a line to ``path`` for whatever the Trainer logs; what will be logged again is dropped first.

    Of each line ``stage``, ``step`` and ``epoch`` tell when, ``seconds`` how long the stage had trained by then, in all
    processes that it went on in; the rest is what was logged, ``null`` where that is no finite number.
    """

    def __init__(self, path: Path, stage: str) -> None:
        self.path = path
        self.stage = stage
        self.begun_s = 0.0

    def on_train_begin(self, _args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Drop the lines of this stage after the step that it goes on from, and one that a kill has cut off."""
        kept = [
            entry
            for entry in read_history(self.path)
            if entry["stage"] != self.stage or 0 < entry["step"] <= state.global_step
        ]
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text("".join(map(_line, kept)), encoding="utf-8")
        temporary.replace(self.path)
        before_s = max((entry["seconds"] for entry in kept if entry["stage"] == self.stage), default=0.0)
        self.begun_s = perf_counter() - before_s

    def on_log(
        self, _args: TrainingArguments, state: TrainerState, *_: Any, logs: Mapping[str, Any], **__: Any
    ) -> None:
        """Append what was logged; the Trainer's own account of its speed at the end is none of it."""
        if "train_runtime" in logs:
            return
        when = {"stage": self.stage, "step": state.global_step, "epoch": state.epoch}
        values = {name: value if math.isfinite(value) else None for name, value in logs.items() if name != "epoch"}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(when | {"seconds": round(perf_counter() - self.begun_s, 3)} | values))


def read_history(path: Path) -> list[dict[str, Any]]:
    """The lines of a history; a last one that was cut off is left out, and there are none where there is no file."""
    entries = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and {"stage", "step", "seconds"} <= entry.keys():
            entries.append(entry)
    return entries


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry) + "\n"
