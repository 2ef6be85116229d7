"""Studies of the tests: small plans over the tiny cache, in this process and in others."""

import json
import sys
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from trainer.cli import main as hsktrain

QUICK = ("--set", "hidden.epochs=1", "--set", "prediction.epochs=1", "--device", "cpu", "--task", "sst2")
AXIS = ("--axis", "view=2l_9t,1l_3t")


def study(*words: object) -> Result:
    return CliRunner().invoke(hsktrain, ["study", *map(str, words)], catch_exceptions=False)


def refused(*words: object) -> str:
    done = study(*words)
    assert done.exit_code == 2, done.output
    return done.stderr


def facts_of(*words: object) -> dict[str, Any]:
    done = study(*words, "--json")
    assert done.exit_code == 0, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def program(*words: object) -> list[str]:
    """Command of another process."""
    script = "import sys; sys.argv[0] = 'hsktrain'; from trainer.cli import main; main()"
    return [sys.executable, "-c", script, "study", *map(str, words)]


def weights_in(cells: Path) -> dict[str, int]:
    """Times at which the students of some cells were written."""
    return {path.parent.name: path.stat().st_mtime_ns for path in cells.glob("*/model.safetensors")}
